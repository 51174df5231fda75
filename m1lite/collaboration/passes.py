"""Several passes over one question: what an answer names as its clue is looked at more closely in the next pass.

Each pass is a talk of its own through loop.py; nothing but the clues goes from one to the next. Both are drop-ins for
``loop.run`` where one episode of a question is played, as in evaluation. Which frames a pass shows is first_look.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from m1lite.agents.first_look import Clues, ClueSegments, DenserClues
from m1lite.collaboration.loop import run
from m1lite.records import Answer, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.agents.native import NativeAgent
    from m1lite.agents.native_calls import Answers
    from m1lite.collaboration.scheduler import Tools
    from m1lite.engines.base import Sampler
    from m1lite.records import Episode, Sample
    from m1lite.video.budget import FrameBudget

_ASKED_FOR_CLUES = (Task.CHOICE, Task.COUNTING)
"""Tasks whose answers name no spans by themselves."""


@dataclass(kw_only=True, frozen=True)
class IterativePerception:
    """VideoChat-R1.5: the whole video again and again, at one budget, more densely inside the last clue.

    All passes but the last ask for the answer and the spans that show it; the last asks the question alone. Where no
    span can be read the next pass is uniform.

    Args:
        passes: at least 2.
        density: frames a second inside the clues over frames a second outside.
        max_clues: spans of an answer that are kept, the first ones.
        first: asks for and reads the answers of all passes but the last; None leaves that to the agents.
        last: likewise of the last pass.
        view: of every pass; None leaves it to the agents.

    Raises:
        ValueError: if there are fewer than 2 passes.

    References:
        VideoChat-R1.5, arXiv:2509.21100, and its released inference: density 1.5, three passes, thoughts of earlier
        passes not given back. There frames are counted, here time is measured.
    """

    passes: int = 3
    density: float = 1.5
    max_clues: int = 3
    first: Answers | None = None
    last: Answers | None = None
    view: FrameBudget | None = None

    def __post_init__(self) -> None:
        if self.passes < 2:
            raise ValueError(f"`passes` is {self.passes}; perception is iterated from 2 passes on.")

    def __call__(
        self, samples: Sequence[Sample], agents: Sequence[NativeAgent], sampler: Sampler, tools: Tools, **rules: Any
    ) -> list[Episode]:
        """Play all passes; arguments and return value are those of ``loop.run``, the episodes those of the last."""
        _check(agents, rules)
        team = [agent if self.view is None else replace(agent, view=self.view) for agent in agents]
        looking = team
        for _ in range(self.passes - 1):
            found = run(_asking_for_clues(samples), _told_by(looking, self.first), sampler, tools, **rules)
            clues = _clues(found, agents, most=self.max_clues)
            looking = [replace(agent, look=DenserClues(clues[agent.name], self.density)) for agent in team]
        return run(samples, _told_by(looking, self.last), sampler, tools, **rules)


@dataclass(kw_only=True, frozen=True)
class CluePerception:
    """VideoChat-R1's Clue-Perception: a coarse look at the whole, then a fine one at the clues alone, in two passes.

    Where no span can be read the second pass looks at the whole video.

    Args:
        fine: of the second pass; larger frames and more of them a second than the agents' own view. The paper does not
            print how much more.
        max_clues: spans of an answer that are kept, the first ones.

    References:
        VideoChat-R1, arXiv:2504.06958, algorithm 1.
    """

    fine: FrameBudget
    max_clues: int = 3

    def __call__(
        self, samples: Sequence[Sample], agents: Sequence[NativeAgent], sampler: Sampler, tools: Tools, **rules: Any
    ) -> list[Episode]:
        """Play both passes; arguments and return value are those of ``loop.run``, the episodes those of the second."""
        _check(agents, rules)
        found = run(_asking_for_clues(samples), agents, sampler, tools, **rules)
        clues = _clues(found, agents, most=self.max_clues)
        fine = [replace(agent, view=self.fine, look=ClueSegments(clues[agent.name])) for agent in agents]
        return run(samples, fine, sampler, tools, **rules)


def _told_by(agents: Sequence[NativeAgent], answers: Answers | None) -> list[NativeAgent]:
    return [agent if answers is None else replace(agent, answers=answers) for agent in agents]


def _asking_for_clues(samples: Sequence[Sample]) -> list[Sample]:
    """Turn questions whose answers name no spans into ones that ask for them too."""
    return [
        replace(sample, task=Task.GROUNDED_QA, answer=Answer()) if sample.task in _ASKED_FOR_CLUES else sample
        for sample in samples
    ]


def _clues(episodes: Sequence[Episode], agents: Sequence[NativeAgent], *, most: int) -> dict[str, Clues]:
    """Give agent name to sample id to the spans of its answer."""
    clues: dict[str, Clues] = {agent.name: {} for agent in agents}
    for episode in episodes:
        for name, trajectory in episode.trajectories.items():
            spans = () if trajectory.answer is None else trajectory.answer.spans[:most]
            clues[name][episode.sample.id] = [(span.start, span.end) for span in spans]
    return clues


def _check(agents: Sequence[NativeAgent], rules: dict[str, Any]) -> None:
    blind = [agent.name for agent in agents if not hasattr(agent, "look")]
    if blind:
        raise ValueError(f"{', '.join(blind)} cannot be shown frames; several passes are for agents that see.")
    if rules.get("episodes") != 1:
        raise ValueError(
            f"`episodes` is {rules.get('episodes')}; several passes go by the clues of one episode of each question."
        )
