"""One checkpoint, the newest, that a run is continued from. To keep several or the best, add ``ModelCheckpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

if TYPE_CHECKING:
    import lightning.pytorch as pl


class LastCheckpoint(Checkpoint):
    """Saves at every n-th training step and at the step that ends the fit, always to the same file.

    Saved is between two steps only: what an interrupt leaves half done belongs to no checkpoint and is done again.

    Args:
        path: the file; replaced as a whole.
        every_n_steps: training steps between two checkpoints.

    Raises:
        ValueError: if ``every_n_steps`` is below 1.
    """

    def __init__(self, path: str | Path, *, every_n_steps: int = 5) -> None:
        if every_n_steps < 1:
            raise ValueError(f"`every_n_steps` is {every_n_steps}; it must be at least 1.")
        self.path = Path(path)
        self.every_n_steps = every_n_steps

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.every_n_steps == 0 or step == trainer.max_steps or trainer.should_stop:
            trainer.save_checkpoint(self.path)
