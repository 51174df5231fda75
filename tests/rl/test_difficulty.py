"""DGRPO's parts by hand, and that its weight works where it is applied here and cancels where it is printed."""

import pytest
import torch

from m1lite.rl.advantages import group_advantages
from m1lite.rl.difficulty import dgrpo_advantages, difficulty_weight, scaled_accuracy

NAN = float("nan")


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


def test_without_the_std_the_printed_form_works_too():
    rewards, group = torch.tensor([1.0, 2.0, 1.5, 2.5]), torch.zeros(4, dtype=torch.long)
    printed = group_advantages(rewards * difficulty_weight(rewards, group), group)
    torch.testing.assert_close(dgrpo_advantages(rewards, group, scale="none"), printed)


def test_the_stretch_of_scale_cancels_in_a_group_and_its_clamp_does_not():
    group = torch.zeros(4, dtype=torch.long)
    inside = torch.tensor([0.2, 0.3, 0.5, 0.6])
    stretched = scaled_accuracy(inside, low=0.1, high=0.7)
    assert stretched.tolist() == pytest.approx([(value - 0.1) / 0.6 for value in inside.tolist()])
    plain = group_advantages(inside, group, scale="std", eps=0.0)
    torch.testing.assert_close(group_advantages(stretched, group, scale="std", eps=0.0), plain)
    clamped = scaled_accuracy(torch.tensor([0.05, 0.3, 0.9, 0.8]), low=0.1, high=0.7)
    assert clamped.tolist() == pytest.approx([0.0, 1 / 3, 1.0, 1.0])
    assert scaled_accuracy(torch.tensor([NAN])).isnan().all()
    with pytest.raises(ValueError, match=r"`low` is 0\.7 and `high` 0\.7; they must be low < high"):
        scaled_accuracy(inside, low=0.7, high=0.7)
