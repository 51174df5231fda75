"""The cold start: bases of random weights learn the language of the world before any reinforcement learning.

Two kinds of rows, both episodes of the real loop (data/demonstrations.py). Demonstrations, on real videos, teach to
write plans, decisions and answers; their tools and arguments are random, so which call to make is left to learn.
Reading drills, on scenes that were never rendered (data/drawn.py), teach to copy an answer out of results: several
questions in a row about what one agent has read, and nothing but the answers in the loss. Every base is trained by one
rank; ranks share the bases.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice, zip_longest
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import SingleDeviceStrategy

from m1lite.callbacks.interrupt import stops_are_told_apart
from m1lite.callbacks.tokens import TrainedTokens
from m1lite.collaboration.loop import run
from m1lite.collaboration.topology import Topology
from m1lite.data.demonstrations import Demonstrator, read_results
from m1lite.data.evidence import shown
from m1lite.data.renaming import word_groups
from m1lite.modules.bases import Base
from m1lite.modules.ranks import barrier, broadcast_weights, gather_rows, num_ranks, this_rank
from m1lite.modules.sft import SftLoader, SftModule, SftRow, turns_row
from m1lite.records import Sample, Turn, TurnKind

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from m1lite.agents.agent import Agent
    from m1lite.collaboration.scheduler import Tools
    from m1lite.records import Episode

_BATCH = 64
"""Samples whose episodes are played together."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Lessons:
    """What the cold start plays, and how rows are made of it.

    Args:
        topology: who reads whom; the same law as in training.
        num_demonstrations: episodes with random calls.
        num_drills: episodes whose calls tell the answer.
        answers_per_drill: questions about the same video that a drill answers one after the other, at most.
        answer_weight: of an answer's tokens in the loss; plans and decisions have 1.
        seed: of everything drawn.
    """

    topology: Topology
    num_demonstrations: int = 1000
    num_drills: int = 3000
    answers_per_drill: int = 6
    answer_weight: float = 1.0
    seed: int = 0

    def rows(self, agents: Sequence[Agent], samples: Sequence[Sample], tools: Tools) -> list[SftRow]:
        """Play this rank's share of the episodes and gather the rows of all ranks.

        Args:
            agents: the team to teach.
            samples: of the synthetic world; all questions about a video that a drill may ask.
            tools: the real tools.

        Returns:
            The same rows in the same order on every rank, whatever the number of ranks.

        Raises:
            ValueError: if there are no samples.
        """
        if not samples:
            raise ValueError("`samples` is empty; lessons are made of at least one question.")
        at_once = min(_BATCH, len(samples))  # the loop takes a sample once
        batches = [
            (drills, number, min(at_once, count - start))
            for drills, count in ((False, self.num_demonstrations), (True, self.num_drills))
            for number, start in enumerate(range(0, count, at_once))
        ]
        mine = [
            (place, row)
            for place in range(this_rank(), len(batches), num_ranks())
            for row in self._play(*batches[place], agents=agents, samples=samples, tools=tools)
        ]
        return [row for _, row in sorted(gather_rows(mine), key=itemgetter(0))]

    def _play(
        self,
        drills: bool,
        number: int,
        count: int,
        *,
        agents: Sequence[Agent],
        samples: Sequence[Sample],
        tools: Tools,
    ) -> list[SftRow]:
        """Play the ``number``-th batch of its kind, of ``count`` samples; nothing in it depends on the rank."""
        rng = Random(f"lessons {self.seed} {drills} {number}")
        teacher = Demonstrator(agents, answer_weight=self.answer_weight, drills=drills)
        episodes = run(
            _balanced(samples, count, rng),
            teacher.players,
            teacher.sampler,
            tools,
            episodes=1,
            seed=rng.getrandbits(62),
            topology=self.topology,
        )
        by_name = {agent.name: agent for agent in agents}
        by_video: dict[str, list[Sample]] = {}
        for sample in samples if drills else ():
            by_video.setdefault(sample.video, []).append(sample)
        rows: list[SftRow] = []
        for episode in episodes:
            others = by_video.get(episode.sample.video, [])
            for demonstration in teacher.demonstrations([episode]):
                name, turns = demonstration.trajectory.agent, demonstration.trajectory.turns
                further = self._further(by_name[name], episode, rng.sample(others, k=len(others)))
                weights = [*demonstration.weights, *[self.answer_weight] * len(further)]
                rows.append(turns_row([*turns, *further], weights, agent=name))
        return rows

    def _further(self, agent: Agent, episode: Episode, questions: Iterable[Sample]) -> list[Turn]:
        """Answer further questions that the results which the agent read tell."""
        texts = read_results(episode, agent.name)
        told = (sample for sample in questions if sample.id != episode.sample.id and shown(sample, texts))
        return [_answer_turn(agent, sample) for sample in islice(told, self.answers_per_drill - 1)]


