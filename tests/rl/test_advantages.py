"""Advantages against plain Python lists, by hand, and by invariances."""

import itertools
import math
import statistics
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.rl.advantages import (
    gdpo_advantages,
    group_advantages,
    leave_one_out,
    pass_at_k_advantages,
    per_agent,
    reinforce_pp,
    reward_stats,
    reward_tensor,
)
from m1lite.rl.difficulty import dgrpo_advantages

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
    for advantage in (partial(group_advantages, scale="std"), leave_one_out, reinforce_pp):
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


@pytest.mark.parametrize("baseline", [False, True])
@given(rows=ROWS)
@settings(deadline=None, max_examples=60)
def test_reinforce_pp_equals_the_list_reference(baseline, rows):
    rewards, groups = [r for r, _ in rows], [g for _, g in rows]
    found = reinforce_pp(reward_tensor(rewards), torch.tensor(groups), baseline=baseline).tolist()
    based = []
    for reward, group in rows:
        members = [r for r, g in rows if g == group and r is not None]
        based.append(None if reward is None else reward - (statistics.mean(members) if baseline else 0.0))
    known = [value for value in based if value is not None]
    for (reward, group), value, result in zip(rows, based, found, strict=True):
        peers = [r for r, g in rows if r is not None and (g == group or not baseline)]
        if reward is None or len(set(peers)) < 2:
            assert result == 0
        else:
            expected = (value - statistics.mean(known)) / (statistics.stdev(known) + 1e-4)
            assert result == pytest.approx(expected, abs=1e-5)


TERMS = st.lists(st.tuples(REWARDS, REWARDS, st.integers(0, 3)), min_size=1, max_size=16)


@given(rows=TERMS, weight=st.sampled_from([0.5, 1.0, 3.0]))
@settings(deadline=None, max_examples=60)
def test_gdpo_equals_the_list_reference(rows, weight):
    terms = torch.stack([reward_tensor([row[0] for row in rows]), reward_tensor([row[1] for row in rows])], dim=1)
    groups = [row[2] for row in rows]
    found = gdpo_advantages(terms.double(), torch.tensor(groups), weights=[1.0, weight]).tolist()
    scores = [reference([row[term] for row in rows], groups, "std") for term in (0, 1)]
    sums = [a + weight * b for a, b in zip(*scores, strict=True)]
    known = [total for total, row in zip(sums, rows, strict=True) if row[0] is not None or row[1] is not None]
    spread = statistics.stdev(known) if len(known) > 1 else 0.0
    for total, row, result in zip(sums, rows, found, strict=True):
        if row[0] is None and row[1] is None:
            assert result == 0
        else:
            assert result == pytest.approx((total - statistics.mean(known)) / (spread + 1e-4), abs=1e-4)


def test_gdpo_keeps_apart_what_the_sum_confuses():
    # Sums 1, 1, 0 and 0: adding up first cannot tell a right answer from a good format.
    terms = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    group = torch.zeros(4, dtype=torch.long)
    weighed = gdpo_advantages(terms, group, weights=[3.0, 1.0])
    assert weighed[0] > weighed[1] > weighed[2] == weighed[3]
    with pytest.raises(ValueError, match="`weights` has 1 numbers for 2 terms"):
        gdpo_advantages(terms, group, weights=[1.0])
    with pytest.raises(ValueError, match=r"`rewards` has shape \(4,\); it must be \(N, J\)"):
        gdpo_advantages(terms[:, 0], group)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@given(passed=st.lists(st.one_of(st.none(), st.booleans()), min_size=1, max_size=7))
@settings(deadline=None, max_examples=25)
def test_pass_at_k_is_the_mean_over_all_tries(k, passed):
    rewards = reward_tensor([None if right is None else float(right) for right in passed])
    found = pass_at_k_advantages(rewards, torch.zeros(len(passed), dtype=torch.long), k=k).tolist()
    known = [place for place, right in enumerate(passed) if right is not None]
    tries = list(itertools.combinations(known, k))
    scores = [float(any(passed[place] for place in members)) for members in tries]
    spread = statistics.pstdev(scores) if scores else 0.0
    for place, result in enumerate(found):
        mine = [score for members, score in zip(tries, scores, strict=True) if place in members]
        expected = (statistics.mean(mine) - statistics.mean(scores)) / spread if mine and spread > 0 else 0.0
        assert result == pytest.approx(expected, abs=1e-6)


def test_pass_at_k_takes_every_group_by_itself_and_names_a_wrong_k():
    rewards, group = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0]), torch.tensor([4, 4, 4, 2, 2])
    found = pass_at_k_advantages(rewards, group, k=2)
    alone = pass_at_k_advantages(rewards[:3], group[:3], k=2)
    assert torch.equal(found, torch.cat([alone, torch.zeros(2)]))
    assert pass_at_k_advantages(rewards, group, k=2, threshold=2.0).tolist() == [0.0] * 5
    with pytest.raises(ValueError, match="`k` is 0; it must be at least 1"):
        pass_at_k_advantages(rewards, group, k=0)


EVERY = [
    *(partial(group_advantages, scale=scale) for scale in ("none", "std", "batch")),
    leave_one_out,
    partial(reinforce_pp, baseline=True),
    dgrpo_advantages,
    partial(pass_at_k_advantages, k=2),
    lambda rewards, group: gdpo_advantages(rewards[:, None], group),
]


@pytest.mark.parametrize("advantage", EVERY)
def test_groups_that_teach_nothing_get_exactly_zero(advantage):
    # A group of one, an all-equal group, an all-missing group, and one that is known once.
    rewards = torch.tensor([0.3, 0.1, 0.1, 0.1, NAN, NAN, 0.7, NAN, 1.0, 0.0, 0.0])
    group = torch.tensor([0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4])
    found = advantage(rewards, group)
    assert found.dtype == torch.float32
    assert torch.equal(found[:8], torch.zeros(8))
    assert found[8] > 0 > found[9]
    assert torch.equal(advantage(rewards[:8], group[:8]), torch.zeros(8))


@pytest.mark.parametrize("advantage", EVERY)
@given(rows=ROWS, data=st.data())
@settings(deadline=None, max_examples=15)
def test_every_advantage_follows_a_permutation(advantage, rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    rewards, group = reward_tensor([r for r, _ in rows]), torch.tensor([g for _, g in rows])
    torch.testing.assert_close(
        advantage(rewards[order], group[order]), advantage(rewards, group)[order], atol=1e-5, rtol=0
    )


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
