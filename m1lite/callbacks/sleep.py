"""While the module learns, engines in its process sleep: their memory is the update's."""

from __future__ import annotations

from typing import Any, Protocol

import lightning.pytorch as pl
from typing_extensions import override


class Sleeps(Protocol):
    """An engine or a group of engines; the next request or weights wake it."""

    def sleep(self) -> None:
        """Lend out memory."""


class SleepCallback(pl.Callback):
    """Sends engines to sleep when a step's rollout is over; stands after the rollout callback.

    The sync after the step wakes them with the new weights.

    Args:
        engine: those that sleep.
    """

    def __init__(self, engine: Sleeps) -> None:
        self.engine = engine

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.engine.sleep()
