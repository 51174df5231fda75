"""Feeds every metric class tensors without values that say they lie on a GPU; mixing devices fails as it does there."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchmetrics import Metric

from m1lite.metrics._base import VideoMetric
from tests.metrics.citizens import CITIZENS, Batch, Citizen


def converted_to_gpu(batch: Batch) -> Batch:
    """Move every tensor, also those in lists."""

    def moved(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to("cuda")
        return [moved(entry) for entry in value] if isinstance(value, list) else value

    return {name: moved(value) for name, value in batch.items()}


def devices(citizen: Citizen) -> str:
    """Return where the values of a metric on the GPU lie."""
    metric, batch = citizen.make(), citizen.draw(12, torch.Generator().manual_seed(0))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for part in metric.modules():
            part.validate_args = False  # reads values
            for name in getattr(part, "_defaults", {}):
                setattr(part, name, mode.from_tensor(getattr(part, name)).to("cuda"))
            if isinstance(part, Metric):
                part._device = torch.device("cuda")
        metric.update(**converted_to_gpu(batch))
        return "+".join(sorted({value.device.type for value in metric.compute().values()}))


if __name__ == "__main__":
    VideoMetric.ratio = lambda self, total, count: total / count  # type: ignore[method-assign]  # reads values too
    for each in CITIZENS:
        if each.metric != "GroupedMetric":
            print(f"{each}:{devices(each)}")
