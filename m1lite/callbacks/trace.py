"""A trace of one training step: rollout, engine steps, replies, tool calls, update and sync, for Perfetto."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from typing_extensions import override

from m1lite.modules.ranks import this_rank

if TYPE_CHECKING:
    from m1lite.collaboration.timeline import Timeline


class TraceCallback(pl.Callback):
    """Records one step of a fit and writes it to a file; rank 0 does, the others record nothing.

    Place it directly before the rollout callback: what lies between the hooks of the callbacks after it is the step's.

    Args:
        timeline: of the sampler and the tools that the rollouts use.
        path: of the file; open it at https://ui.perfetto.dev.
        step: counted from where the fit begins; the first pays for what is only done once.
    """

    def __init__(self, timeline: Timeline, path: str | Path, *, step: int = 1) -> None:
        self.timeline = timeline
        self.path = Path(path)
        self.step = step
        self._left = step
        self._started = self._rolled_out = self._updated = 0.0

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._left = self.step

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.timeline.recording:
            self._write(trainer)
        elif self._left == 0 and this_rank() == 0:
            self.timeline.recording = True
            self._started = time.perf_counter()
        self._left -= 1

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._updated = time.perf_counter()

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.timeline.recording:
            self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        """Add the step's parts, whose lengths the log holds, and write."""
        self.timeline.recording = False
        found = trainer.callback_metrics
        update, sync = (float(found.get(f"perf/{part}_s", 0.0)) for part in ("update", "sync"))
        begun = self._updated - update
        self.timeline.span("step", "rollout", self._started, begun)
        self.timeline.span("step", "update", begun, self._updated)
        self.timeline.span("step", "sync", self._updated, self._updated + sync)
        self.timeline.write(self.path)
