"""When a fit ends by Ctrl-C or an error: say where the last checkpoint is. The checkpoint callback writes it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

from m1lite.callbacks.checkpoint import LastCheckpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class InterruptCallback(pl.Callback):
    """Says at which step a fit stopped and which file continues it.

    Args:
        say: prints a line; called on rank 0 only by default.
    """

    def __init__(self, say: Callable[[str], None] = rank_zero_info) -> None:
        self.say = say

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        paths = [path for callback in trainer.checkpoint_callbacks for path in _written(callback)]
        what = "Interrupted" if isinstance(exception, KeyboardInterrupt) else f"Stopped by {type(exception).__name__}"
        where = f"the last checkpoint is {paths[0]}" if paths else "no checkpoint has been written yet"
        self.say(f"{what} at step {trainer.global_step}; {where}.")


def _written(callback: Any) -> list[str]:
    if isinstance(callback, LastCheckpoint):
        return [str(callback.path)] if callback.path.is_file() else []
    if isinstance(callback, ModelCheckpoint):
        return [path for path in (callback.last_model_path, callback.best_model_path) if path]
    return []


@contextmanager
def ctrl_c_raises(trainer: pl.Trainer) -> Iterator[None]:
    """Let Ctrl-C end a fit with ``KeyboardInterrupt``; Lightning makes ``SystemExit(1)`` of it, as of a failure."""
    try:
        yield
    except SystemExit as ended:
        if trainer.interrupted and type(ended) is SystemExit:  # after SIGTERM Lightning raises a subclass
            raise KeyboardInterrupt from None
        raise
