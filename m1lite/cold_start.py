"""The cold start: bases of random weights learn the language of the world before any reinforcement learning.

Two kinds of rows, both episodes of the real loop (data/demonstrations.py). Demonstrations, on real videos, teach to
write plans, decisions and answers; their tools and arguments are random, so which call to make is left to learn.
Reading drills, on scenes that were never rendered (data/drawn.py), teach to copy an answer out of results: several
questions in a row about what one agent has read, and nothing but the answers in the loss. Every base is trained by one
rank; ranks share the bases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING

from typing_extensions import override

from m1lite.base_training import BaseTraining, Schedule
from m1lite.collaboration.loop import run
from m1lite.collaboration.topology import Topology
from m1lite.data.demonstrations import Demonstrator, read_results
from m1lite.data.evidence import shown
from m1lite.modules.ranks import gather_rows, num_ranks, this_rank
from m1lite.modules.sft import SftRow, turns_row
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
            balanced(samples, count, rng),
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


def balanced(samples: Sequence[Sample], count: int, rng: Random) -> list[Sample]:
    """Draw distinct samples, the tasks in turn: there are many more objects to ask about than videos to count in."""
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task, []).append(sample)
    piles = [rng.sample(pile, k=min(count, len(pile))) for pile in by_task.values()]
    turns = [sample for turn in zip_longest(*piles) for sample in turn if sample is not None]
    return turns[:count]


class ColdStart(BaseTraining):
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
        super().__init__(optimizer=optimizer, schedule=schedule, interchangeable=interchangeable, seed=seed)
        self.lessons = lessons
        self.questions = questions
        self.drills = drills
        self.validation_drills = validation_drills

    @override
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
