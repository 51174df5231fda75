"""What a trajectory counts as, and the metrics over it against sums of plain numbers."""

import math

import pytest
import torch

from m1lite.metrics import Efficiency, ToolUse, TraceCounts, count_trace
from m1lite.records import MediaRef, Status, ToolCall, ToolResult, Trajectory, Turn, TurnKind


def turn(kind, *, prompt=3, reply=2, status=Status.OK, media=()):
    ids = {"prompt_ids": list(range(prompt)), "reply_ids": list(range(reply)), "logprobs": [0.0] * reply}
    return Turn(kind=kind, round=0, policy_version=0, seed=0, text="", status=status, media=media, **ids)


def trajectory(agent="ada"):
    frames = MediaRef(uri="v.mp4", timestamps=(0.0, 1.0, 2.0), size=(4, 5))
    return Trajectory(
        agent=agent,
        turns=[
            turn(TurnKind.PLAN, media=(frames,)),
            turn(TurnKind.COMMUNICATE, prompt=7, status=Status.INVALID_PLAN),
            turn(TurnKind.COMMUNICATE, status=Status.TRUNCATED),
            turn(TurnKind.ANSWER, reply=6, media=(frames, frames)),
        ],
        calls=[ToolCall(tool="look", args={})] * 3,
        results=[
            ToolResult(text="red", seconds=0.5, media=(frames,)),
            ToolResult(error="late", status=Status.TOOL_TIMEOUT, seconds=2.0),
            ToolResult(error="no such span", status=Status.TOOL_ERROR),
        ],
    )


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_a_trajectory_as_numbers():
    assert count_trace(trajectory()) == TraceCounts(
        plans=3, valid_plans=1, tool_calls=3, successful_calls=1, turns=4, frames=9, pixels=180, input_tokens=16,
        output_tokens=12, seconds=2.5,
    )  # fmt: skip


def test_an_episode_adds_its_agents():
    team = count_trace([trajectory("ada"), trajectory("bea")])
    assert (team.turns, team.seconds, team.successful_calls) == (8, 5.0, 2)
    assert count_trace([]).turns == 0


def test_a_trajectory_counts_as_its_numbers():
    for make in (ToolUse, Efficiency):
        of_trajectory, of_numbers = make(), make()
        of_trajectory.update([trajectory()])
        of_numbers.update([count_trace(trajectory())])
        assert values(of_trajectory) == values(of_numbers)


def test_tool_use_is_over_all_plans_and_calls():
    metric = ToolUse()
    traces = [
        TraceCounts(plans=1, valid_plans=1, tool_calls=0, successful_calls=0),
        TraceCounts(plans=3, valid_plans=0, tool_calls=5, successful_calls=4),
        TraceCounts(tool_calls=7),
    ]
    metric.update(traces[:1])
    metric.update(traces[1:])
    assert values(metric) == {"plan_validity": 0.25, "tool_success": 0.8}
    scores = {name: score.tolist() for name, score in ToolUse.score(traces).items()}
    assert scores["plan_validity"][:2] == [1.0, 0.0]
    assert scores["tool_success"][1] == 0.8
    assert all(math.isnan(score) for score in (scores["plan_validity"][2], scores["tool_success"][0]))


def test_what_was_not_measured_leaves_its_mean():
    metric = Efficiency()
    traces = [TraceCounts(frames=8, seconds=2.0), TraceCounts(frames=4), TraceCounts(frames=0, seconds=0.0)]
    metric.update(traces)
    with pytest.warns(UserWarning, match="saw no samples for some"):
        found = values(metric)
    assert (found["frames"], found["seconds"]) == (4.0, 1.0)
    assert math.isnan(found["pixels"])
    assert found["frames"] == Efficiency.score(traces)["frames"].mean()
    assert Efficiency.higher_is_better is False


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="`frames` is -1; it must be finite"):
        TraceCounts(frames=-1)
    with pytest.raises(ValueError, match="`seconds` is nan"):
        TraceCounts(seconds=math.nan)
    with pytest.raises(ValueError, match="`valid_plans` is 3, more than the 2 of `plans`"):
        TraceCounts(plans=2, valid_plans=3)
    with pytest.raises(TypeError, match=r"`traces\[1\]` is a dict"):
        Efficiency().update([TraceCounts(), {}])
    assert torch.equal(Efficiency.score([])["turns"], torch.zeros(0, dtype=torch.float64))
