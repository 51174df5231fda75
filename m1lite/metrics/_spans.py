"""How the metric classes read sets of spans (or times) of different sizes, and refuse targets that are no spans."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def stack_sets(
    prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any], *, width: int = 2, target_width: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the rows of every sample as two tensors, padded with NaN, and say which samples were answered.

    Args:
        prediction: a tensor ``(N, P, width)``, rows of NaN being padding; or one entry per sample: rows as a tensor or
            as nested lists, an empty list for an answer without rows, ``None`` for no answer.
        target: the same without ``None``, of ``target_width``.
        width: numbers in a row of ``prediction``.
        target_width: numbers in a row of ``target``.

    Returns:
        float ``(N, P, width)``, float ``(N, T, target_width)`` and bool ``(N,)``. Plain numbers get the dtype and
        device of the tensors among them, float64 on the CPU if there are none; half precision becomes float32.

    Raises:
        ValueError: if an entry does not hold rows of that width, the lengths differ, or a target is ``None``.
    """
    if len(prediction) != len(target):
        raise ValueError(
            f"`prediction` holds {len(prediction)} answers for {len(target)} targets; give one, or None, for each."
        )
    for index, entry in enumerate(target if not isinstance(target, Tensor) else ()):
        if entry is None:
            raise ValueError(f"`target[{index}]` is None; a sample without true spans has an empty list.")
    tensors = [
        entry
        for side in (prediction, target)
        for entry in ([side] if isinstance(side, Tensor) else side)
        if isinstance(entry, Tensor)
    ]
    floats = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    dtype = reduce(torch.promote_types, floats, torch.float32) if floats else torch.float64
    device = tensors[0].device if tensors else torch.device("cpu")
    answered = torch.ones(len(prediction), dtype=torch.bool, device=device)
    if not isinstance(prediction, Tensor):
        missing = [index for index, entry in enumerate(prediction) if entry is None]
        answered[missing] = False
    rows = [
        _pad(side, name, width=numbers, dtype=dtype, device=device)
        for side, name, numbers in ((prediction, "prediction", width), (target, "target", target_width))
    ]
    return rows[0], rows[1], answered


def check_spans(target: Tensor, *, padded: bool) -> None:
    """Refuse true spans that are reversed or not finite; one read-back where all is well.

    Args:
        target: ``(..., 2)``.
        padded: rows of two NaN are padding, and fine.

    Raises:
        ValueError: if the last dimension is not 2 or a row is no span; the message holds the row.
    """
    if target.ndim < 2 or target.shape[-1] != 2:
        raise ValueError(f"`target` has shape {tuple(target.shape)}; it must be (N, 2).")
    length = target[..., 1] - target[..., 0]
    fine = (length >= 0) & (length < float("inf"))
    if padded:
        fine |= target.isnan().all(-1)
    if not bool(fine.all()):
        place = (~fine).nonzero()[0].tolist()
        row = target[tuple(place)].tolist()
        where = "".join(f"[{index}]" for index in place)
        raise ValueError(f"`target{where}` is {row}; a span needs finite start <= end.")


def _pad(side: Tensor | Sequence[Any], name: str, *, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Write rows as one tensor ``(N, rows, width)``; None is no rows."""
    if isinstance(side, Tensor):
        if side.ndim != 3 or side.shape[-1] != width:
            raise ValueError(f"`{name}` has shape {tuple(side.shape)}; it must be (N, rows, {width}).")
        return side.to(dtype)
    entries = []
    for index, entry in enumerate(side):
        rows = torch.as_tensor([] if entry is None else entry, dtype=dtype, device=device)
        if rows.numel() == 0:
            rows = rows.reshape(0, width)
        if rows.ndim != 2 or rows.shape[-1] != width:
            raise ValueError(f"`{name}[{index}]` has shape {tuple(rows.shape)}; it must be (rows, {width}).")
        entries.append(rows)
    most = max((len(rows) for rows in entries), default=0)
    padded = torch.full((len(entries), most, width), float("nan"), dtype=dtype, device=device)
    for index, rows in enumerate(entries):
        padded[index, : len(rows)] = rows
    return padded
