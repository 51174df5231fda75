"""MeanRelativeAccuracy: the mean of its scores, no answers, and errors."""

import pytest
import torch

from m1lite.metrics import MeanRelativeAccuracy
from m1lite.metrics.functional import mean_relative_accuracy


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_by_hand_over_two_batches():
    metric = MeanRelativeAccuracy()
    metric.update([10.0, None], torch.tensor([10.0, 4.0]))
    metric.update(torch.tensor([5.0, float("nan"), 6.0]), torch.tensor([5.0, 5.0, 10.0]))
    assert values(metric) == pytest.approx({"mra": (1 + 0 + 1 + 0 + 0.3) / 5, "answered": 0.6})


def test_compute_is_the_mean_of_the_scores():
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(50, generator=generator) * 10
    prediction = target * (0.5 + torch.rand(50, generator=generator))
    for strict in (False, True):
        metric = MeanRelativeAccuracy(strict=strict)
        metric.update(prediction, target)
        scores = metric.score(prediction, target)
        assert values(metric)["mra"] == pytest.approx(scores.double().mean().item())
        assert scores.tolist() == mean_relative_accuracy(prediction, target, strict=strict).tolist()


def test_lists_are_not_rounded_to_half_precision():
    metric = MeanRelativeAccuracy()
    metric.update([8.7], torch.tensor([10.0], dtype=torch.bfloat16))
    assert values(metric)["mra"] == pytest.approx(0.8)


def test_without_samples_the_values_are_nan():
    with pytest.warns(UserWarning, match="`MeanRelativeAccuracy` saw no samples"):
        assert all(value != value for value in values(MeanRelativeAccuracy()).values())


def test_errors_name_the_value():
    metric = MeanRelativeAccuracy()
    with pytest.raises(ValueError, match=r"`target\[1\]` is inf; a true number is finite"):
        metric.update([1.0, 2.0], torch.tensor([1.0, float("inf")]))
    with pytest.raises(ValueError, match=r"`target` has shape \(1, 2\)"):
        metric.update(torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"`prediction` has shape \(3,\) and `target` \(2,\)"):
        metric.update(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="`prediction` holds 1 answers for 2 targets"):
        metric.update([None], torch.ones(2))
    unchecked = MeanRelativeAccuracy(validate_args=False)
    unchecked.update([1.0], torch.tensor([float("nan")]))
    assert values(unchecked)["mra"] == 0.0
