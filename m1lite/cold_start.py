"""The cold start: bases of random weights learn the language of the world before any reinforcement learning.

Two kinds of rows, both real episodes with real tool results (data/demonstrations.py). Demonstrations teach to write
plans, decisions and answers; their tools and arguments are random, so which call to make is left to learn. Reading
drills teach to copy an answer out of results: several questions in a row about what one agent has read, and nothing but
the answers in the loss. Every base is trained by one rank; ranks share the bases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import SingleDeviceStrategy

from m1lite.collaboration.loop import RunTools, run
from m1lite.collaboration.topology import Topology
from m1lite.data.demonstrations import Demonstration, Demonstrator, read_results
from m1lite.data.evidence import shown
from m1lite.modules.bases import Base
from m1lite.modules.ranks import barrier, broadcast_weights, gather_rows, num_ranks, this_rank
from m1lite.modules.sft import SftLoader, SftModule
from m1lite.records import Sample, Turn, TurnKind

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from m1lite.agents.agent import Agent
    from m1lite.records import Episode

_BATCH = 64
"""Samples whose episodes are played together."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Row:
    """One token sequence to learn from, as ``SftLoader`` takes it."""

    agent: str
    input_ids: list[int]
    weights: list[float]
    answer_mask: list[bool]


@dataclass(kw_only=True, slots=True, frozen=True)
class Lessons:
    """What the cold start plays, and how rows are made of it.

    Args:
        topology: who reads whom; the same law as in training.
        num_demonstrations: episodes with random calls.
        num_drills: episodes whose calls tell the answer.
        answers_per_drill: questions about the same video that a drill answers one after the other.
        answer_weight: of an answer's tokens in the loss; plans and decisions have 1.
        seed: of everything drawn.
    """

    topology: Topology
    num_demonstrations: int = 1000
    num_drills: int = 3000
    answers_per_drill: int = 6
    answer_weight: float = 1.0
    seed: int = 0

    def rows(self, agents: Sequence[Agent], samples: Sequence[Sample], run_tools: RunTools) -> list[Row]:
        """Play this rank's share of the episodes and gather the rows of all ranks.

        Args:
            agents: the team to teach.
            samples: of the synthetic world; all questions about a video that a drill may ask.
            run_tools: the real tools.

        Returns:
            The same rows in the same order on every rank.
        """
        play = partial(self._play, agents=agents, samples=samples, run_tools=run_tools)
        mine = [*play(self.num_demonstrations, drills=False), *play(self.num_drills, drills=True)]
        return gather_rows(mine)

    def _play(
        self, count: int, *, agents: Sequence[Agent], samples: Sequence[Sample], run_tools: RunTools, drills: bool
    ) -> list[Row]:
        rng = Random(f"lessons {self.seed} {drills} {this_rank()}")
        by_name = {agent.name: agent for agent in agents}
        by_video: dict[str, list[Sample]] = {}
        for sample in samples:
            by_video.setdefault(sample.video, []).append(sample)
        rows: list[Row] = []
        for start in range(this_rank() * _BATCH, count, num_ranks() * _BATCH):
            teacher = Demonstrator(agents, answer_weight=self.answer_weight, drills=drills)
            chosen = rng.sample(samples, k=min(_BATCH, count - start, len(samples)))
            episodes = run(
                chosen,
                teacher.players,
                teacher.generate,
                run_tools,
                episodes=1,
                seed=rng.getrandbits(62),
                topology=self.topology,
            )
            for episode in episodes:
                for demonstration in teacher.demonstrations([episode]):
                    agent = by_name[demonstration.trajectory.agent]
                    if drills:
                        others = by_video[episode.sample.video]
                        self._ask_on(demonstration, agent, episode, rng.sample(others, k=len(others)))
                    rows.append(_row(demonstration))
        return rows

    def _ask_on(
        self, demonstration: Demonstration, agent: Agent, episode: Episode, questions: Sequence[Sample]
    ) -> None:
        """Let the agent answer further questions that the results it read tell."""
        texts = read_results(episode, agent.name)
        left = self.answers_per_drill - 1
        for sample in questions:
            if left <= 0:
                break
            if sample.id == episode.sample.id or not shown(sample, texts):
                continue
            prompt = agent.chat.extend(agent.spelling.ask_answer(sample, (), ()), closed=True)
            answer = agent.spelling.write_answer(sample.answer, sample.task)
            reply = [*agent.chat.encode(answer), agent.chat.end_of_turn_id]
            demonstration.trajectory.turns.append(_answer_turn(prompt, reply, answer))
            demonstration.weights.append(self.answer_weight)
            left -= 1


