"""Terms and gates about what an agent called, on trajectories written out, against values worked out by hand."""

import pytest

from m1lite.records import Answer, Episode, Sample, Span, Status, Task, ToolCall, ToolResult, Trajectory, Turn, TurnKind
from m1lite.rewards.aspects import Accuracy
from m1lite.rewards.calls import Both, Called, CallOverlap, CoherentCalls, ExplorationBonus, LengthBonus, ShortAnswer
from m1lite.rewards.compose import if_correct

SPANS = (Span(start=2, end=6),)
FAILED = ToolResult(error="no", status=Status.TOOL_ERROR)


def played(*calls, texts=(), answer="a dog", spans=SPANS, sample_id="q", tokens=1):
    """One agent's part with these (call, result text or failure), as a term is asked about it."""
    truth = Answer(text="a dog", spans=spans)
    sample = Sample(
        id=sample_id, video="v.mp4", duration=60.0, task=Task.CHOICE, question="?", answer=truth,
        options=("a cat", "a dog"),
    )  # fmt: skip
    turns = [
        Turn(kind=TurnKind.PLAN, round=place, prompt_ids=[], reply_ids=[1] * tokens, logprobs=[0.0] * tokens,
             policy_version=0, seed=0, text=text)
        for place, text in enumerate(texts or [""])
    ]  # fmt: skip
    trajectory = Trajectory(agent="ada", turns=turns, answer=None if answer is None else Answer(text=answer))
    for call, result in calls:
        trajectory.calls.append(call)
        trajectory.results.append(result if isinstance(result, ToolResult) else ToolResult(text=result))
    episode = Episode(sample=sample, index=0, seed=0, visible={}, trajectories={"ada": trajectory})
    return sample, episode, trajectory


def crop(start, end, result="frames"):
    return ToolCall(tool="crop_video", args={"start_time": start, "end_time": end}), result


@pytest.mark.parametrize(
    ("calls", "value"),
    [
        ([], 0.0),
        ([crop(2, 6)], 1.0),
        ([crop(2, 6), crop(4, 8)], 2 / 6),  # the last one counts
        ([crop(2, 6), crop(4, 8, FAILED)], 1.0),  # the last that gave something; the released code: any of them
        ([crop(0, 60)], 4 / 60),  # recall would be 1: windows do not grow for it
        ([crop(0, 60, FAILED)], 0.0),
    ],
)
def test_the_window_of_the_last_call(calls, value):
    assert CallOverlap()(*played(*calls)) == pytest.approx(value)
    assert CallOverlap()(*played(*calls, spans=())) is None


def test_exploration_is_paid_while_few_explore():
    users = [played(crop(1, 2))[1], played(crop(1, 2), answer="a cat")[1]]
    idle = [played()[1], played(crop(1, 2, FAILED))[1]]
    bonus = ExplorationBonus(target=0.5)

    def values(episodes):
        bonus.prepare(episodes)
        return [bonus(one.sample, one, one.trajectories["ada"]) for one in episodes]

    assert values([*users, *idle]) == [1.0, 1.0, 0.0, 0.0], "half of them, which is the target"
    assert values([*users, idle[0]]) == [0.0, 0.0, 0.0], "two thirds"
    bonus.prepare([*users, *idle])
    assert [if_correct(one.sample, one, one.trajectories["ada"]) for one in users] == [1.0, 0.0], (
        "its gate in VideoZoomer"
    )
    with pytest.raises(ValueError, match=r"`target` is 2; it is a share"):
        ExplorationBonus(target=2)


def test_middling_lengths_are_paid_where_several_are_right():
    bonus = LengthBonus(Accuracy(), low=3, high=5)

    def values(*parts):
        bonus.prepare([episode for _, episode, _ in parts])
        return [bonus(*part) for part in parts]

    good, other = played(tokens=3), played(tokens=5)
    assert values(good, other, played(tokens=2), played(tokens=6), played(tokens=4, answer="a cat")) == [1, 1, 0, 0, 0]
    assert values(good, played(tokens=2)) == [0, 0], "one alone is not paid"
    assert values(good, played(tokens=4, sample_id="other")) == [0, 0], "nor two of different questions"


def test_answers_that_talk_over_the_judge_are_gated():
    assert ShortAnswer()(*played(answer="x" * 999)) == 1
    assert ShortAnswer()(*played(answer="x" * 1000)) == 0
    assert ShortAnswer()(*played(answer=None)) == 1


def choose(first, last, result="Frames"):
    return ToolCall(tool="choose_frames", args={"start_frame": first, "end_frame": last}), result


def written(first, last, thought=""):
    call = f'{{"name": "choose_frames", "arguments": {{"start_frame": {first}, "end_frame": {last}}}}}'
    return f"<think>{thought or f'from {first} to {last}'}</think><tool_call>{call}</tool_call>"


LOCATE = ToolCall(tool="get_frame_number", args={"time": "00:10"}), "At 00:10 the frame number is 250"


@pytest.mark.parametrize(
    ("calls", "texts", "answer", "value"),
    [
        ([], [], "a dog", 1),
        ([choose(0, 40)], [written(0, 40)], "a cat", 1),  # wrong, but coherent
        ([choose(0, 40)], [written(0, 40)], None, 0),  # no answer
        ([choose(0, 40), choose(0, 40)], [written(0, 40)], "a dog", 0),  # the same twice
        ([choose(0, 7)], [written(0, 7)], "a dog", 1),  # eight frames
        ([choose(0, 6)], [written(0, 6)], "a dog", 0),  # seven
        ([choose(0, 40)], [written(0, 40, "of 900 frames, 0 and then 40")], "a dog", 1),
        ([choose(0, 40)], [written(0, 40, "I look from 10 to 50")], "a dog", 0),  # acts on other numbers
        ([LOCATE, choose(240, 260)], [written(240, 260)], "a dog", 1),
        ([LOCATE, choose(0, 40)], [written(0, 40)], "a dog", 0),  # does not look where it was told
        ([LOCATE], [], "a dog", 0),
        ([(LOCATE[0], FAILED)], [], "a dog", 1),  # nothing was told
    ],
)
def test_actions_that_do_not_follow_from_thoughts_void_the_reward(calls, texts, answer, value):
    gate = CoherentCalls()
    assert gate(*played(*calls, texts=texts, answer=answer)) == value


def test_the_bonus_of_an_action_is_for_right_and_coherent_episodes():
    gate, term = Both(CoherentCalls(), if_correct), Called("get_frame_number")
    good = played(LOCATE, choose(240, 260), texts=[written(240, 260)])
    assert (term(*good), gate(*good)) == (1.0, 1.0)
    wrong = played(LOCATE, choose(240, 260), texts=[written(240, 260)], answer="a cat")
    assert (term(*wrong), gate(*wrong)) == (1.0, 0.0)
    assert term(*played((LOCATE[0], FAILED))) == 0.0
    assert Both(CoherentCalls(), if_correct)(*played(LOCATE)) == 0.0
