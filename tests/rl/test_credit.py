"""Credit rules by hand, on rewards per agent and per turn."""

from functools import partial

import pytest
import torch

from m1lite.rl.advantages import group_advantages, per_agent
from m1lite.rl.credit import difference_rewards, dropout_rewards, mixed, own, team

AGENTS = torch.tensor([[1.0, 0.0, -1.0], [0.5, float("nan"), 2.0]])
TEAM = torch.tensor([-1.0, 1.0])


def test_own_and_team_by_hand():
    assert torch.equal(own(AGENTS, TEAM).nan_to_num(9.0), AGENTS.nan_to_num(9.0))
    assert team(AGENTS, TEAM).tolist() == [[-1.0] * 3, [1.0] * 3]


def test_mixed_lies_between_and_keeps_a_missing_reward_missing():
    found = mixed(AGENTS, TEAM, team_share=0.25)
    assert found[0].tolist() == [0.5, -0.25, -1.0]
    assert found[1, [0, 2]].tolist() == [0.625, 1.75]
    assert found[1, 1].isnan()


@pytest.mark.parametrize(("share", "rule"), [(0.0, own), (1.0, team)])
def test_the_ends_of_mixed_are_the_pure_rules_also_where_the_other_is_missing(share, rule):
    missing_team = torch.tensor([float("nan"), 1.0]) if rule is own else TEAM
    expected = rule(AGENTS, missing_team)
    found = mixed(AGENTS, missing_team, team_share=share)
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("rule", [own, team, partial(mixed, team_share=0.5)])
def test_rules_work_per_turn(rule):
    turns = torch.arange(12.0).reshape(2, 3, 2)
    found = rule(turns, TEAM)
    assert found.shape == (2, 3, 2)
    for turn in range(2):
        assert torch.equal(found[..., turn], rule(turns[..., turn], TEAM))


@pytest.mark.parametrize("rule", [team, partial(mixed, team_share=0.5)])
def test_rules_take_a_team_reward_of_each_agent(rule):
    turns = torch.arange(12.0).reshape(2, 3, 2)
    each = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for agent in range(3):
        alone = rule(turns[:, agent : agent + 1], each[:, agent])
        assert torch.equal(rule(turns, each)[:, agent], alone[:, 0])


def majority(votes):
    return max(sorted(set(votes)), key=votes.count) if votes else None


def test_difference_rewards_equal_a_vote_without_the_agent():
    votes = [[1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1]]
    with_all = torch.tensor([float(majority(row) == 1) for row in votes])
    without = torch.tensor([[float(majority(row[:a] + row[a + 1 :]) == 1) for a in range(3)] for row in votes])
    found = difference_rewards(with_all, without)
    for row, vote in enumerate(votes):
        for agent in range(3):
            others = vote[:agent] + vote[agent + 1 :]
            assert found[row, agent] == float(majority(vote) == 1) - float(majority(others) == 1)


def test_an_agent_whose_vote_never_matters_gets_no_signal_at_all():
    # The first two always agree, so they outvote the third whatever it says; without one of them it can matter.
    votes = torch.randint(0, 2, (40, 2), generator=torch.Generator().manual_seed(0))
    first, third = votes.unbind(1)
    reward = first.double()
    without = torch.stack([torch.where(first == third, reward, 0.0)] * 2 + [reward], dim=1)
    credited = team(torch.zeros(40, 3), difference_rewards(reward, without))
    assert torch.equal(credited[:, 2], torch.zeros(40))
    group = torch.arange(40) // 8
    for scale in ("none", "std"):
        advantages = per_agent(credited, group, partial(group_advantages, scale=scale))
        assert torch.equal(advantages[:, 2], torch.zeros(40, dtype=advantages.dtype))
        assert (advantages[:, 0] != 0).any()


def test_dropout_rewards_equal_the_loop_and_recover_an_agents_part():
    generator = torch.Generator().manual_seed(1)
    heard = torch.rand(60, 3, generator=generator) < 0.5
    worth = torch.tensor([2.0, 0.0, -1.0])
    rewards = (heard * worth).sum(1) + 0.01 * torch.randn(60, generator=generator)
    rewards[5] = float("nan")
    group = torch.arange(60) // 30
    found = dropout_rewards(rewards, heard, group)
    for row in range(60):
        for agent in range(3):
            silent = [
                r
                for r, g, h in zip(rewards.tolist(), group.tolist(), heard[:, agent].tolist(), strict=True)
                if g == group[row] and not h and r == r
            ]
            if not heard[row, agent] or row == 5:
                assert found[row, agent].isnan()
            else:
                assert found[row, agent].item() == pytest.approx(
                    rewards[row].item() - sum(silent) / len(silent), abs=1e-5
                )
    means = found.nanmean(0)
    assert means.tolist() == pytest.approx(worth.tolist(), abs=0.8)
    assert means[0] > means[1] > means[2]


def test_an_agent_that_is_always_heard_has_no_estimate():
    found = dropout_rewards(torch.tensor([1.0, 0.0]), torch.tensor([[True, False], [True, True]]), torch.zeros(2))
    assert found[:, 0].isnan().all()
    assert found[1, 1] == -1.0


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"`team_share` is 1.5"):
        mixed(AGENTS, TEAM, team_share=1.5)
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3,\)"):
        team(AGENTS, torch.zeros(3))
