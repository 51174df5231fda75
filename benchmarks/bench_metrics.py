"""Speed of metrics on one thread against plain Python and numpy, and what their states weigh.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE pytest benchmarks/bench_metrics.py

The baselines are fixed here:

- ``temporal_iou``, 1,000,000 pairs: a Python loop over tuples, no numpy;
- ``box_iou_sequence``, 1,000 sequences of 500 frames: numpy in float64, sequence by sequence, as the GOT-10k toolkit
  goes about it (its boxes are left, top, width, height).

"checked" adds what the class's ``validate_args`` does to the true values, "unchecked" is the function alone. All calls
of a figure take turns in one process; a figure is the ratio of the least CPU seconds of each, since other programs on
the machine only ever add to them. A target of 0 (of inf for updates) is none. ``BENCH_ROUNDS`` changes the number of
turns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from m1lite.metrics import TemporalIoU, TrackingOverlap
from m1lite.metrics._spans import check_spans
from m1lite.metrics._tracks import check_targets
from m1lite.metrics.functional import box_iou_sequence, temporal_iou

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "10"))
NUM_PAIRS = 1_000_000
NUM_SEQUENCES, NUM_FRAMES = 1_000, 500
NUM_SAMPLES = 1_000
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.fixture(autouse=True)
def one_thread():
    """Keep torch to one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_spans(number: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Draw spans in seconds."""
    draw = torch.Generator().manual_seed(seed)
    return (100 * torch.rand(number, 2, generator=draw, dtype=torch.float64)).sort(-1).values.to(dtype)


def draw_tracks(dtype: torch.dtype, seed: int) -> Tensor:
    """Draw boxes in pixels, most of which overlap with those of another seed."""
    draw = torch.Generator().manual_seed(seed)
    boxes = 100 * torch.rand(NUM_SEQUENCES, NUM_FRAMES, 4, generator=draw, dtype=torch.float64)
    boxes[..., 2:] += boxes[..., :2]
    return boxes.to(dtype)


def loop_over_tuples(spans: list[tuple[float, float]], trues: list[tuple[float, float]]) -> list[float]:
    """Temporal IoU in plain Python."""
    ious = []
    for (start, end), (true_start, true_end) in zip(spans, trues, strict=True):
        overlap = max(0.0, min(end, true_end) - max(start, true_start))
        ious.append(overlap / (max(end, true_end) - min(start, true_start)))
    return ious


def numpy_rectangles(boxes: np.ndarray, trues: np.ndarray) -> np.ndarray:
    """Box IoU of one sequence ``(T, 4)``: left, top, width, height, with the toolkit's epsilon and clip."""
    left, top = np.maximum(boxes[:, 0], trues[:, 0]), np.maximum(boxes[:, 1], trues[:, 1])
    right = np.minimum(boxes[:, 0] + boxes[:, 2], trues[:, 0] + trues[:, 2])
    bottom = np.minimum(boxes[:, 1] + boxes[:, 3], trues[:, 1] + trues[:, 3])
    overlap = np.stack([left, top, np.maximum(right - left, 0), np.maximum(bottom - top, 0)]).T
    inter = np.prod(overlap[:, 2:], axis=-1)
    union = np.prod(boxes[:, 2:], axis=-1) + np.prod(trues[:, 2:], axis=-1) - inter
    return np.clip(inter / (union + np.finfo(float).eps), 0.0, 1.0)


def least(calls: Mapping[str, Callable[[], Any]], *, rounds: int = ROUNDS, repeats: int = 1) -> dict[str, float]:
    """Run all calls in turn and return each one's least CPU seconds."""
    seconds = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.process_time()
            for _ in range(repeats):
                call()
            seconds[name] = min(seconds[name], (time.process_time() - started) / repeats)
    return seconds


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.timeout(0)
def test_temporal_iou(benchmark, figure, dtype):
    """A million pairs at once against one after the other."""
    spans, trues = (draw_spans(NUM_PAIRS, DTYPES[dtype], seed) for seed in (0, 1))
    listed = [[tuple(pair) for pair in side.tolist()] for side in (spans, trues)]

    def checked() -> Tensor:
        check_spans(trues, padded=False)
        return temporal_iou(spans, trues)

    expected = torch.tensor(loop_over_tuples(*listed), dtype=torch.float64)
    torch.testing.assert_close(temporal_iou(spans, trues).double(), expected, rtol=1e-5, atol=1e-5)
    calls = {
        "loop": lambda: loop_over_tuples(*listed),
        "unchecked": lambda: temporal_iou(spans, trues),
        "checked": checked,
    }
    seconds = benchmark.pedantic(least, args=(calls,), rounds=1, iterations=1)
    benchmark.extra_info |= seconds
    target = 100 if dtype == "float32" else 0
    figure(f"temporal_iou_unchecked_{dtype}", seconds["loop"] / seconds["unchecked"], "ratio", ">=", target)
    figure(f"temporal_iou_checked_{dtype}", seconds["loop"] / seconds["checked"], "ratio", ">=", 0)


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.timeout(0)
def test_box_iou_sequence(benchmark, figure, dtype):
    """All sequences at once against one after the other."""
    boxes, trues = (draw_tracks(DTYPES[dtype], seed) for seed in (0, 1))
    counted = torch.ones(NUM_SEQUENCES, NUM_FRAMES, dtype=torch.bool)
    sides = []
    for corners in (boxes, trues):
        rectangles = corners.double().numpy().copy()
        rectangles[..., 2:] -= rectangles[..., :2]
        sides.append(rectangles)

    def by_sequence() -> list[np.ndarray]:
        return [numpy_rectangles(*pair) for pair in zip(*sides, strict=True)]

    def checked() -> Tensor:
        check_targets(trues, counted)
        return box_iou_sequence(boxes, trues)

    expected = torch.from_numpy(np.stack(by_sequence()))
    torch.testing.assert_close(box_iou_sequence(boxes, trues).double(), expected, rtol=1e-4, atol=1e-5)
    calls = {"numpy": by_sequence, "unchecked": lambda: box_iou_sequence(boxes, trues), "checked": checked}
    seconds = benchmark.pedantic(least, args=(calls,), rounds=1, iterations=1)
    benchmark.extra_info |= seconds
    target = 10 if dtype == "float32" else 0
    figure(f"box_iou_sequence_unchecked_{dtype}", seconds["numpy"] / seconds["unchecked"], "ratio", ">=", target)
    figure(f"box_iou_sequence_checked_{dtype}", seconds["numpy"] / seconds["checked"], "ratio", ">=", 0)


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.timeout(0)
def test_update_of_temporal_iou(benchmark, figure, dtype):
    """What a class adds to its function, at 1,000 spans."""
    spans, trues = (draw_spans(NUM_SAMPLES, DTYPES[dtype], seed) for seed in (0, 1))
    unchecked, checked = TemporalIoU(validate_args=False), TemporalIoU()
    calls = {
        "function": lambda: temporal_iou(spans, trues),
        "unchecked": lambda: unchecked.update(spans, trues),
        "checked": lambda: checked.update(spans, trues),
    }
    seconds = benchmark.pedantic(
        least, args=(calls,), kwargs={"rounds": 20 * ROUNDS, "repeats": 50}, rounds=1, iterations=1
    )
    benchmark.extra_info |= seconds
    note_update(figure, f"update_temporal_iou_{{}}_{dtype}", seconds)


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.timeout(0)
def test_update_of_tracking_overlap(benchmark, figure, dtype):
    """What a class adds to its function, at 1,000 sequences of 500 frames."""
    boxes, trues = (draw_tracks(DTYPES[dtype], seed) for seed in (0, 1))
    unchecked, checked = TrackingOverlap(validate_args=False), TrackingOverlap()
    calls = {
        "function": lambda: box_iou_sequence(boxes, trues),
        "unchecked": lambda: unchecked.update(boxes, trues),
        "checked": lambda: checked.update(boxes, trues),
    }
    seconds = benchmark.pedantic(least, args=(calls,), kwargs={"rounds": 2 * ROUNDS}, rounds=1, iterations=1)
    benchmark.extra_info |= seconds
    note_update(figure, f"update_tracking_overlap_{{}}_{dtype}", seconds)


def note_update(figure: Callable[..., None], name: str, seconds: Mapping[str, float]) -> None:
    """Note how many times its function's time an update takes."""
    figure(name.format("unchecked"), seconds["unchecked"] / seconds["function"], "ratio", "<=", 2.5)
    figure(name.format("checked"), seconds["checked"] / seconds["function"], "ratio", "<=", float("inf"))


@pytest.mark.parametrize("metric", [TemporalIoU, TrackingOverlap], ids=["temporal_iou", "tracking_overlap"])
def test_states_do_not_grow(benchmark, figure, request, metric):
    """Bytes that the states weigh more after 100 updates of 1,000 samples than after one sample."""

    def grow() -> int:
        filled = metric()
        shape = (NUM_SAMPLES, 2) if metric is TemporalIoU else (NUM_SAMPLES, 5, 4)
        samples = torch.rand(*shape).sort(-1).values
        filled.update(samples[:1], samples[:1])
        before = sum(state.nbytes for state in filled.metric_state.values())
        for _ in range(100):
            filled.update(samples, samples)
        return sum(state.nbytes for state in filled.metric_state.values()) - before

    grown = benchmark.pedantic(grow, rounds=1, iterations=1)
    figure(f"state_growth_{request.node.callspec.id}", grown, "bytes", "<=", 0)
    assert grown == 0
