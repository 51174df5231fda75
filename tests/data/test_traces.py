"""Written replies are said through the real loop, calls are run, and what cannot be said as written is left out."""

import json

import pytest
from transformers import AutoConfig, AutoProcessor

from m1lite.agents.media_chat import media_chat
from m1lite.agents.native import NativeAgent
from m1lite.agents.text_answers import TextAnswers
from m1lite.collaboration.loop import run
from m1lite.data.readers.jsonl import DataError
from m1lite.data.traces import TraceTeacher, read_traces
from m1lite.engines.sight import sight_of
from m1lite.toolbox import Toolbox
from m1lite.toolbox.clips import clip_tool
from m1lite.video.budget import FrameBudget
from m1lite.video.cache import FrameCache

CALL = (
    '<think>look</think><tool_call>{"name": "video_clip", "arguments": {"start": %s, "end": 4, "fps": 1}}</tool_call>'
)
ANSWER = "<think>seen</think><answer>1.00 to 3.00</answer>"


@pytest.fixture
def root(tmp_path, clip):
    row = {"video": clip, "task": "grounding", "question": "when is it red?", "spans": [[1, 3]]}
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row | {"id": f"q{n}"}) + "\n" for n in range(5)))
    return tmp_path


def write(root, *lines):
    (root / "sft_replies.jsonl").write_text("".join(f"{line}\n" for line in lines))


def test_replies_are_said_turn_by_turn(root, vision_bases):
    replies = [[CALL % 2, ANSWER], [CALL % 9, ANSWER], [ANSWER, ANSWER], ["when?", ANSWER]]
    write(root, *[json.dumps({"id": f"q{n}", "replies": texts}) for n, texts in enumerate(replies)])
    samples, texts = read_traces(root, "sft")
    assert [sample.id for sample in samples] == ["q0", "q1", "q2", "q3"], "q4 is not demonstrated"
    directory, frames = vision_bases["qwen2_5_vl"], FrameCache(50_000_000)
    tokenizer = AutoProcessor.from_pretrained(directory).tokenizer
    chat = media_chat(tokenizer, sight_of(AutoConfig.from_pretrained(directory)))
    unit = chat.sight.factor**2
    view = FrameBudget(fps=0.5, max_frames=4, min_frame_pixels=unit, max_frame_pixels=unit, total_pixels=8 * unit)
    agent = NativeAgent(
        name="ada", answers=TextAnswers(), chat=chat, frames=frames, view=view, tool_view=view,
        tools=[clip_tool("video_clip")],
    )  # fmt: skip
    teacher = TraceTeacher([agent], texts)
    episodes = run(
        samples, teacher.players, teacher.sampler, Toolbox(agent.tools, frames), episodes=1, seed=0, max_rounds=2
    )
    (found,) = teacher.demonstrations(episodes)  # a refused call, a reply too many and an unreadable one are left out
    call, answer = found.trajectory.turns
    assert (call.text, answer.text) == (CALL % 2, ANSWER)
    assert [media.timestamps for media in answer.media] == [(2.0,), (3.0,)], "the call was run"
    assert found.weights == [1.0, 1.0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": "q1"}'], "sft_replies.jsonl:1: a line needs the fields `id` and `replies`"),
        (['{"id": "q1", "replies": []}'], ":1: `replies` must be a list of texts, one per turn"),
        (['{"id": "q9", "replies": ["x"]}'], "the id 'q9' is no question of sft.jsonl"),
        (["", *['{"id": "q1", "replies": ["x"]}'] * 2], ":3: the id 'q1' comes twice"),
    ],
)
def test_broken_lines_are_named(root, lines, message):
    write(root, *lines)
    with pytest.raises(DataError) as error:
        read_traces(root, "sft")
    assert message in str(error.value)


def test_a_missing_file_is_named(root):
    with pytest.raises(DataError, match=r"sft_replies.jsonl does not exist; write a line with `id` and `replies`"):
        read_traces(root, "sft")
