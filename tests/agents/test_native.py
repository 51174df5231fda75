"""Agents that see and call tools natively: whole episodes by script, and two of them on real engines and a trainer."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoProcessor

from m1lite.agents import native
from m1lite.agents.chat import Chat, pack
from m1lite.agents.media_chat import MediaChat
from m1lite.agents.native import NativeAgent
from m1lite.agents.native_calls import Reply, name_tools
from m1lite.agents.plan import Parsed
from m1lite.agents.text_answers import TextAnswers
from m1lite.collaboration import loop
from m1lite.engines.base import EngineGroup, Sampling
from m1lite.engines.hf import HfEngine
from m1lite.engines.scripted import ScriptedEngine
from m1lite.engines.sight import sight_of
from m1lite.modules.bases import load_base
from m1lite.modules.objective import Objective
from m1lite.modules.team import Team
from m1lite.modules.update import AgentUpdate
from m1lite.records import Answer, MessageKind, Sample, Span, Status, Task, ToolCall, TurnKind
from m1lite.toolbox import Toolbox
from m1lite.toolbox.clips import ClipTools, clip_tool
from m1lite.toolbox.served import mcp_tool
from m1lite.video.budget import FrameBudget
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels

CALL = '<tool_call>\n{"name": "video_clip", "arguments": {"start": 2, "end": 4, "fps": 1}}\n</tool_call>'
ANSWER = "<think>seen</think><answer>2.00 to 4.00</answer>"


@pytest.fixture(scope="module")
def frames():
    return FrameCache(50_000_000)


def make_chat(directory):
    return MediaChat(
        Chat(AutoProcessor.from_pretrained(directory).tokenizer), sight_of(AutoConfig.from_pretrained(directory))
    )


def make_agent(directory, frames, name="ada", **options):
    chat = make_chat(directory)
    unit = chat.sight.factor**2
    budget = FrameBudget(fps=0.5, max_frames=4, min_frame_pixels=unit, max_frame_pixels=2 * unit, total_pixels=8 * unit)
    settings = {
        "tools": ClipTools(max_frames=8)(["video_clip", "get_frames", "zoom"]),
        "view": budget,
        "tool_view": budget,
        "sampling": Sampling(max_new_tokens=120),
        **options,
    }
    return NativeAgent(name=name, answers=TextAnswers(), chat=chat, frames=frames, **settings)


def make_sample(clip, **options):
    truth = {"task": Task.GROUNDING, "question": "When is red there?", "answer": Answer(spans=(Span(start=2, end=4),))}
    return Sample(**{"id": "q1", "video": clip, "duration": 8.0, **truth, **options})


@pytest.fixture
def talk(vision_bases, clip, frames):
    """Plays one episode in which the agent says given lines, and returns it with what the agent read."""

    def play(*lines, max_rounds=3, max_calls=4, cut=None, sample=None, **options):
        agent = make_agent(vision_bases["qwen2_5_vl"], frames, **options)
        tokenizer = agent.chat.chat.tokenizer
        said, read = iter(lines), []

        def reply(request):
            text = next(said)
            read.append(tokenizer.decode(request.prompt_ids))
            return [*tokenizer(text).input_ids, *([] if text is cut else [agent.chat.end_of_turn_id])]

        engine = ScriptedEngine(reply, policies=["ada"], eos_token_ids=[agent.chat.end_of_turn_id], logprob=-0.5)
        (episode,) = loop.run(
            [sample or make_sample(clip)], [agent], engine, Toolbox(agent.tools, frames), episodes=1, seed=0,
            max_rounds=max_rounds, max_calls=max_calls,
        )  # fmt: skip
        trajectory = episode.trajectories["ada"]
        batch = pack([trajectory], [1.0], pad_id=0, temperature=1.0)
        agent.chat.sight.check(batch.input_ids[0].tolist(), batch.media[0] if batch.media else (), "the row")
        assert next(said, None) is None, "every line was to be said"
        return episode, trajectory, read

    return play


def test_a_clip_is_called_for_shown_and_answered(talk):
    episode, trajectory, read = talk(CALL, ANSWER)
    assert [turn.kind for turn in trajectory.turns] == [TurnKind.PLAN, TurnKind.COMMUNICATE]
    assert [turn.status for turn in trajectory.turns] == [Status.OK, Status.OK]
    first, second = trajectory.turns
    assert [media.timestamps for media in first.media] == [(0.0,), (2.0,), (4.0,), (6.0,)]
    assert [media.timestamps for media in second.media] == [(2.0,), (3.0,)]
    assert trajectory.calls == [ToolCall(tool="video_clip", args={"start": 2, "end": 4, "fps": 1})]
    assert episode.answer == trajectory.answer == Answer(spans=(Span(start=2.0, end=4.0),))
    assert [message.kind for message in episode.messages] == [
        MessageKind.PLAN,
        MessageKind.RESULT,
        MessageKind.ANSWER,
    ]
    assert "<tool_response>\n2 frames at 2, 3 seconds\n<2.0 seconds><|vision_start|>" in read[1]
    assert '"name": "video_clip"' in read[0]  # the schema
    assert trajectory.answer_logprob == -0.5


def test_several_calls_of_a_turn_are_all_answered(talk):
    other = '<tool_call>{"name": "zoom", "arguments": {"start": 0, "end": 0.5, "box": [0, 0, 0.5, 0.5]}}</tool_call>'
    _, trajectory, read = talk(CALL + other, ANSWER)
    assert [call.tool for call in trajectory.calls] == ["video_clip", "zoom"]
    assert len(trajectory.turns[1].media) == 3
    assert trajectory.turns[1].media[2].box == (0.0, 0.0, 0.5, 0.5)
    assert read[1].count("<tool_response>") == 2


def test_an_image_of_another_program_is_shown_like_a_frame(talk, frames, tmp_path):
    server = Path(__file__).parents[1] / "toolbox" / "mcp_worker.py"
    tool = mcp_tool("picture", [sys.executable, str(server), str(tmp_path / "starts")], images=str(tmp_path))
    line = '<tool_call>{"name": "picture", "arguments": {"side": 16}}</tool_call>'
    _, trajectory, read = talk(line, ANSWER, tools=[tool])
    (media,) = trajectory.turns[1].media
    assert (media.uri, media.timestamps) == (trajectory.results[0].media[0].uri, (0.0,))
    assert (media_pixels(frames, media) == 51).all()
    assert "<tool_response>\na square\n<0.0 seconds><|vision_start|>" in read[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('<tool_call>{"name": video_clip}</tool_call>', "Call 1, '{\"name\": video_clip}', is no JSON"),
        ('<tool_call>["video_clip"]</tool_call>', "Call 1 is ['video_clip']; write"),
        ('<tool_call>{"name": "video_clip", "arguments": {"start": 2, "end": 4, "speed": 9}}</tool_call>',
         "Call 1: `video_clip` has no argument 'speed'; it takes start end [fps]"),
        ('<tool_call>{"name": "video_clip", "args": {}}</tool_call>', "Call 1 has the keys ['args'] besides"),
        ('<tool_call>{"name": "look", "arguments": {}}</tool_call>', "There is no tool 'look'; there are video_clip"),
        (CALL + '<tool_call>{"name": "zo', "The reply ends in the middle of a call; close it with </tool_call>"),
        (CALL + "<answer>1 to 2</answer>", "The reply calls a tool and answers at once; do one of them."),
        ("I see nothing.", "The reply 'I see nothing.' neither calls a tool nor answers"),
        ("<think>" + CALL, "The reply opens <think> and never closes it"),
        ("</tool_call>", "closes a call that was never opened"),
    ],
)  # fmt: skip
def test_a_reply_that_cannot_be_used_is_told_so_and_the_talk_goes_on(talk, line, message):
    _, trajectory, read = talk(line, ANSWER)
    assert trajectory.turns[0].status is Status.INVALID_PLAN
    assert message in trajectory.turns[0].error
    assert f"Your last reply could not be used: {trajectory.turns[0].error}" in read[1]
    assert trajectory.calls == []
    assert trajectory.answer is not None


def test_a_reply_that_is_cut_in_the_middle_of_a_call_is_a_status_and_a_turn(talk):
    line = CALL[:40]
    _, trajectory, read = talk(line, ANSWER, cut=line, sampling=Sampling(max_new_tokens=39))
    assert trajectory.turns[0].status is Status.TRUNCATED
    assert "was cut after" in trajectory.turns[0].error
    assert "The reply ends in the middle of a call" in read[1]
    assert trajectory.answer is not None


def test_what_a_tool_refuses_is_read_as_its_result(talk):
    late = '<tool_call>{"name": "video_clip", "arguments": {"start": 2, "end": 40}}</tool_call>'
    dense = '<tool_call>{"name": "video_clip", "arguments": {"start": 0, "end": 8, "fps": 50}}</tool_call>'
    _, trajectory, read = talk(late, dense, ANSWER)
    assert "<tool_response>\n`end` 40 is past the video end 8." in read[1]
    assert "That would be 400 frames, above the limit of 8" in read[2]
    assert [result.status for result in trajectory.results] == [Status.TOOL_ERROR] * 2
    assert trajectory.turns[1].media == trajectory.turns[2].media == ()


def test_frames_beyond_the_budget_are_left_out_in_words(talk, vision_bases):
    unit = make_chat(vision_bases["qwen2_5_vl"]).sight.factor ** 2
    tight = FrameBudget(min_frame_pixels=unit, max_frame_pixels=unit, total_pixels=unit)
    _, trajectory, read = talk(CALL, ANSWER, tool_view=tight)
    assert "The frames cannot be shown: 2 frames do not fit: the budget holds 1 to 1" in read[1]
    assert trajectory.turns[1].media == ()


def test_the_last_round_forbids_calls(talk):
    _, trajectory, read = talk(CALL, CALL, ANSWER, max_rounds=1)
    assert "You may not call tools any more." not in read[0]
    assert read[1].endswith("You may not call tools any more. Answer now.<|im_end|>\n<|im_start|>assistant\n")
    assert [turn.status for turn in trajectory.turns] == [Status.OK, Status.CALL_LIMIT, Status.OK]
    assert len(trajectory.calls) == 1
    assert trajectory.turns[2].kind is TurnKind.ANSWER
    _, trajectory, read = talk(ANSWER, max_rounds=0)
    assert "You may not call tools any more." in read[0]
    _, trajectory, _ = talk(CALL, ANSWER, max_calls=1, max_rounds=5)
    assert len(trajectory.turns) == 2


def test_an_answer_that_does_not_parse_ends_its_part(talk):
    episode, trajectory, _ = talk("<answer>soon</answer>")
    assert trajectory.turns[0].status is Status.INVALID_ANSWER
    assert "'soon' names no span" in trajectory.turns[0].error
    assert (trajectory.answer, episode.answer, len(trajectory.turns)) == (None, None, 1)


def test_a_full_context_takes_words_and_frames_away_together(talk):
    _, trajectory, _ = talk(CALL, ANSWER)
    limit = len(trajectory.turns[0].prompt_ids) + 120  # room for the first turn and its longest reply
    _, trajectory, _ = talk(CALL, max_context=limit)
    assert [turn.status for turn in trajectory.turns] == [Status.OK, Status.TRUNCATED]
    last = trajectory.turns[-1]
    assert (last.prompt_ids, last.media, last.reply_ids) == ([], (), [])
    assert f"more than `max_context` {limit} of agent 'ada'" in last.error
    _, trajectory, _ = talk(max_context=100)
    assert trajectory.turns[0].status is Status.TRUNCATED


def test_a_video_shorter_than_its_sample_is_shown_as_far_as_it_goes(talk, clip):
    _, trajectory, _ = talk(ANSWER, sample=make_sample(clip, duration=30.0))
    assert all(media.timestamps[0] < 8 for media in trajectory.turns[0].media)


def test_two_agents_that_see_learn_together_from_a_tool_that_shows_frames(vision_bases, clip, frames, monkeypatch):
    """Two families, one loop, one trainer: what was sampled is scored alike, and both get gradients."""

    def always_calls(text, tools):  # a random policy would not
        calls = (ToolCall(tool="video_clip", args={"start": 2, "end": 4, "fps": 1}),)
        return Parsed(value=Reply(calls=calls), status=Status.OK)

    monkeypatch.setattr(native, "read_reply", always_calls)
    families = {"ada": "qwen2_5_vl", "bea": "qwen3_vl"}
    sampling = Sampling(max_new_tokens=30, temperature=0.9)
    ends = range(0, 500, 2)  # many, so that no reply is cut
    agents = [make_agent(vision_bases[base], frames, name=name, sampling=sampling) for name, base in families.items()]
    team = Team({base: load_base(str(vision_bases[base])) for base in families.values()}, families, frames=frames)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in families:
            for parameter in team.adapter_parameters(name).values():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    engines = EngineGroup(
        {
            name: HfEngine(vision_bases[base], [name], frames=frames, eos_token_ids=ends)
            for name, base in families.items()
        }
    )
    for name in families:
        engines.load_adapter(name, team.adapter_tensors(name), team.adapter_config(name), version=1)
    tools = Toolbox(agents[0].tools, frames)
    episodes = loop.run([make_sample(clip)], agents, engines, tools, episodes=2, seed=1, max_rounds=2, max_calls=2)
    for name in families:
        rows = [episode.trajectories[name] for episode in episodes]
        assert [len(turn.media) for turn in rows[0].turns] == [4, 2, 2, 0]
        batch = pack(rows, [1.0, -0.5], pad_id=team.pad_id(name), temperature=0.9, names=["q1/0", "q1/1"])
        with torch.no_grad():
            found, _ = team.logprobs(name, batch)
        assert (found - batch.sampled_logprobs).abs().max() < 1e-4
        update = AgentUpdate(
            team, name, batch, objective=Objective(), micro_batch_tokens=2000, backward=torch.Tensor.backward
        )
        sums = update.accumulate([0, 1], anchored=False)
        assert sums["tokens"] == sum(len(turn.reply_ids) for row in rows for turn in row.turns)
        assert max(p.grad.abs().max().item() for p in team.adapter_parameters(name).values()) > 1e-4
        assert team.features[families[name]].num_computed == len({m.media for row in batch.media for m in row})
    engines.close()


def test_tools_can_be_named_in_few_words(vision_bases):
    words = name_tools([clip_tool("video_clip"), clip_tool("get_frames")])
    assert words.splitlines()[1:4] == [
        "<tool_call>",
        '{"name": "video_clip", "arguments": {"start": "...", "end": "...", "fps": "..."}}',
        "</tool_call>",
    ]
    assert name_tools([]) == ""
    agent = NativeAgent(
        name="ada",
        answers=TextAnswers(),
        chat=make_chat(vision_bases["qwen2_5_vl"]),
        frames=FrameCache(0),
        tools=[clip_tool("get_frames")],
        manual=name_tools,
    )
    assert agent.system == f"{agent.role}\n\n{name_tools(agent.tools)}"
