"""Credit rules by hand, on rewards per agent and per turn."""

from functools import partial

import pytest
import torch

from m1lite.rl.credit import mixed, own, team

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


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"`team_share` is 1.5"):
        mixed(AGENTS, TEAM, team_share=1.5)
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3,\)"):
        team(AGENTS, torch.zeros(3))
