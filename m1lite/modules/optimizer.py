"""One optimiser object for a whole team: Lightning counts its steps, the agents' real optimisers do the work.

Lightning's ``global_step`` counts optimiser steps. With one tick of this object per training step, ``max_steps`` and
``every_n_train_steps`` mean training steps however many agents, epochs and minibatches a step has.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor


class NonFiniteUpdateError(RuntimeError):
    """A loss or gradient that is not a number."""


class TeamOptimizer(Optimizer):
    """Holds one optimiser per agent; saves and loads their states by name; its own ``step`` only counts.

    Args:
        optimizers: agent name to its optimiser.

    Raises:
        ValueError: if there is none.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer]) -> None:
        if not optimizers:
            raise ValueError("`optimizers` is empty; a team needs an optimiser for at least one agent.")
        self.agents = dict(optimizers)
        self.ticks = 0
        super().__init__([group for inner in self.agents.values() for group in inner.param_groups], {})
        self._share_groups()

    def __getitem__(self, agent: str) -> Optimizer:
        """Return the agent's optimiser."""
        return self.agents[agent]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Count one training step; no weight changes here."""
        result = closure() if closure is not None else None
        self.ticks += 1
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the agents' optimiser states by name, and the count."""
        return {"ticks": self.ticks, "agents": {agent: inner.state_dict() for agent, inner in self.agents.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: if the agents differ.
        """
        if set(state_dict["agents"]) != set(self.agents):
            raise ValueError(
                f"The checkpoint has optimisers of {sorted(state_dict['agents'])}, this team of {sorted(self.agents)}."
            )
        for agent, inner in self.agents.items():
            inner.load_state_dict(state_dict["agents"][agent])
        self.ticks = state_dict["ticks"]
        self._share_groups()

    def _share_groups(self) -> None:
        # The same dicts and not copies: a learning rate that is set here holds for the agents.
        self.param_groups = [group for inner in self.agents.values() for group in inner.param_groups]


def clip_gradients(optimizer: Optimizer, max_norm: float | None, *, step: int) -> float:
    """Clip the gradient of all of an optimiser's parameters together, and refuse one that is not a number.

    Args:
        optimizer: holds the parameters; those without a gradient are left out.
        max_norm: largest norm; None leaves the gradient as it is.
        step: for the message.

    Returns:
        The norm before the clip.

    Raises:
        NonFiniteUpdateError: if it is not finite, which it is not either where the loss is not.
    """
    parameters = [value for group in optimizer.param_groups for value in group["params"] if value.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if max_norm is None else max_norm).item()
    if not math.isfinite(norm):
        raise NonFiniteUpdateError(
            f"The gradient's norm at step {step} is {norm}, so nothing was learnt from it; lower the learning rate, or "
            "look for what is not a number in the batch."
        )
    return norm


@torch.no_grad()
def changed_share(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the share of weights whose stored value an update changed.

    A step below half of a weight's spacing is lost without a word: in bfloat16 that spacing is up to 0.8 % of the
    weight, so that at a learning rate of 1e-7 next to nothing moves.

    Args:
        before: copies of the tensors, any shapes and dtypes.
        after: the same tensors after the update.

    Returns:
        From 0 to 1; 0 for no weights.

    Raises:
        ValueError: if the two lists do not match.

    Example:
        >>> changed_share([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 2.5])])
        0.5
    """
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`before` has shapes {shapes[0]}, `after` {shapes[1]}; give the same tensors twice.")
    changed = sum(int((old != new).sum()) for old, new in zip(before, after, strict=True))
    return changed / max(1, sum(tensor.numel() for tensor in before))
