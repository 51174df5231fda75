"""Supervised training of bases in full, on rows that demonstrate: until they are learnt, and each by one rank.

What the rows are is said by who inherits: cold_start.py for teams that read, native_start.py for teams that see.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import SingleDeviceStrategy
from transformers import AutoProcessor

from m1lite.callbacks.interrupt import stops_are_told_apart
from m1lite.callbacks.tokens import TrainedTokens
from m1lite.data.renaming import word_groups
from m1lite.engines.features import FreshFeatures
from m1lite.engines.model_classes import sees
from m1lite.modules.bases import Base
from m1lite.modules.ranks import barrier, broadcast_weights, gather_rows, num_ranks, this_rank
from m1lite.modules.sft import SftLoader, SftModule, SftRow

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from m1lite.video.cache import FrameCache


@dataclass(kw_only=True, slots=True, frozen=True)
class Schedule:
    """How long a base is trained: until its validation loss is flat, and no longer than a number of seconds."""

    seconds: float
    """Wall time, at most."""
    steps: int | None = None
    """Optimiser steps, at most; ``None`` goes by time alone. Validations then come after equal numbers of steps."""
    cooldown: float = 0.5
    """Share of the seconds over which the learning rate falls to 0 at the end."""
    num_validations: int = 5
    """How often the validation rows are scored, evenly over the seconds."""
    patience: int = 3
    """Validations in a row without a better loss after which it is flat: then the rate begins to fall."""
    batch_size: int = 32
    """Rows of an optimiser step."""

    def is_flat(self, curve: Sequence[Mapping[str, float]]) -> bool:
        """Say whether none of the last ``patience`` validation losses is at least 1 % below the best before them.

        Args:
            curve: validations in order of time, each with ``sft/val_loss``.
        """
        losses = [point["sft/val_loss"] for point in curve]
        before = losses[: -self.patience]
        return bool(before) and min(losses[-self.patience :]) > 0.99 * min(before)


class BaseTraining(ABC):
    """Trains bases in full on rows that demonstrate, with the vision tower of those that see.

    Args:
        optimizer: a module's named parameters to optimiser, for example ``partial(MuonAdamW, lr=1e-2)``; or one such
            function per base.
        schedule: how long a base is trained.
        interchangeable: words that can stand for each other, one list for each kind of thing: in every pass over the
            rows they change places, so that rows cannot be learnt by heart.
        frames: decodes what rows show; None where they show nothing.
        seed: of the rows' order.
    """

    def __init__(
        self,
        *,
        optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer]
        | Mapping[str, Callable[[Iterable[tuple[str, Tensor]]], Optimizer]],
        schedule: Schedule,
        interchangeable: Sequence[Sequence[str]] = (),
        frames: FrameCache | None = None,
        seed: int = 0,
    ) -> None:
        self.frames = frames
        self.optimizer = optimizer
        self.schedule = schedule
        self.interchangeable = interchangeable
        self.seed = seed

    @abstractmethod
    def rows(self, agents: Sequence[Any], tools: Any) -> tuple[list[SftRow], list[SftRow]]:
        """Make the rows to learn from and those to validate on.

        Args:
            agents: the team to teach.
            tools: the real tools.
        """

    def train(
        self,
        bases: Mapping[str, Base],
        members: Mapping[str, str],
        rows: Sequence[SftRow],
        validation: Sequence[SftRow],
        directory: Path,
        *,
        seconds: float | None = None,
        logger: Any = False,
        show_progress: bool = False,
        tokens: Counter[str] | None = None,
    ) -> dict[str, list[dict[str, float]]]:
        """Train this rank's bases, then load those of the others.

        Args:
            bases: base name to base; trained in place and renamed to where they are saved.
            members: agent name to base name.
            rows: of all agents; a base learns from those of its own agents.
            validation: likewise.
            directory: the bases are saved under it, one folder each.
            seconds: wall time for each base; None takes the schedule's.
            logger: Lightning's logger, or False.
            show_progress: show a progress bar.
            tokens: the tokens that this rank trains on are added to its ``trained``.

        Returns:
            Base name to its validation scores in order of time.
        """
        curves: dict[str, list[dict[str, float]]] = {}
        for name in list(bases)[this_rank() :: num_ranks()]:
            agents = {agent for agent, base in members.items() if base == name}
            curves[name] = self._train_base(
                bases[name],
                self.optimizer[name] if isinstance(self.optimizer, Mapping) else self.optimizer,
                [row for row in rows if row.agent in agents],
                [row for row in validation if row.agent in agents],
                seconds=seconds or self.schedule.seconds,
                logger=logger,
                show_progress=show_progress,
                tokens=Counter() if tokens is None else tokens,
            )
        # Renamed when all of them are written: who finds the folder finds whole bases in it.
        partial_directory = directory.with_name(f".{directory.name}")
        for index, (name, base) in enumerate(bases.items()):
            broadcast_weights(base.model, source=index % num_ranks())
            before, base.name = base.name, str(directory / name)
            if this_rank() == 0:  # where there are ranks, transformers writes on this one only
                base.model.save_pretrained(partial_directory / name)
                texts: Any = AutoProcessor.from_pretrained(before) if sees(base.model.config) else base.tokenizer
                texts.save_pretrained(partial_directory / name)  # of a base that sees with what vLLM looks for
        if this_rank() == 0:
            os.replace(partial_directory, directory)
        barrier()
        return dict(gather_rows(list(curves.items())))

    def _train_base(
        self,
        base: Base,
        optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer],
        rows: Sequence[SftRow],
        validation: Sequence[SftRow],
        *,
        seconds: float,
        logger: Any,
        show_progress: bool,
        tokens: Counter[str],
    ) -> list[dict[str, float]]:
        pad_id = base.tokenizer.pad_token_id
        rename = word_groups(base.tokenizer, self.interchangeable) if self.interchangeable else None
        schedule = self.schedule
        curve = _Progress(schedule)
        model: Any = base.model.requires_grad_(True).train()
        shown = FreshFeatures(model, self.frames) if self.frames is not None and sees(model.config) else None
        module = SftModule(
            model,
            optimizer=optimizer,
            seconds=seconds,
            steps=schedule.steps,
            cooldown=schedule.cooldown,
            features=shown,
            packing=shown is not None,  # one long system prompt stands before every row
        )
        trainer = pl.Trainer(
            strategy=SingleDeviceStrategy(device=str(base.model.device)),
            max_epochs=-1,
            callbacks=[curve, TrainedTokens(tokens)],
            logger=logger,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=show_progress,
            num_sanity_val_steps=0,
            val_check_interval=(
                timedelta(seconds=seconds / schedule.num_validations)
                if schedule.steps is None
                else max(1, schedule.steps // schedule.num_validations)
            ),
            check_val_every_n_epoch=None,
            log_every_n_steps=20,
        )
        with stops_are_told_apart(trainer):
            trainer.fit(
                module,
                SftLoader(rows, schedule.batch_size, pad_id=pad_id, seed=self.seed, rename=rename),
                SftLoader(validation, 64, pad_id=pad_id, shuffle=False),
            )
        base.model.requires_grad_(False).eval()
        return curve.points


class _Progress(pl.Callback):
    """Keeps the validation scores in order of time, and lets the rate fall once they are flat.

    Args:
        schedule: says when they are flat.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.points: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Read the scores that were just logged; without an answer in the rows there is no share of right ones."""
        logged = trainer.callback_metrics
        scores = {name: float(logged.get(name, math.nan)) for name in ("sft/val_loss", "sft/val_exact")}
        self.points.append({"seconds": pl_module.elapsed_seconds, "step": float(trainer.global_step), **scores})
        if self.schedule.is_flat(self.points):
            pl_module.cool_down()
