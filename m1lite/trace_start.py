"""The cold start on written replies: supervised training of a base on traces that people or models have written.

What traces are stands in data/traces.py, how bases are trained in base_training.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from m1lite.base_training import BaseTraining, Schedule
from m1lite.collaboration.loop import run
from m1lite.data.readers.jsonl import DataError
from m1lite.data.traces import TraceTeacher
from m1lite.modules.sft import SftRow, turns_row

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from m1lite.agents.native import NativeAgent
    from m1lite.records import Sample
    from m1lite.toolbox.base import Toolbox
    from m1lite.video.cache import FrameCache


class TraceStart(BaseTraining):
    """Trains bases that see on traces.

    Args:
        read: gives the demonstrated questions and the replies to them; a partial of ``data.traces.read_traces``.
        optimizer: as in :class:`BaseTraining`.
        schedule: as in :class:`BaseTraining`.
        frames: decodes what the rows show.
        max_rounds: of the loop, as in training.
        max_calls: of each agent, as in training.
        validation_traces: the last so many are kept for validation.
        seed: of the rows' order.
    """

    def __init__(
        self,
        read: Callable[[], tuple[list[Sample], dict[str, list[str]]]],
        *,
        optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer]
        | Mapping[str, Callable[[Iterable[tuple[str, Tensor]]], Optimizer]],
        schedule: Schedule,
        frames: FrameCache,
        max_rounds: int,
        max_calls: int,
        validation_traces: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule, frames=frames, seed=seed)
        self.read = read
        self.max_rounds = max_rounds
        self.max_calls = max_calls
        self.validation_traces = validation_traces

    @override
    def rows(self, agents: Sequence[NativeAgent], tools: Toolbox) -> tuple[list[SftRow], list[SftRow]]:
        """Play the traces and make rows of those that could be said as written.

        Args:
            agents: the team to teach.
            tools: the real tools.

        Raises:
            DataError: if too few are left; says how many could not be said.
        """
        samples, replies = self.read()
        teacher = TraceTeacher(agents, replies)
        episodes = run(
            samples,
            teacher.players,
            teacher.sampler,
            tools,
            episodes=1,
            seed=self.seed,
            max_rounds=self.max_rounds,
            max_calls=self.max_calls,
        )
        found = teacher.demonstrations(episodes)
        rows = [turns_row(one.trajectory.turns, one.weights, agent=one.trajectory.agent) for one in found]
        train, held = rows[: -self.validation_traces], rows[-self.validation_traces :]
        if len(train) < self.schedule.batch_size:
            raise DataError(
                f"{len(rows)} of {len(samples) * len(agents)} traces can be said as written: readable replies, calls "
                f"that run, within `max_context`. {self.validation_traces} are kept for validation, and a batch needs "
                f"{self.schedule.batch_size} more."
            )
        return train, held
