"""Several spans of time against several: what both cover, merged. One span against one is in grounding.py.

Every function takes sets of spans padded with rows of NaN, so that samples with different numbers of spans fit one
tensor.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float


class SpanScores(NamedTuple):
    """One row per sample, each in [0, 1]."""

    precision: Tensor
    """Share of what was chosen that lies in the truth."""
    recall: Tensor
    """Share of the truth that was chosen."""
    f1: Tensor
    """Harmonic mean of the two; 0 where both are 0."""


def temporal_set_iou(prediction: Tensor, target: Tensor, *, empty: float = 1.0) -> Tensor:
    r"""Intersection over union of the time that two sets of spans cover.

    .. math:: |\cup \hat S \cap \cup S| \,/\, |\cup \hat S \cup \cup S|

    Overlapping and touching spans of one set are merged first, so that nothing counts twice.

    Args:
        prediction: ``(..., P, 2)``, starts and ends in one unit (seconds), in any order; a row with NaN is padding and
            holds no span. Integers and half precision are cast to float32.
        target: ``(..., T, 2)``, the true spans, padded alike.
        empty: score where neither side holds any span; CG-Bench gives 0 there.

    Returns:
        ``(...)`` in [0, 1]. 0 where only one side holds spans, or where spans without length are all there is.
        Reversed spans cover nothing.

    Raises:
        ValueError: if the last dimension is not 2, or ``(P, 2)`` is missing.

    References:
        The rule of CG-Bench (arXiv:2412.12075), clue grounding, and of VideoChat-R1 (arXiv:2504.06958), grounded QA.
        Their scripts also let reversed spans count as negative time; ours do not.

    Example:
        >>> temporal_set_iou(torch.tensor([[0.0, 2.0], [1.0, 4.0]]), torch.tensor([[3.0, 5.0], [7.0, 8.0]]))
        tensor(0.1667)
    """
    inter, chosen, true = _coverage(prediction, target)
    union = chosen + true - inter
    iou = _share(inter, union)
    return torch.where(_holds_spans(prediction) | _holds_spans(target), iou, empty)


def span_precision_recall(prediction: Tensor, target: Tensor) -> SpanScores:
    r"""Precision, recall and F1 of the time that chosen spans cover.

    .. math:: P = |\cup \hat S \cap \cup S| / |\cup \hat S|, \quad R = |\cup \hat S \cap \cup S| / |\cup S|,
        \quad F_1 = 2PR / (P + R)

    Args:
        prediction: ``(..., P, 2)``, starts and ends in one unit (seconds), in any order; a row with NaN is padding and
            holds no span. Integers and half precision are cast to float32.
        target: ``(..., T, 2)``, the true spans, padded alike.

    Returns:
        Three ``(...)`` in [0, 1]. Where neither side holds a span all are 1; where only one side covers any time all
        are 0. Reversed spans cover nothing.

    Raises:
        ValueError: if the last dimension is not 2, or ``(P, 2)`` is missing.

    Example:
        >>> span_precision_recall(torch.tensor([[0.0, 2.0], [1.0, 4.0]]), torch.tensor([[3.0, 5.0]]))
        SpanScores(precision=tensor(0.2500), recall=tensor(0.5000), f1=tensor(0.3333))
    """
    inter, chosen, true = _coverage(prediction, target)
    nothing = ~(_holds_spans(prediction) | _holds_spans(target))
    return _scores(_share(inter, chosen), _share(inter, true), nothing)


def frame_precision_recall(times: Tensor, target: Tensor) -> SpanScores:
    r"""Precision, recall and F1 of chosen frames against spans of evidence.

    .. math:: P = \#\{t \in \cup S\} \,/\, \#\{t\}, \quad R = \#\{S \ni \text{some } t\} \,/\, \#\{S\},
        \quad F_1 = 2PR / (P + R)

    Args:
        times: ``(..., F)``, times of the chosen frames (seconds), in any order; NaN is padding. Integers and half
            precision are cast to float32.
        target: ``(..., T, 2)``, the spans of evidence ``[start, end)`` in the same unit; a row with NaN is padding.

    Returns:
        Three ``(...)`` in [0, 1]: the share of frames inside evidence, the share of spans that hold a frame, and their
        harmonic mean. Where there is neither a frame nor a span all are 1; where one is missing all are 0. A span
        without length, or a reversed one, holds no frame.

    Raises:
        ValueError: if the last dimension of ``target`` is not 2, or ``(T, 2)`` is missing.

    Example:
        >>> frame_precision_recall(torch.tensor([1.0, 4.0, 9.0]), torch.tensor([[3.0, 5.0], [6.0, 7.0]]))
        SpanScores(precision=tensor(0.3333), recall=tensor(0.5000), f1=tensor(0.4000))
    """
    _check_sets(target=target)
    times, target = as_float(times)[..., :, None], as_float(target)[..., None, :, :]
    inside = (times >= target[..., 0]) & (times < target[..., 1])  # (..., F, T)
    real_times, real_spans = ~times[..., 0].isnan(), ~target.isnan().any(-1)[..., 0, :]
    num_times, num_spans = real_times.sum(-1), real_spans.sum(-1)
    precision = _share(inside.any(-1).sum(-1).to(times.dtype), num_times)
    recall = _share(inside.any(-2).sum(-1).to(times.dtype), num_spans)
    return _scores(precision, recall, (num_times == 0) & (num_spans == 0))


def merge_spans(spans: Tensor) -> Tensor:
    """Sort spans by start and join those that overlap or touch.

    Args:
        spans: ``(..., S, 2)``; rows with NaN, and reversed ones, hold no span.

    Returns:
        ``(..., S, 2)``, disjoint spans in time order; rows that are left over are NaN, anywhere in between.

    Example:
        >>> merge_spans(torch.tensor([[6.0, 7.0], [0.0, 2.0], [1.0, 4.0]]))
        tensor([[nan, nan],
                [0., 4.],
                [6., 7.]])
    """
    spans = as_float(spans)
    if spans.shape[-2] == 0:
        return spans
    start, end = spans.unbind(-1)
    none = ~(end >= start)
    start, order = start.masked_fill(none, float("inf")).sort(dim=-1, stable=True)
    end, none = end.masked_fill(none, -float("inf")).gather(-1, order), none.gather(-1, order)
    reach = end.cummax(-1).values  # latest end so far
    opens = torch.ones_like(none)
    opens[..., 1:] = (start[..., 1:] > reach[..., :-1]) | none[..., 1:]
    closes = torch.ones_like(none)
    closes[..., :-1] = opens[..., 1:]
    first = start.masked_fill(~opens, -float("inf")).cummax(-1).values  # start of the joined span that a row is in
    joined = torch.stack([first, reach], dim=-1)
    return joined.masked_fill((none | ~closes)[..., None], float("nan"))


def _coverage(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Time that both sets cover, that the first covers, and that the second covers, each ``(...)``."""
    _check_sets(prediction=prediction, target=target)
    prediction, target = merge_spans(prediction), merge_spans(target)
    start, end = prediction[..., :, None, :].unbind(-1)
    true_start, true_end = target[..., None, :, :].unbind(-1)
    inter = torch.minimum(end, true_end) - torch.maximum(start, true_start)  # (..., P, T)
    chosen, true = (_total(spans[..., 1] - spans[..., 0]) for spans in (prediction, target))
    return _total(inter.clamp(min=0).flatten(-2)), chosen, true


