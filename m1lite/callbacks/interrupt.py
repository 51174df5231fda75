"""When a fit ends by Ctrl-C or an error: say where the last checkpoint is. The checkpoint callback writes it."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

from m1lite.callbacks.checkpoint import LastCheckpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
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
        known = {KeyboardInterrupt: "Interrupted", SIGTERMException: "Stopped by SIGTERM"}
        what = known.get(type(exception), f"Stopped by {type(exception).__name__}")
        where = f"the last checkpoint is {paths[0]}" if paths else "no checkpoint has been written yet"
        self.say(f"{what} at step {trainer.global_step}; {where}.")


def _written(callback: Any) -> list[str]:
    if isinstance(callback, LastCheckpoint):
        return [str(callback.path)] if callback.path.is_file() else []
    if isinstance(callback, ModelCheckpoint):
        return [path for path in (callback.last_model_path, callback.best_model_path) if path]
    return []


class _AskedAgain(pl.Callback):
    """Ends a fit whose Ctrl-C was lost: Python drops exceptions that come up in destructors and some callbacks."""

    def __init__(self) -> None:
        self.asked = False

    def handler(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal, then do what Python does by default."""
        self.asked = True
        signal.default_int_handler(number, frame)

    @override
    def on_train_batch_start(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def stops_are_told_apart(trainer: pl.Trainer) -> Iterator[None]:
    """Let Ctrl-C end a fit with ``KeyboardInterrupt``, at the next step at the latest, and SIGTERM with exit code 143.

    Lightning makes ``SystemExit(1)`` of the one, as of a failure, and of the other an exit with code 0.
    """
    again = _AskedAgain()
    trainer.callbacks.append(again)  # type: ignore[attr-defined]
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, again.handler)
    try:
        yield
    except SystemExit as ended:
        if not trainer.interrupted:
            raise
        if isinstance(ended, SIGTERMException):
            raise SystemExit(128 + signal.SIGTERM) from None
        raise KeyboardInterrupt from None
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
