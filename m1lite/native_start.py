"""The cold start of teams that see: frames are named, asked about, and looked for by calls, on scenes drawn for it.

Drills (data/seeing_drills.py) teach the tower and the words; demonstrations (data/native_demonstrations.py) teach to
call for a clip and to answer, through the real loop. How bases are trained stands in base_training.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING

from typing_extensions import override

from m1lite.base_training import BaseTraining, Schedule
from m1lite.cold_start import balanced
from m1lite.collaboration.loop import run
from m1lite.data.drawn import DrawnScenes
from m1lite.data.native_demonstrations import NativeDemonstrator, is_seen
from m1lite.data.seeing_drills import asked_frames, found_frames, found_things, named_frames, window_times
from m1lite.modules.ranks import gather_rows, num_ranks, this_rank
from m1lite.modules.sft import SftRow, turns_row
from m1lite.toolbox.base import Toolbox
from m1lite.video.cache import FrameCache

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from m1lite.agents.native import NativeAgent
    from m1lite.records import Sample, Turn
    from m1lite.video.budget import FrameBudget

_BATCH = 64
"""Samples whose episodes are played together."""


@dataclass(kw_only=True, slots=True, frozen=True)
class NativeLessons:
    """What is shown, and how much of it.

    Args:
        num_named: rows in which each of some frames is named.
        num_found: rows in which things are found among some frames.
        num_asked: rows in which questions about the same frames are answered, one after another.
        most_frames: that a drill shows; more than the agents' own budget make more of a video known.
        num_demonstrations: episodes of the loop.
        max_rounds: of the loop, as in training.
        max_calls: of each agent, as in training.
        max_seconds: longest clip that is called for.
        call_share: as in :class:`NativeDemonstrator`.
        think: whether the times at which things are found are written before a call or an answer.
        seed: of everything drawn.
    """

    num_named: int = 1500
    num_found: int = 3000
    num_asked: int = 2000
    most_frames: int = 24
    num_demonstrations: int = 2000
    max_rounds: int = 1
    max_calls: int = 1
    max_seconds: int = 12
    call_share: float | None = None
    think: bool = False
    seed: int = 0

    def rows(
        self, agents: Sequence[NativeAgent], samples: Sequence[Sample], scenes: DrawnScenes, tools: Toolbox
    ) -> list[SftRow]:
        """Make this rank's share of the rows and gather those of all ranks.

        Args:
            agents: the team to teach; its frames are those of the scenes.
            samples: of the scenes.
            scenes: tell what is to be seen.
            tools: the real tools, on the frames of the scenes.

        Returns:
            The same rows in the same order on every rank, whatever the number of ranks.

        Raises:
            ValueError: if there are no samples.
        """
        if not samples:
            raise ValueError("`samples` is empty; lessons are made of at least one question.")
        by_video: dict[str, list[Sample]] = {}
        for sample in samples:
            by_video.setdefault(sample.video, []).append(sample)
        pupils = [replace(agent, view=_holding(agent.view, self.most_frames)) for agent in agents]
        asked: Callable[..., SftRow] = partial(_asked, think=self.think)
        counts = {_named: self.num_named, _found: self.num_found, asked: self.num_asked}
        drills = [(drill, place) for drill, count in counts.items() for place in range(count)]
        videos = list(by_video)
        mine = []
        for place, (drill, number) in list(enumerate(drills))[this_rank() :: num_ranks()]:
            rng = Random(f"{place} {self.seed}")
            mine.append((place, drill(pupils[number % len(agents)], by_video[rng.choice(videos)], scenes, rng)))
        at_once = min(_BATCH, len(samples))  # the loop takes a sample once
        starts = range(0, self.num_demonstrations, at_once)
        for place in range(this_rank(), len(starts), num_ranks()):
            rng = Random(f"native lessons {self.seed} {place}")
            chosen = balanced(samples, min(at_once, self.num_demonstrations - starts[place]), rng)
            mine += [(len(drills) + place, row) for row in self._demonstrated(agents, chosen, scenes, tools, rng)]
        return [row for _, row in sorted(gather_rows(mine), key=itemgetter(0)) if any(row.weights)]

    def _demonstrated(
        self, agents: Sequence[NativeAgent], samples: Sequence[Sample], scenes: DrawnScenes, tools: Toolbox, rng: Random
    ) -> list[SftRow]:
        teacher = NativeDemonstrator(
            agents,
            scenes.telling_stretch,
            max_seconds=self.max_seconds,
            call_share=self.call_share,
            think=_thinking(agents[0], scenes) if self.think else None,
        )
        episodes = run(
            samples,
            teacher.players,
            teacher.sampler,
            tools,
            episodes=1,
            seed=rng.getrandbits(62),
            max_rounds=self.max_rounds,
            max_calls=self.max_calls,
        )
        return [
            _row(one.trajectory.agent, one.trajectory.turns, one.weights) for one in teacher.demonstrations(episodes)
        ]


def _holding(view: FrameBudget, count: int) -> FrameBudget:
    """Return a budget for so many frames, each as large as before."""
    most = max(view.most_frames, count)
    return replace(view, max_frames=most, total_pixels=view.total_pixels // view.most_frames * most)


def _some_times(agent: NativeAgent, duration: float, rng: Random) -> list[float]:
    """Draw frames to show, from few to as many as there may be: what few frames teach soon, more of them then need."""
    count = rng.randint(2, agent.view.most_frames)
    if rng.random() < 0.5:
        return window_times(duration, count, rng)
    return replace(agent.view, max_frames=count).times(0.0, duration)


def _named(agent: NativeAgent, samples: Sequence[Sample], scenes: DrawnScenes, rng: Random) -> SftRow:
    """Name frames of the video of these samples."""
    turns = named_frames(agent, scenes, samples[0].video, _some_times(agent, samples[0].duration, rng))
    return turns_row(turns, [1.0] * len(turns), agent=agent.name)


def _found(agent: NativeAgent, samples: Sequence[Sample], scenes: DrawnScenes, rng: Random) -> SftRow:
    """Find things among frames of the video of these samples; frames that show nothing are named."""
    times = _some_times(agent, samples[0].duration, rng)
    video = samples[0].video
    turns = found_frames(agent, scenes, video, times, rng) or named_frames(agent, scenes, video, times)
    return turns_row(turns, [1.0] * len(turns), agent=agent.name)


def _thinking(agent: NativeAgent, scenes: DrawnScenes) -> Callable[[Sample, Sequence[float]], str]:
    return partial(found_things, scenes, agent.chat.stamp)


def _asked(agent: NativeAgent, samples: Sequence[Sample], scenes: DrawnScenes, rng: Random, *, think: bool) -> SftRow:
    """Ask what a window of their video, with a frame a second, tells of these samples; perhaps it tells nothing."""
    duration = samples[0].duration
    times = window_times(duration, agent.view.most_frames, rng)
    told = [sample for sample in samples if is_seen(scenes.telling_stretch(sample), times, duration)]
    if not told:
        return _found(agent, samples, scenes, rng)
    thinking = _thinking(agent, scenes) if think else None
    turns = asked_frames(agent, rng.sample(told, k=len(told)), times, think=thinking)
    return _row(agent.name, turns, [1.0] * len(turns))


def _row(agent: str, turns: Sequence[Turn], weights: Sequence[float]) -> SftRow:
    """Make a row whose last reply is its answer."""
    row = turns_row(turns, weights, agent=agent)
    count = len(turns[-1].reply_ids)  # an answer ends its part, in a turn of any kind
    return replace(row, answer_mask=[False] * (len(row.input_ids) - count) + [weights[-1] > 0] * count)


class NativeStart(BaseTraining):
    """Trains bases that see on lessons.

    Args:
        lessons: what the rows are made of.
        scenes: what they are about.
        optimizer: as in :class:`BaseTraining`.
        schedule: as in :class:`BaseTraining`.
        validation_scenes: the last so many of the scenes are kept for validation: demonstrations on them.
        max_bytes: of the drawn frames that are kept.
        seed: of the rows' order.

    Raises:
        ValueError: unless scenes are left on both sides.
    """

    def __init__(
        self,
        lessons: NativeLessons,
        scenes: DrawnScenes,
        *,
        optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer]
        | Mapping[str, Callable[[Iterable[tuple[str, Tensor]]], Optimizer]],
        schedule: Schedule,
        validation_scenes: int = 30,
        max_bytes: int = 500_000_000,
        seed: int = 0,
    ) -> None:
        frames = FrameCache(max_bytes, max_open=10_000, opener=scenes.open)
        super().__init__(optimizer=optimizer, schedule=schedule, frames=frames, seed=seed)
        self.lessons = lessons
        self.scenes = scenes
        self.drawn_frames = frames
        videos = list(dict.fromkeys(sample.video for sample in scenes.samples))
        if not 0 < validation_scenes < len(videos):
            raise ValueError(
                f"`validation_scenes` is {validation_scenes}; it must be from 1 to below the {len(videos)} scenes."
            )
        self.held = set(videos[-validation_scenes:])

    @override
    def rows(self, agents: Sequence[NativeAgent], tools: Toolbox) -> tuple[list[SftRow], list[SftRow]]:
        """Make the rows to learn from and those to validate on, of other scenes.

        Args:
            agents: the team to teach.
            tools: the real tools.
        """
        pupils = [replace(agent, frames=self.drawn_frames) for agent in agents]
        drawn = Toolbox([tools[name] for name in tools.names], self.drawn_frames)
        train = [sample for sample in self.scenes.samples if sample.video not in self.held]
        held = [sample for sample in self.scenes.samples if sample.video in self.held]
        validation = replace(self.lessons, num_named=0, num_found=0, num_asked=0, num_demonstrations=len(held))
        return (
            self.lessons.rows(pupils, train, self.scenes, drawn),
            validation.rows(pupils, held, self.scenes, drawn),
        )
