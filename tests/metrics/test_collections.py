"""Metrics of one class with other arguments stay apart in a collection, even if the first batch gives equal states."""

import pytest
import torch
from torchmetrics import MetricCollection

from m1lite.metrics import TemporalIoU, TrackingOverlap


def test_thresholds_stay_apart_after_a_batch_without_hits():
    metrics = MetricCollection({"low": TemporalIoU(thresholds=[0.3]), "high": TemporalIoU(thresholds=[0.5])})
    target = torch.tensor([[0.0, 10.0]])
    metrics.update([None], target)
    metrics.update(torch.tensor([[0.0, 4.0]]), target)
    values = metrics.compute()
    assert values["low_recall@0.3"] == 0.5
    assert values["high_recall@0.5"] == 0.0


def test_averages_stay_apart_after_a_batch_that_they_agree_on():
    metrics = MetricCollection({name: TrackingOverlap(average=name) for name in ("frame", "sequence")})
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    short, long = box.repeat(3, 1), box.repeat(9, 1)
    metrics.update([short], [short])
    metrics.update([short + 9.0, long], [short, long])
    values = metrics.compute()
    assert values["frame_ao"].item() == pytest.approx(10 / 12)  # the first frame of each is given, not predicted
    assert values["sequence_ao"].item() == pytest.approx(2 / 3)
