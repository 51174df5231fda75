"""Rewards per turn against plain Python lists."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.rl.advantages import group_advantages
from m1lite.rl.turns import discounted_returns, gated_bilevel, turn_advantages

NAN = float("nan")
ROWS = st.lists(st.one_of(st.none(), st.integers(-8, 8).map(lambda n: n / 4)), max_size=6)


@given(row=ROWS, discount=st.sampled_from([0.0, 0.5, 0.95, 1.0]))
@settings(deadline=None, max_examples=60)
def test_returns_equal_the_list_reference(row, discount):
    expected = []
    for turn in range(len(row)):
        later = [(place, r) for place, r in enumerate(row) if place >= turn and r is not None]
        # With discount 0 a later reward adds nothing, but the turn is still known to be worth that nothing.
        expected.append(sum(discount ** (place - turn) * r for place, r in later) if later else None)
    found = discounted_returns(torch.tensor([NAN if r is None else r for r in row]), discount=discount).tolist()
    assert [None if value != value else value for value in found] == pytest.approx(expected, abs=1e-5)


def test_bilevel_rewards_add_up_to_the_formula():
    turns = torch.tensor([[0.3, 0.2, 0.1, NAN], [0.3, 0.2, 0.1, 0.1], [0.5, NAN, NAN, NAN], [0.1, 0.1, NAN, NAN]])
    answers = torch.tensor([1.0, 0.0, 0.4, NAN])
    found = gated_bilevel(turns, answers)
    for row, answer in enumerate(answers.tolist()[:3]):
        known = [r for r in turns[row].tolist() if r == r]
        total = (answer > 0) * sum(known[:-1]) + answer + known[-1]
        assert found[row].nansum().item() == pytest.approx(total)
        assert found[row].isnan().tolist() == turns[row].isnan().tolist()
    assert found[3].isnan().all()


def test_turn_advantages_compare_the_same_turn_or_all_turns():
    rewards = torch.tensor([[1.0, 5.0], [3.0, NAN], [2.0, 1.0], [0.0, 2.0]])
    group = torch.tensor([0, 0, 1, 1])
    by_turn = turn_advantages(rewards, group, advantage=group_advantages)
    assert by_turn.tolist() == [[-1.0, 0.0], [1.0, 0.0], [1.0, -0.5], [-1.0, 0.5]]
    together = turn_advantages(rewards, group, advantage=partial(group_advantages), by_turn=False)
    assert together.tolist() == [[-2.0, 2.0], [0.0, 0.0], [0.75, -0.25], [-1.25, 0.75]]
    assert turn_advantages(rewards[:, :0], group, advantage=group_advantages).shape == (4, 0)


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"`discount` is 1\.1; it must be in \[0, 1\]"):
        discounted_returns(torch.zeros(2), discount=1.1)
    with pytest.raises(ValueError, match=r"`answer_rewards` has shape \(3,\); it must be \(2,\)"):
        gated_bilevel(torch.zeros(2, 4), torch.zeros(3))
    with pytest.raises(ValueError, match=r"shapes \(2, 4\) and \(3,\)"):
        turn_advantages(torch.zeros(2, 4), torch.zeros(3), advantage=group_advantages)
