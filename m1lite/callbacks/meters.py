"""What a step's rollout cost beside its seconds: how long the engines stood idle, how long videos were decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from typing_extensions import override

from m1lite.modules.ranks import mean_over_ranks

if TYPE_CHECKING:
    from m1lite.engines.base import EngineGroup
    from m1lite.video.cache import FrameCache


class MeterCallback(pl.Callback):
    """Logs ``perf/engine_idle_share``, ``video/decode_s`` and ``video/frames`` of every step, means over ranks.

    The idle share is the part of ``perf/rollout_s`` in which no engine of the rank drew replies. Frames are those that
    were decoded; what the cache served costs nothing and is not counted.

    Args:
        engines: of this rank.
        frames: where this rank's tools get their frames from; None where they see no pixels.
    """

    def __init__(self, engines: EngineGroup, frames: FrameCache | None) -> None:
        self.engines = engines
        self.frames = frames
        self._before = (0.0, 0.0, 0)

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._before = self._counters()

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        busy, decoding, frames = (now - then for now, then in zip(self._counters(), self._before, strict=True))
        means = mean_over_ranks({"busy": busy, "video/decode_s": decoding, "video/frames": float(frames)}, weight=1)
        rollout = float(trainer.callback_metrics["perf/rollout_s"])
        means["perf/engine_idle_share"] = max(0.0, 1.0 - means.pop("busy") / rollout)
        pl_module.log_dict(means, batch_size=1)

    def _counters(self) -> tuple[float, float, int]:
        if self.frames is None:
            return self.engines.busy_seconds, 0.0, 0
        return self.engines.busy_seconds, self.frames.decode_seconds, self.frames.misses
