"""When a fit ends by Ctrl-C or an error: say where the last checkpoint is. Writing it is ``ModelCheckpoint``'s work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable


class InterruptCallback(pl.Callback):
    """Says at which step a fit stopped and which file continues it.

    Args:
        say: prints a line; called on rank 0 only by default.
    """

    def __init__(self, say: Callable[[str], None] = rank_zero_info) -> None:
        self.say = say

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        files = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
        paths = [path for file in files for path in (file.last_model_path, file.best_model_path) if path]
        what = "Interrupted" if isinstance(exception, KeyboardInterrupt) else f"Stopped by {type(exception).__name__}"
        where = f"the last checkpoint is {paths[0]}" if paths else "no checkpoint has been written yet"
        self.say(f"{what} at step {trainer.global_step}; {where}.")
