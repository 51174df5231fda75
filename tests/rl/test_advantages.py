"""Advantages against plain Python lists, by hand, and by invariances."""

import math
import statistics
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.rl.advantages import (
    group_advantages,
    leave_one_out,
    per_agent,
    reward_stats,
    reward_tensor,
)
from m1lite.rl.difficulty import dgrpo_advantages, difficulty_weight

NAN = float("nan")
REWARDS = st.one_of(st.none(), st.integers(-8, 8).map(lambda n: n / 4))
ROWS = st.lists(st.tuples(REWARDS, st.integers(0, 4)), min_size=1, max_size=24)


def reference(rewards, groups, scale, eps=1e-4):
    known = [r for r in rewards if r is not None]
    result = []
    for reward, group in zip(rewards, groups, strict=True):
        members = [r for r, g in zip(rewards, groups, strict=True) if g == group and r is not None]
        if reward is None or len(set(members)) < 2:
            result.append(0.0)
            continue
        spread = {
            "none": 1.0,
            "std": statistics.stdev(members) + eps,
            "batch": statistics.stdev(known) + eps,
        }[scale]
        result.append((reward - statistics.mean(members)) / spread)
    return result


@pytest.mark.parametrize("scale", ["none", "std", "batch"])
@given(rows=ROWS)
@settings(deadline=None, max_examples=60)
def test_group_advantages_equal_the_list_reference(scale, rows):
    rewards, groups = [r for r, _ in rows], [g for _, g in rows]
    found = group_advantages(reward_tensor(rewards), torch.tensor(groups), scale=scale)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(reference(rewards, groups, scale), abs=1e-6)


def test_group_advantages_by_hand():
    rewards = torch.tensor([1.0, 0.0, 3.0, NAN, 5.0])
    group = torch.tensor([7, 7, -2, -2, -2])
    assert group_advantages(rewards, group).tolist() == [0.5, -0.5, -1.0, 0.0, 1.0]
    scaled = group_advantages(rewards, group, scale="std", eps=0.0)
    assert scaled.tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5), -math.sqrt(0.5), 0, math.sqrt(0.5)])


@pytest.mark.parametrize("value", [0.1, 0.3, 1e6 + 0.1, -0.7])
@pytest.mark.parametrize("advantage", [partial(group_advantages, scale="std"), group_advantages, leave_one_out])
def test_equal_rewards_give_exactly_zero(value, advantage):
    found = advantage(torch.full((7,), value), torch.tensor([0, 0, 0, 0, 0, 0, 1]))
    assert torch.equal(found, torch.zeros(7))


@given(rows=ROWS, shift=st.integers(-5, 5))
@settings(deadline=None, max_examples=40)
def test_a_shift_of_all_rewards_changes_nothing(rows, shift):
    rewards, group = reward_tensor([r for r, _ in rows]), torch.tensor([g for _, g in rows])
    for advantage in (partial(group_advantages, scale="std"), leave_one_out):
        torch.testing.assert_close(advantage(rewards + shift, group), advantage(rewards, group), atol=1e-5, rtol=0)


@given(rows=ROWS, data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_permutation_of_the_rows_permutes_the_result(rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    rewards, group = reward_tensor([r for r, _ in rows]), torch.tensor([g for _, g in rows])
    for advantage in (partial(group_advantages, scale="std"), dgrpo_advantages, leave_one_out):
        whole = advantage(rewards, group)
        torch.testing.assert_close(advantage(rewards[order], group[order]), whole[order], atol=1e-6, rtol=0)


@given(rows=ROWS, factor=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_unscaled_advantages_are_linear_in_the_rewards(rows, factor):
    rewards, group = reward_tensor([r for r, _ in rows]), torch.tensor([g for _, g in rows])
    torch.testing.assert_close(
        group_advantages(factor * rewards, group), factor * group_advantages(rewards, group), atol=1e-5, rtol=0
    )


@given(rows=ROWS)
@settings(deadline=None, max_examples=40)
def test_leave_one_out_equals_the_mean_of_the_others(rows):
    rewards, groups = [r for r, _ in rows], [g for _, g in rows]
    expected = []
    for index, (reward, group) in enumerate(rows):
        others = [r for i, (r, g) in enumerate(rows) if i != index and g == group and r is not None]
        expected.append(0.0 if reward is None or not others else reward - statistics.mean(others))
    assert leave_one_out(reward_tensor(rewards), torch.tensor(groups)).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_missing_reward_leaves_its_group():
    with_missing = group_advantages(reward_tensor([1.0, None, 0.0]), torch.zeros(3, dtype=torch.long), scale="std")
    without = group_advantages(torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.long), scale="std")
    assert with_missing.tolist() == [without[0].item(), 0.0, without[1].item()]


def test_difficulty_weight_is_one_below_one_and_half_above_two():
    rewards = torch.tensor([0.0, 1.0, 1.0, 2.0, 2.5, 3.0, NAN])
    weights = difficulty_weight(rewards, torch.tensor([0, 0, 1, 1, 2, 2, 3]))
    assert weights.tolist() == [1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 1.0]


def test_the_difficulty_weight_cancels_in_the_reward_and_works_on_the_advantage():
    rewards = torch.tensor([1.0, 2.0, 1.5, 2.5])
    group = torch.zeros(4, dtype=torch.long)
    weight = difficulty_weight(rewards, group)
    assert weight[0] == pytest.approx(0.625)
    as_printed = group_advantages(rewards * weight, group, scale="std", eps=0.0)
    plain = group_advantages(rewards, group, scale="std", eps=0.0)
    torch.testing.assert_close(as_printed, plain)
    torch.testing.assert_close(dgrpo_advantages(rewards, group, eps=0.0), plain * 0.625)


def test_every_agent_is_normalised_by_itself():
    rewards = torch.tensor([[1.0, 10.0], [0.0, 30.0], [NAN, 20.0]])
    group = torch.tensor([0, 0, 0])
    found = per_agent(rewards, group, partial(group_advantages, scale="none"))
    assert found.tolist() == [[0.5, -10.0], [-0.5, 10.0], [0.0, 0.0]]


def test_reward_stats_by_hand():
    found = reward_stats(torch.tensor([1.0, 0.0, 2.0, 2.0, NAN]), torch.tensor([0, 0, 1, 1, 1]))
    assert found["reward"] == 1.25
    assert found["reward_std"] == pytest.approx(statistics.stdev([1.0, 0.0, 2.0, 2.0]))
    assert found["frac_reward_zero_std"] == 0.5
    assert math.isnan(reward_stats(torch.tensor([NAN]), torch.tensor([0]))["reward"])


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        group_advantages(torch.zeros(2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"`rewards\[1\]` is -inf"):
        leave_one_out(torch.tensor([0.0, float("-inf")]), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="'global'; it must be 'none', 'std' or 'batch'"):
        group_advantages(torch.zeros(2), torch.zeros(2, dtype=torch.long), scale="global")
