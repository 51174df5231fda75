"""Muon for the matrices of a small transformer, AdamW for its embeddings and vectors, as one optimiser.

On tiny models, copying out of the context forms in about half of the steps that AdamW alone needs. The update rule is
``torch.optim.Muon``'s; here is only which parameter gets which rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim import AdamW, Muon, Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor


class MuonAdamW(Optimizer):
    """Two optimisers behind one: schedulers see all parameter groups, checkpoints hold both states.

    Args:
        named_parameters: as ``module.named_parameters()`` gives them. Matrices whose name holds neither ``embed`` nor
            ``lm_head`` are Muon's, everything else is AdamW's.
        lr: peak rate of the matrices, in AdamW's scale (Muon's update is rescaled to the same root mean square), and
            of convolutions, which are wide matrices too.
        adamw_lr: peak rate of the rest.
        weight_decay: of both.

    References:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the rescaling is that of
        Liu et al. 2025, arXiv:2502.16982, equation 4.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        *,
        lr: float = 1e-2,
        adamw_lr: float = 4e-3,
        weight_decay: float = 0.0,
    ) -> None:
        matrices: list[Tensor] = []
        convolutions: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in named_parameters:
            hidden = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (matrices if hidden else convolutions if parameter.ndim > 2 else rest).append(parameter)
        self.parts: list[Optimizer] = []
        if matrices:
            self.parts.append(Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        groups = [{"params": convolutions, "lr": lr}, {"params": rest, "lr": adamw_lr}]
        if rest or convolutions:
            kept = [group for group in groups if group["params"]]
            self.parts.append(AdamW(kept, betas=(0.9, 0.98), weight_decay=weight_decay))
        super().__init__([{"params": [*matrices, *convolutions, *rest]}], {})
        # The parts' own groups, not copies: a scheduler that sets a rate here sets it there.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Step both parts; the closure runs once, first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return both parts' states."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load both parts' states."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
