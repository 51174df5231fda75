"""The metric of orders: means of the scores, missing answers, and errors."""

import pytest
import torch

from m1lite.metrics import OrderAccuracy
from m1lite.metrics.functional import order_score


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_is_the_mean_over_answers_given_and_missing():
    metric = OrderAccuracy()
    metric.update([[0, 1, 2], None, [2, 1, 0]], [[0, 1, 2], [0, 1], [0, 1, 2]])
    metric.update(torch.tensor([[1, 0]]), torch.tensor([[0, 1]]))
    expected = {"exact": 0.25, "step_accuracy": (1 + 0 + 1 / 3 + 0) / 4, "kendall_tau": (1 + 0 - 1 - 1) / 4}
    assert values(metric) == pytest.approx({**expected, "answered": 0.75})


def test_lists_and_padded_tensors_are_the_same():
    lists, tensors = OrderAccuracy(), OrderAccuracy()
    lists.update([[1, 0], [], torch.tensor([2, 0, 1], dtype=torch.int32)], [[0, 1], [0], [0, 1, 2]])
    told, true = torch.tensor([[1, 0, -1], [-1] * 3, [2, 0, 1]]), torch.tensor([[0, 1, -1], [0, -1, -1], [0, 1, 2]])
    tensors.update(told, true)
    assert values(lists) == values(tensors)
    assert values(lists)["kendall_tau"] == pytest.approx(order_score(told, true).kendall_tau.mean().item())


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"`target\[1\]` is \[2, 0, 2, -1\]; a true order holds each item once"):
        OrderAccuracy().update([None, None], torch.tensor([[0, 1, -1, -1], [2, 0, 2, -1]]))
    with pytest.raises(ValueError, match="`prediction` holds 1 orders for 2 targets"):
        OrderAccuracy().update([None], [[0], [1]])
    with pytest.raises(TypeError, match=r"Order 1 is \[0.5\]; items are integers"):
        OrderAccuracy().update([None, [0.5]], [[0], [0]])
