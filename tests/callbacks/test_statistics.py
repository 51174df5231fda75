import pytest
import torch

from m1lite.callbacks.statistics import rollout_stats, team_rewards, trajectory_stats
from m1lite.records import Answer, Episode, Sample, Span, Status, Task, ToolCall, ToolResult, Trajectory, Turn, TurnKind
from m1lite.rewards.compose import Breakdown


def turn(tokens, status=Status.OK):
    return Turn(
        kind=TurnKind.PLAN,
        round=0,
        prompt_ids=[1, 2, 3],
        reply_ids=[4] * tokens,
        logprobs=[-1.0] * tokens,
        policy_version=0,
        seed=0,
        text="",
        status=status,
    )


def trajectory(tokens, statuses, results=()):
    return Trajectory(
        agent="ada",
        turns=[turn(count, status) for count, status in zip(tokens, statuses, strict=True)],
        calls=[ToolCall(tool="x", args={})] * len(results),
        results=[ToolResult(status=status) for status in results],
    )


def test_trajectories_are_counted_by_hand():
    found = trajectory_stats(
        [
            trajectory([2, 3], [Status.OK, Status.INVALID_PLAN], [Status.OK, Status.TOOL_ERROR, Status.TOOL_TIMEOUT]),
            trajectory([5, 4], [Status.TRUNCATED, Status.OK]),
        ]
    )
    assert found == {
        "completions/mean_length": 7.0,
        "completions/clipped_ratio": 0.25,
        "parse_share": 0.5,
        "tools/call_frequency": 1.5,
        "tools/failure_frequency": pytest.approx(2 / 3),
    }
    assert trajectory_stats([trajectory([1], [Status.OK])])["tools/failure_frequency"] == 0


def test_team_reward_is_the_score_of_the_teams_answer():
    sample = Sample(
        id="a",
        video="v",
        duration=20,
        task=Task.GROUNDING,
        question="when red-square",
        answer=Answer(spans=(Span(start=0, end=8),)),
    )
    answers = [Answer(spans=(Span(start=0, end=8),)), Answer(spans=(Span(start=4, end=12),)), None]
    episodes = [
        Episode(
            sample=sample,
            index=number,
            seed=0,
            visible={},
            answer=answer,
            trajectories={"ada": trajectory([1], [Status.OK])},
        )
        for number, answer in enumerate(answers)
    ]
    assert team_rewards(episodes) == pytest.approx([1.0, 2 / 3 - 1, -1.0])
    breakdowns = [{"ada": Breakdown(total=total, terms={"judge": total})} for total in (1.0, 0.0, None)]
    rewards = torch.tensor([[1.0], [0.0], [float("nan")]])
    found = rollout_stats(episodes, breakdowns, rewards, torch.tensor([0, 0, 1]))
    assert found["team/reward"] == pytest.approx((1 + 2 / 3 - 1 - 1) / 3)
    assert found["ada/reward"] == 0.5
    assert (found["ada/rewards/judge/mean"], found["ada/rewards/judge/failed"]) == (0.5, 1)
    assert found["ada/frac_reward_zero_std"] == 0
