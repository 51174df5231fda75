"""Drills in seeing: frames named by what perception finds in them, and questions as an agent would be asked them."""

from dataclasses import replace
from random import Random

import pytest

from m1lite.agents.text_answers import TextAnswers
from m1lite.assembly import Member, seeing_agents
from m1lite.data.drawn import DrawnScenes
from m1lite.data.scenes import SceneSpec
from m1lite.data.seeing_drills import asked_frames, found_frames, found_things, named_frames, window_times
from m1lite.engines.base import Sampling
from m1lite.modules.bases import load_base
from m1lite.toolbox import Toolbox
from m1lite.toolbox.clips import clip_tool
from m1lite.toolbox.perception import detect
from m1lite.video.budget import FrameBudget
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels

SCENES = DrawnScenes(SceneSpec(), ["grounding", "choice"], num_scenes=2, seed=3)
FRAMES = FrameCache(10_000_000, opener=SCENES.open)
VIDEO = SCENES.samples[0].video


@pytest.fixture
def agent(vision_bases):
    base = load_base(str(vision_bases["qwen2_5_vl"]))
    budget = FrameBudget(fps=1.0, max_frames=8, min_frame_pixels=56**2, max_frame_pixels=56**2, total_pixels=8 * 56**2)
    (agent,) = seeing_agents(
        {"ada": Member(base="seer", tools=["video_clip"])}, {"seer": base},
        Toolbox([clip_tool("video_clip")], FRAMES), answers=TextAnswers(think=False, letters=False), view=budget,
        tool_view=budget, sampling=Sampling(), max_context=1200,
    )  # fmt: skip
    return agent


def test_frames_are_named_as_perception_sees_them(agent):
    times = [float(second) for second in range(0, 16, 2)]
    turns = named_frames(agent, SCENES, VIDEO, times)
    for turn, second in zip(turns, times, strict=True):
        (shown,), (offset,) = turn.media, turn.media_offsets
        assert (shown.uri, shown.timestamps, shown.size) == (VIDEO, (second,), (56, 56))
        assert turn.prompt_ids[offset : offset + 4] == [agent.chat.sight.image_id] * 4
        assert agent.chat.decode(turn.prompt_ids[: offset - 1]) == f"<{second:.1f} seconds>"
        (found,) = detect(media_pixels(FRAMES, replace(shown, size=(64, 64))))
        words = "".join(f" {one.object} {one.lane}" for one in sorted(found, key=lambda one: one.box.left))
        assert agent.chat.decode(turn.reply_ids) == f"{words}\n"
    assert any(len(turn.reply_ids) > 1 for turn in turns)


def test_things_are_found_by_the_times_of_the_frames_that_show_them(agent):
    times = [float(second) for second in range(0, 16, 2)]
    turns = found_frames(agent, SCENES, VIDEO, times, Random(0))
    seen = SCENES.look(VIDEO, times)
    expected = {
        one.object: [
            second for second, frame in zip(times, seen, strict=True) if one.object in {o.object for o in frame}
        ]
        for frame in seen
        for one in frame
    }
    first, *others = turns
    assert [media.timestamps[0] for media in first.media] == times
    for offset in first.media_offsets:
        assert first.prompt_ids[offset] == agent.chat.sight.image_id != first.prompt_ids[offset - 1]
    assert not any(turn.media for turn in others)
    found = {}
    for turn in turns:
        name = agent.chat.decode(turn.prompt_ids).splitlines()[-1]
        found[name.removesuffix(":")] = [
            float(word.strip("<")) for word in agent.chat.decode(turn.reply_ids).split() if word.startswith("<")
        ]
    assert found == expected


def test_questions_follow_each_other_after_the_frames(agent):
    samples = [sample for sample in SCENES.samples if sample.video == VIDEO][:3]
    first, *others = turns = asked_frames(agent, samples, [1.0, 2.0, 5.0])
    assert [media.timestamps for media in first.media] == [(1.0,), (2.0,), (5.0,)]
    assert not any(turn.media for turn in others)
    for turn, sample in zip(turns, samples, strict=True):
        prompt, reply = agent.chat.decode(turn.prompt_ids), agent.chat.decode(turn.reply_ids)
        assert (agent.answers.ask(sample) if sample is samples[0] else sample.question) in prompt
        assert "tool" not in prompt
        assert agent.answers.parse_answer(reply, sample).value == sample.answer
        assert turn.reply_ids[-1] == agent.chat.end_of_turn_id
    assert agent.role in agent.chat.decode(first.prompt_ids)
    with pytest.raises(ValueError, match="3 frames do not fit into the context of 100 tokens; take fewer"):
        asked_frames(replace(agent, max_context=100), samples, [1.0, 2.0, 5.0])


def test_thoughts_tell_when_everything_that_a_question_names_is_seen(agent):
    sample = next(one for one in SCENES.samples if one.options and one.video == VIDEO)
    times = [float(second) for second in range(0, 16, 2)]
    thoughts = found_things(SCENES, lambda second: f"{second:g}", sample, times)
    lines = dict(line.split(":") for line in thoughts.strip().splitlines())
    assert list(lines) == [sample.question.removeprefix("next "), *sample.options]
    for name, told in lines.items():
        seen = [second for second in times if name in {one.object for one in SCENES.look(VIDEO, [second])[0]}]
        assert [float(word) for word in told.split()] == seen
    assert any(told.strip() for told in lines.values())
    drill, found = (
        found_frames(agent, SCENES, VIDEO, times, Random(0)),
        found_things(SCENES, agent.chat.stamp, sample, times),
    )
    for turn in drill:
        line = f"{agent.chat.decode(turn.prompt_ids).splitlines()[-1]}{agent.chat.decode(turn.reply_ids)}"
        assert line in found or line.split(":")[0] not in lines, "as the drill finds it"
    (turn,) = asked_frames(agent, [sample], times, think=lambda *given: f"{given == (sample, times)}")
    reply = agent.chat.decode(turn.reply_ids)
    assert reply == f"<think>True</think>{agent.answers.write_answer(sample.answer, sample)}"


def test_windows_lie_inside_of_the_video():
    rng = Random(0)
    drawn = [window_times(20, 6, rng) for _ in range(50)]
    assert {times[0] for times in drawn} == {float(second) for second in range(15)}
    assert all(times == [times[0] + number for number in range(6)] for times in drawn)
    assert window_times(4, 6, rng) == [0.0, 1.0, 2.0, 3.0]