def _total(values: Tensor) -> Tensor:
    """Sum of what is not NaN over the last dimension.

    Summed in order: a tree of sums would end in other last bits than a loop, and fall on the other side of a threshold.
    """
    if values.shape[-1] == 0:
        return values.sum(-1)
    return values.nan_to_num(nan=0.0, posinf=float("inf")).cumsum(-1)[..., -1]


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Part of a whole in [0, 1], 0 of nothing."""
    return torch.where(whole > 0, part / whole, 0.0).clamp(max=1)


def _scores(precision: Tensor, recall: Tensor, nothing: Tensor) -> SpanScores:
    """Add F1; where there is ``nothing`` on either side all three are 1."""
    precision, recall = (torch.where(nothing, 1.0, share) for share in (precision, recall))
    return SpanScores(precision, recall, _share(2 * precision * recall, precision + recall))


def _holds_spans(spans: Tensor) -> Tensor:
    """Say which samples hold any span, be it without length or reversed."""
    return (~spans.isnan().any(-1)).any(-1)


def _check_sets(**sets: Tensor) -> None:
    """Refuse tensors that are not sets of spans; the keyword is the name in the message."""
    for name, spans in sets.items():
        if spans.ndim < 2:
            raise ValueError(f"`{name}` has shape {tuple(spans.shape)}; a set of spans is (..., spans, 2).")
        if spans.shape[-1] != 2:
            raise ValueError(f"`{name}` has shape {tuple(spans.shape)}; its last dimension must hold 2 numbers.")