def _balanced(samples: Sequence[Sample], count: int, rng: Random) -> list[Sample]:
    """Draw distinct samples, the tasks in turn: there are many more objects to ask about than videos to count in."""
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task, []).append(sample)
    piles = [rng.sample(pile, k=min(count, len(pile))) for pile in by_task.values()]
    turns = [sample for turn in zip_longest(*piles) for sample in turn if sample is not None]
    return turns[:count]


@dataclass(kw_only=True, slots=True, frozen=True)
class Schedule:
    """How long a base is trained: until its validation loss is flat, and no longer than a number of seconds."""

    seconds: float
    """Wall time, at most."""
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


class ColdStart:
    """Trains bases in full on lessons.

    Args:
        lessons: what the training rows are made of.
        questions: split to its questions, which may be more than reinforcement learning asks.
        drills: questions and runner of the reading drills; see data/drawn.py.
        optimizer: a module's named parameters to optimiser, for example ``partial(MuonAdamW, lr=1e-2)``; or one such
            function per base.
        schedule: how long a base is trained.
        validation_drills: episodes on validation videos; their answers are the validation score.
        interchangeable: words that can stand for each other, one list for each kind of thing: in every pass over the
            rows they change places, so that rows cannot be learnt by heart.
        seed: of the rows' order.
    """

    def __init__(
        self,
        lessons: Lessons,
        questions: Callable[[str], Sequence[Sample]],
        drills: tuple[Sequence[Sample], Tools],
        *,
        optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer]
        | Mapping[str, Callable[[Iterable[tuple[str, Tensor]]], Optimizer]],
        schedule: Schedule,
        validation_drills: int = 60,
        interchangeable: Sequence[Sequence[str]] = (),
        seed: int = 0,
    ) -> None:
        self.lessons = lessons
        self.questions = questions
        self.drills = drills
        self.optimizer = optimizer
        self.schedule = schedule
        self.validation_drills = validation_drills
        self.interchangeable = interchangeable
        self.seed = seed

    def rows(self, agents: Sequence[Agent], tools: Tools) -> tuple[list[SftRow], list[SftRow]]:
        """Make the rows to learn from and those to validate on, which are drills on real videos.

        Args:
            agents: the team to teach.
            tools: the real tools.
        """
        shown = replace(self.lessons, num_drills=0).rows(agents, self.questions("train"), tools)
        drilled = replace(self.lessons, num_demonstrations=0).rows(agents, *self.drills)
        held = replace(self.lessons, num_demonstrations=0, num_drills=self.validation_drills)
        return [*shown, *drilled], held.rows(agents, self.questions("val"), tools)

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
            base.name = str(directory / name)
            if this_rank() == 0:  # where there are ranks, transformers writes on this one only
                base.model.save_pretrained(partial_directory / name)
                base.tokenizer.save_pretrained(partial_directory / name)
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
        module = SftModule(
            base.model.requires_grad_(True).train(), optimizer=optimizer, seconds=seconds, cooldown=schedule.cooldown
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
            val_check_interval=timedelta(seconds=seconds / schedule.num_validations),
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


def _answer_turn(agent: Agent, sample: Sample) -> Turn:
    """Ask a question with nothing new to read, and answer it rightly."""
    text = agent.spelling.write_answer(sample.answer, sample)
    reply = [*agent.chat.encode(text), agent.chat.end_of_turn_id]
    return Turn(
        kind=TurnKind.ANSWER,
        round=0,
        prompt_ids=agent.chat.extend(agent.spelling.ask_answer(sample, (), ()), closed=True),
        reply_ids=reply,
        logprobs=[0.0] * len(reply),
        policy_version=0,
        seed=0,
        text=text,
    )
