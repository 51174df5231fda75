"""Traces of agents: the share of plans that can be followed and of tool calls that succeed. Counts in, shares out."""

from __future__ import annotations

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float


def plan_validity(valid: Tensor, plans: Tensor) -> Tensor:
    r"""Share of an agent's plans that parse and name only tools it has.

    .. math:: \#\text{valid} \,/\, \#\text{plans}

    Args:
        valid: ``(...)``, how many of the plans are valid; integers and half precision are cast to float32.
        plans: ``(...)``, how many plans, and decisions over the rest of a plan, were written.

    Returns:
        ``(...)`` in [0, 1]; NaN where no plan was written, which is neither good nor bad planning.

    Raises:
        ValueError: if the shapes differ.

    References:
        Plan feasibility is a criterion of VideoChat-M1's judge (arXiv:2511.19524); the share, by rule, is ours.

    Example:
        >>> plan_validity(torch.tensor([3, 0]), torch.tensor([4, 0]))
        tensor([0.7500,    nan])
    """
    return _share(valid, plans, names=("valid", "plans"))


def tool_success(successful: Tensor, calls: Tensor) -> Tensor:
    r"""Share of an agent's tool calls that gave a result, not an error or a missed deadline.

    .. math:: \#\text{successful} \,/\, \#\text{calls}

    Args:
        successful: ``(...)``, how many of the calls succeeded; integers and half precision are cast to float32.
        calls: ``(...)``, how many calls were executed.

    Returns:
        ``(...)`` in [0, 1]; NaN where nothing was called.

    Raises:
        ValueError: if the shapes differ.

    References:
        Ours; no paper defines it.

    Example:
        >>> tool_success(torch.tensor([1, 2, 0]), torch.tensor([4, 2, 0]))
        tensor([0.2500, 1.0000,    nan])
    """
    return _share(successful, calls, names=("successful", "calls"))


def _share(part: Tensor, whole: Tensor, *, names: tuple[str, str]) -> Tensor:
    if part.shape != whole.shape:
        raise ValueError(
            f"`{names[0]}` has shape {tuple(part.shape)} and `{names[1]}` {tuple(whole.shape)}; they must be equal."
        )
    whole = as_float(whole)
    return as_float(part) / torch.where(whole > 0, whole, float("nan"))