class ColdStart:
    """Trains bases in full on lessons.

    Args:
        lessons: what the training rows are made of.
        questions: split to its questions, which may be more than reinforcement learning asks.
        optimizer: a module's named parameters to optimiser, for example ``partial(MuonAdamW, lr=1e-2)``; or one such
            function per base.
        seconds: wall time for each base.
        batch_size: rows of an optimiser step.
        validation_drills: episodes on validation videos; their answers are the validation score.
        num_validations: how often the validation rows are scored, evenly over the time.
        seed: of the rows' order.
    """

    def __init__(
        self,
        lessons: Lessons,
        questions: Callable[[str], Sequence[Sample]],
        *,
        optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer]
        | Mapping[str, Callable[[Iterable[tuple[str, Tensor]]], Optimizer]],
        seconds: float,
        batch_size: int = 32,
        validation_drills: int = 60,
        num_validations: int = 5,
        seed: int = 0,
    ) -> None:
        self.lessons = lessons
        self.questions = questions
        self.optimizer = optimizer
        self.seconds = seconds
        self.batch_size = batch_size
        self.validation_drills = validation_drills
        self.num_validations = num_validations
        self.seed = seed

    def train(
        self,
        bases: Mapping[str, Base],
        members: Mapping[str, str],
        rows: Sequence[Row],
        validation: Sequence[Row],
        directory: Path,
        *,
        seconds: float | None = None,
        logger: Any = False,
        show_progress: bool = False,
    ) -> dict[str, list[dict[str, float]]]:
        """Train this rank's bases, then load those of the others.

        Args:
            bases: base name to base; trained in place and renamed to where they are saved.
            members: agent name to base name.
            rows: of all agents; a base learns from those of its own agents.
            validation: likewise.
            directory: the bases are saved under it, one folder each.
            seconds: wall time for each base; None takes the cold start's own.
            logger: Lightning's logger, or False.
            show_progress: show a progress bar.

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
                seconds=seconds or self.seconds,
                logger=logger,
                show_progress=show_progress,
            )
        for index, (name, base) in enumerate(bases.items()):
            broadcast_weights(base.model, source=index % num_ranks())
            base.name = str(directory / name)
            if this_rank() == 0:  # where there are ranks, transformers writes on this one only
                base.model.save_pretrained(base.name)
                base.tokenizer.save_pretrained(base.name)
        barrier()
        return dict(gather_rows(list(curves.items())))

    def _train_base(
        self,
        base: Base,
        optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer],
        rows: Sequence[Row],
        validation: Sequence[Row],
        *,
        seconds: float,
        logger: Any,
        show_progress: bool,
    ) -> list[dict[str, float]]:
        pad_id = base.tokenizer.pad_token_id
        curve = _Curve()
        module = SftModule(base.model.requires_grad_(True).train(), optimizer=optimizer, seconds=seconds)
        trainer = pl.Trainer(
            strategy=SingleDeviceStrategy(device=str(base.model.device)),
            max_epochs=-1,
            callbacks=[curve],
            logger=logger,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=show_progress,
            num_sanity_val_steps=0,
            val_check_interval=timedelta(seconds=seconds / self.num_validations),
            check_val_every_n_epoch=None,
            log_every_n_steps=20,
        )
        trainer.fit(
            module,
            SftLoader(rows, self.batch_size, pad_id=pad_id, seed=self.seed),
            SftLoader(validation, 64, pad_id=pad_id, shuffle=False),
        )
        base.model.requires_grad_(False).eval()
        return curve.points


class _Curve(pl.Callback):
    """Keeps the validation scores in order of time."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Read the scores that were just logged."""
        scores = {name: float(trainer.callback_metrics[name]) for name in ("sft/val_loss", "sft/val_exact")}
        self.points.append({"seconds": pl_module.elapsed_seconds, "step": float(trainer.global_step), **scores})


def _row(demonstration: Demonstration) -> Row:
    ids: list[int] = []
    weights: list[float] = []
    answers: list[bool] = []
    for turn, weight in zip(demonstration.trajectory.turns, demonstration.weights, strict=True):
        read, wrote = len(turn.prompt_ids), len(turn.reply_ids)
        ids += [*turn.prompt_ids, *turn.reply_ids]
        weights += [0.0] * read + [weight] * wrote
        answers += [False] * read + [turn.kind is TurnKind.ANSWER and weight > 0] * wrote
    return Row(agent=demonstration.trajectory.agent, input_ids=ids, weights=weights, answer_mask=answers)


def _answer_turn(prompt: list[int], reply: list[int], text: str) -> Turn:
    return Turn(
        kind=TurnKind.ANSWER,
        round=0,
        prompt_ids=prompt,
        reply_ids=reply,
        logprobs=[0.0] * len(reply),
        policy_version=0,
        seed=0,
        text=text,
    )
