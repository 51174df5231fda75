"""Before an update: the trainer scores what the engine sampled, and a turn on which they disagree stops the run.

Glue only; the comparison stands in ``modules/agreement.py``. ``probe.py`` looks at the engine after a sync, with words
alone; this looks at the rollouts themselves, frames included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from m1lite.modules.agreement import check_turns
from m1lite.modules.rows import micro_batches, needed_lengths, take_rows

if TYPE_CHECKING:
    from m1lite.modules.batch import RolloutBatch
    from m1lite.records import TokenBatch


class TurnCheck(pl.Callback):
    """Compares engine and trainer on every turn of a rollout; stands after the rollout callback.

    It costs one more forward pass over the rollout. Tokens of older weights than the trainer's are left out. Of bases
    that see one kept picture goes through the tower again, so that features of old weights are found.

    Args:
        tolerance: largest mean difference of a turn's log-probs, nats: 1e-3 suits float32, 0.5 bfloat16 (ours).
        every_n_steps: training steps from one look to the next; the first step is looked at.

    Raises:
        ValueError: if the tolerance is not positive or the steps are below 1.
    """

    def __init__(self, tolerance: float, *, every_n_steps: int = 1) -> None:
        if not tolerance > 0:
            raise ValueError(f"`tolerance` is {tolerance}; it must be above 0.")
        if every_n_steps < 1:
            raise ValueError(f"`every_n_steps` is {every_n_steps}; it must be at least 1.")
        self.tolerance = tolerance
        self.every_n_steps = every_n_steps

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: RolloutBatch, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps:
            return
        for features in pl_module.team.features.values():
            features.check_fresh()
        for agent, tokens in (batch.tokens or {}).items():
            if tokens.policy_version == pl_module.versions[agent]:
                gap = self._look(pl_module, agent, tokens)
                pl_module.log(f"{agent}/sampling/turn_gap/max", gap, batch_size=1)

    @torch.no_grad()
    def _look(self, module: Any, agent: str, tokens: TokenBatch) -> float:
        lengths, worst = needed_lengths(tokens), 0.0
        for rows in micro_batches(lengths, module.micro_batch_tokens):
            part = take_rows(tokens, rows, width=lengths[rows[0]])
            worst = max(worst, check_turns(part, module.team.logprobs(agent, part)[0], tolerance=self.tolerance))
        return worst
