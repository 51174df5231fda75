"""Terms of agents that think, call and answer in tags, on trajectories written out."""

import pytest

from m1lite.records import Answer, Episode, Sample, Span, Status, Task, ToolCall, ToolResult, Trajectory, Turn, TurnKind
from m1lite.rewards.tags import StretchedAccuracy, TagFormat, tool_succeeded

CALL = '<tool_call>\n{"name": "video_clip", "arguments": {"start": 1, "end": 2}}\n</tool_call>'
THOUGHT = "<think>why</think>"


def played(*texts, task=Task.GROUNDING, statuses=(), results=(), answer=None):
    """One agent's part that says these texts, as a term is asked about it."""
    truth = Answer(spans=(Span(start=0, end=10),), text="left")
    sample = Sample(id="q", video="v.mp4", duration=20.0, task=task, question="when?", answer=truth)
    turns = [
        Turn(kind=TurnKind.PLAN, round=number, prompt_ids=[1], reply_ids=[2], logprobs=[0.0], policy_version=0, seed=0,
             text=text)
        for number, text in enumerate(texts)
    ]  # fmt: skip
    for turn, status in zip(reversed(turns), reversed(statuses), strict=False):
        turn.status = status
    trajectory = Trajectory(agent="ada", turns=turns, answer=answer)
    for result in results:
        trajectory.calls.append(ToolCall(tool="video_clip", args={}))
        trajectory.results.append(result)
    return sample, Episode(sample=sample, index=0, seed=0, visible={"ada": ()}), trajectory


@pytest.mark.parametrize(
    ("texts", "think", "value"),
    [
        (["<answer>1 to 2</answer>"], False, 1.0),
        (["<answer>1 to 2</answer>"], True, 0.0),
        ([f"{THOUGHT}\n<answer>1 to 2</answer>"], True, 1.0),
        ([f"{THOUGHT} so <answer>1 to 2</answer>"], True, 0.0),
        ([CALL, "<answer>1 to 2</answer>"], False, 1.0),
        ([f"{CALL}\n{CALL}", "<answer>1 to 2</answer>"], False, 1.0),
        ([f"see {CALL}", "<answer>1 to 2</answer>"], False, 0.0),
        ([THOUGHT + CALL, f"{THOUGHT}<answer>1</answer>"], True, 1.0),
        ([CALL, CALL], False, 0.0),
    ],
)
def test_every_reply_is_blocks_and_the_last_one_answers(texts, think, value):
    assert TagFormat(think=think)(*played(*texts)) == value


def test_grounded_answers_need_their_glue_and_must_be_readable():
    term, text = TagFormat(think=False), "<answer>left</answer><glue>[(1, 2)]</glue>"
    assert term(*played(text, task=Task.GROUNDED_QA)) == 1
    assert term(*played("<answer>left</answer>", task=Task.GROUNDED_QA)) == 0
    assert term(*played(text, task=Task.GROUNDED_QA, statuses=[Status.INVALID_ANSWER])) == 0
    assert term(*played("<answer>soon</answer>", statuses=[Status.INVALID_ANSWER])) == 1, "grounding asks for the form"
    assert term(*played()) is None


def test_a_tool_counts_once_it_gave_something():
    failed = ToolResult(error="no", status=Status.TOOL_ERROR)
    assert tool_succeeded(*played("x")) == 0
    assert tool_succeeded(*played("x", results=[failed])) == 0
    assert tool_succeeded(*played("x", results=[failed, ToolResult(text="2 frames")])) == 1


@pytest.mark.parametrize(("end", "value"), [(1, 0.0), (2, 0.0), (4, 0.5), (6, 1.0), (10, 1.0)])
def test_the_iou_of_grounding_is_stretched(end, value):
    """The truth is 0 to 10, so that an answer from 0 has its end for an IoU, in tenths."""
    answer = Answer(spans=(Span(start=0, end=end),))
    assert StretchedAccuracy(low=0.2, high=0.6)(*played("x", answer=answer)) == pytest.approx(value)


def test_other_tasks_keep_their_score():
    answer = Answer(text="left", spans=(Span(start=0, end=4),))
    term = StretchedAccuracy(low=0.2, high=0.6)
    assert term(*played("x", task=Task.GROUNDED_QA, answer=answer)) == pytest.approx(0.4)
    assert term(*played("x")) == 0.0
    with pytest.raises(ValueError, match=r"`low` is 0\.7 and `high` 0\.7"):
        StretchedAccuracy(low=0.7)
