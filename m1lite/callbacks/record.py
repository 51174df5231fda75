"""What stays of a run to look at: trajectories as JSON lines, a readable episode per validation, reward and memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from typing_extensions import override

from m1lite.callbacks.readable import episode_line, episode_text

if TYPE_CHECKING:
    from m1lite.modules.batch import RolloutBatch

_SMOOTHING = 0.9


class RecordCallback(pl.Callback):
    """Writes ``trajectories.jsonl`` (``trajectories-<rank>.jsonl`` on further ranks) and what the progress bar shows.

    Args:
        directory: of the run; made if missing.
        every_n_steps: training steps between two that are written; validations always are.
    """

    def __init__(self, directory: str | Path, *, every_n_steps: int = 1) -> None:
        if every_n_steps < 1:
            raise ValueError(f"`every_n_steps` is {every_n_steps}; it must be at least 1.")
        self.directory = Path(directory)
        self.every_n_steps = every_n_steps
        self.running_reward: float | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Drop what an interrupted run wrote after its last checkpoint: these steps are played again."""
        path = self._path(trainer)
        if not path.is_file():
            return
        temporary = path.with_name(f".{path.name}")
        with path.open(encoding="utf-8") as old, temporary.open("w", encoding="utf-8") as new:
            new.writelines(line for line in old if _is_before(line, trainer.global_step))
        os.replace(temporary, path)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: RolloutBatch, batch_idx: int
    ) -> None:
        reward = trainer.callback_metrics.get("team/reward")
        if reward is not None:
            before = float(reward) if self.running_reward is None else self.running_reward
            self.running_reward = _SMOOTHING * before + (1 - _SMOOTHING) * float(reward)
            pl_module.log("running_reward", self.running_reward, prog_bar=True, logger=False, batch_size=1)
        pl_module.log("perf/rss_gb", resident_gigabytes(), batch_size=1)
        # The step's tick has been counted already.
        step = trainer.global_step - 1
        if step % self.every_n_steps == 0:
            self._write(trainer, batch, step=step, split="train")

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: RolloutBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._write(trainer, batch, step=trainer.global_step, split="val")
        if batch_idx == 0 and batch.episodes:
            text = episode_text(batch.episodes[0], batch.rewards[0])
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_text("trajectory", text, trainer.global_step)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"running_reward": self.running_reward}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.running_reward = state_dict["running_reward"]

    def _write(self, trainer: pl.Trainer, batch: RolloutBatch, *, step: int, split: str) -> None:
        if not batch.episodes:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._path(trainer).open("a", encoding="utf-8") as file:
            for episode, rewards in zip(batch.episodes, batch.rewards, strict=True):
                line = {"step": step, "split": split, **episode_line(episode, rewards)}
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def _path(self, trainer: pl.Trainer) -> Path:
        rank = trainer.global_rank
        return self.directory / (f"trajectories-{rank}.jsonl" if rank else "trajectories.jsonl")


def _is_before(line: str, step: int) -> bool:
    """Tell whether a line was written before the fit came to ``step``; a line that was cut off was not."""
    if not line.endswith("\n"):
        return False
    row = json.loads(line)
    # A validation carries the number of steps done before it, a training step's lines that of the step itself.
    return row["step"] <= step - (row["split"] == "train")


def resident_gigabytes() -> float:
    """Return the memory that this process holds, in GB (10^9 bytes); NaN where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return float("nan")
    return pages * 4096 / 1e9
