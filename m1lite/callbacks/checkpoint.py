"""One checkpoint, the newest, that a run is continued from. To keep several or the best, add ``ModelCheckpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

from m1lite.data.datamodule import StepLoader
from m1lite.engines.base import EngineError

if TYPE_CHECKING:
    import lightning.pytorch as pl


class LastCheckpoint(Checkpoint):
    """Saves at every n-th training step and at the step that ends the fit, always to the same file.

    Saved is between two steps only: what an interrupt leaves half done belongs to no checkpoint and is done again. An
    engine that fails for good does so before an update, so the steps up to there are saved then (in a run of one
    process: several would have to come together for it).

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
        self._saved = 0

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.every_n_steps == 0 or step == trainer.max_steps or trainer.should_stop:
            self._save(trainer)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        step, loader = trainer.global_step, trainer.train_dataloader
        if isinstance(exception, EngineError) and trainer.world_size == 1 and step > self._saved:
            if isinstance(loader, StepLoader):
                loader.step = min(loader.step, step)  # the batch whose rollout failed is to be given again
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = trainer.global_step
