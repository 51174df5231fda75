"""One optimiser object for a whole team: Lightning counts its steps, the agents' real optimisers do the work.

Lightning's ``global_step`` counts optimiser steps. With one tick of this object per training step, ``max_steps`` and
``every_n_train_steps`` mean training steps however many agents, epochs and minibatches a step has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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
