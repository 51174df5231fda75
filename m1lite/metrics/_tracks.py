"""How the tracking classes read sequences of boxes: padded tensors or lists, absent frames, no answer at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from m1lite.metrics.functional._inputs import as_float

Boxes: TypeAlias = "Tensor | Sequence[Any]"
"""``(N, T, 4)``, or N entries ``(T_i, 4)``; None as an entry of predictions is no answer."""


class Tracks(NamedTuple):
    """Sequences of one length, filled up where they were shorter."""

    prediction: Tensor
    """``(N, T, 4)``; NaN where there is no answer."""
    target: Tensor
    """``(N, T, 4)``."""
    counted: Tensor
    """bool ``(N, T)``; false on padding and on frames that are not to be scored."""


def stack_tracks(prediction: Boxes, target: Boxes, mask: Boxes | None, *, skip_first: bool) -> Tracks:
    """Write sequences of boxes as padded tensors.

    Args:
        prediction: ``(N, T, 4)``, or one entry ``(T_i, 4)`` per sequence, None for no answer.
        target: ``(N, T, 4)``, or one entry ``(T_i, 4)`` per sequence.
        mask: bool ``(N, T)``, or one entry ``(T_i,)`` per sequence: the frames to score; None: all.
        skip_first: leave the first frame of each sequence out.

    Raises:
        ValueError: if sequences, frames or shapes of the arguments don't agree.
    """
    if isinstance(target, Tensor) and target.ndim != 3:
        raise ValueError(
            f"`target` has shape {tuple(target.shape)}; it must be (N, T, 4). One sequence is `target[None]`."
        )
    if isinstance(prediction, Tensor) and isinstance(target, Tensor) and not isinstance(mask, Sequence):
        tracks = _from_tensors(prediction, target, mask)
    else:
        tracks = _from_lists(prediction, target, mask)
    if skip_first:
        tracks.counted[:, :1] = False
    return tracks


def check_targets(target: Tensor, counted: Tensor) -> None:
    """Refuse frames that count and whose true box is reversed or not finite."""
    left, top, right, bottom = target.unbind(-1)
    width, height = right - left, bottom - top
    # NaN passes through both, and no comparison with it is true.
    fine = (torch.minimum(width, height) >= 0) & (torch.maximum(width, height) < float("inf")) | ~counted
    if not bool(fine.all()):
        sequence, frame = (~fine).nonzero()[0].tolist()
        raise ValueError(
            f"`target[{sequence}][{frame}]` is {target[sequence, frame].tolist()}; a box needs finite left <= right "
            "and top <= bottom. Leave frames without the object out with `mask`."
        )


def count_frames(hits: Tensor, counted: Tensor) -> Tensor:
    """Count the true flags ``(N, T)`` of each sequence among the frames that count; int64 ``(N,)``."""
    return (hits & counted).sum(-1)


def _from_tensors(prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tracks:
    """Take padded tensors as they are."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"`prediction` has shape {tuple(prediction.shape)} and `target` {tuple(target.shape)}; both (N, T, 4)."
        )
    if mask is None:
        return Tracks(prediction, target, torch.ones(target.shape[:2], dtype=torch.bool, device=target.device))
    if mask.shape != target.shape[:2]:
        raise ValueError(f"`mask` has shape {tuple(mask.shape)}; it must be {tuple(target.shape[:2])}.")
    return Tracks(prediction, target, mask.to(target.device, torch.bool, copy=True))


def _from_lists(prediction: Boxes, target: Boxes, mask: Boxes | None) -> Tracks:
    """Fill sequences up to the length of the longest."""
    trues = [as_float(torch.as_tensor(boxes)) for boxes in target]
    missing = float("nan")

    def read_boxes(entry: Any, true: Tensor) -> Tensor:
        if entry is None:
            return torch.full_like(true, missing)
        return as_float(torch.as_tensor(entry, device=true.device))

    found = _rows("prediction", prediction, trues, read=read_boxes, dimensions=2)
    if mask is None:
        frames = [torch.ones(len(true), dtype=torch.bool, device=true.device) for true in trues]
    else:
        frames = _rows("mask", mask, trues, read=lambda row, true: torch.as_tensor(row).to(true.device, torch.bool))
    if not trues:
        return _from_tensors(torch.zeros(0, 0, 4), torch.zeros(0, 0, 4), None)
    return Tracks(_padded(found, fill=missing), _padded(trues, fill=0.0), _padded(frames, fill=0.0))


def _rows(
    name: str, entries: Boxes, trues: Sequence[Tensor], *, read: Callable[[Any, Tensor], Tensor], dimensions: int = 1
) -> list[Tensor]:
    """Read one tensor per sequence, of the leading ``dimensions`` of the sequence's target."""
    if len(entries) != len(trues):
        raise ValueError(f"`{name}` holds {len(entries)} sequences for {len(trues)} targets; give one for each.")
    rows = [read(entry, true) for entry, true in zip(entries, trues, strict=True)]
    for index, (row, true) in enumerate(zip(rows, trues, strict=True)):
        if row.shape != true.shape[:dimensions]:
            raise ValueError(
                f"`{name}[{index}]` has shape {tuple(row.shape)} and `target[{index}]` {tuple(true.shape)}; every "
                "frame needs its row (a predicted box of NaN is no answer)."
            )
    return rows


def _padded(rows: Sequence[Tensor], *, fill: float) -> Tensor:
    """Stack sequences, the shorter ones filled up."""
    dtype = torch.float64 if any(row.dtype == torch.float64 for row in rows) else rows[0].dtype
    return pad_sequence([row.to(dtype) for row in rows], batch_first=True, padding_value=fill)
