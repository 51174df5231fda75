"""The synthetic world's scenes: draw a script of moving coloured shapes, and render it to pixels.

The script is the truth. Questions about it are in data/questions.py, files on disk in data/worlds.py; what the tools
see is decoded pixels only (toolbox/perception.py, whose colours and shapes are drawn here).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from m1lite.records import Box
from m1lite.toolbox.perception import COLOURS, LANES, OBJECTS, SHAPES, shape_mask

MAX_NUMBER = 64
"""Seconds and pixels stay within 0..64: every number of a question or answer is one word of a small vocabulary."""

MAX_BACKGROUND = 80
"""Brighter greys come too near to the colours, and perception of decoded frames is no longer exact."""

_MARGIN = 1  # pixels between an object and the rim of the picture
_DRAWS_PER_OBJECT = 200
_DRAWS_PER_SCENE = 200


@dataclass(kw_only=True, slots=True, frozen=True)
class SceneSpec:
    """The constants that make scenes easy or hard. Every count and length is drawn uniformly from its range."""

    min_seconds: int = 20
    """Shortest video in seconds. With 8 s clips it has 3 of them, so that a clip alone does not answer a question."""
    max_seconds: int = 60
    """Longest video in seconds; longer than any budget of 5 calls can look at closely."""
    frame_rates: tuple[int, ...] = (4, 5, 8)
    """Frames per second; whole numbers, so that an object appears and leaves exactly at a frame."""
    min_objects: int = 3
    """At least 2, so that some object has a successor."""
    max_objects: int = 7
    """The range from ``min_objects`` is what a blind guess has to hit in counting (1 of 5 by default)."""
    min_visible_seconds: int = 3
    """Shortest stay; at 1 frame per 2 s (the rough look) every object is still seen at least once."""
    max_visible_seconds: int = 12
    """Longest stay; one fine look (12 s) can cover it. The spread of stays keeps a constant guess of a span poor."""
    min_gap_seconds: int = 2
    """Least time between two starts, so that the rough look still tells their order."""
    object_sizes: tuple[int, ...] = (10, 12, 14, 16)
    """Sides of an object's box in pixels. Below 10 the shapes blur into each other after compression."""
    lane_jitter: int = 2
    """Pixels that an object may stand left or right of the middle of its lane."""
    size: int = MAX_NUMBER
    """Height and width of the picture in pixels."""
    shapes: tuple[str, ...] = SHAPES
    """Shapes of the objects, which come in every colour. One alone leaves the colours to be told apart."""
    background: int = 56
    """Grey level of the background: dim enough to be far from every colour, not so dark that compression
    smears the rims of the objects."""

    @property
    def objects(self) -> tuple[str, ...]:
        """What there can be, in the order of ``OBJECTS``."""
        return tuple(name for name in OBJECTS if name.split("-")[1] in self.shapes)

    def __post_init__(self) -> None:
        for name in ("frame_rates", "object_sizes", "shapes"):  # lists in a configuration
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_range("seconds", self.min_seconds, self.max_seconds, least=1, most=MAX_NUMBER)
        if not self.shapes or not set(self.shapes) <= set(SHAPES):
            raise ValueError(f"`shapes` must be some of {', '.join(SHAPES)}, got {self.shapes}.")
        _check_range("objects", self.min_objects, self.max_objects, least=2, most=len(self.objects))
        _check_range("visible_seconds", self.min_visible_seconds, self.max_visible_seconds, 2, self.min_seconds)
        if not self.frame_rates or min(self.frame_rates) < 1:
            raise ValueError(f"`frame_rates` must be whole numbers from 1, got {self.frame_rates}.")
        if self.min_gap_seconds < 1:
            raise ValueError(f"`min_gap_seconds` must be at least 1, got {self.min_gap_seconds}.")
        if not 16 <= self.size <= MAX_NUMBER or self.size % 2:
            raise ValueError(f"`size` must be even and from 16 to {MAX_NUMBER} pixels, got {self.size}.")
        if not 0 <= self.background <= MAX_BACKGROUND:
            raise ValueError(f"`background` must be from 0 to {MAX_BACKGROUND}, got {self.background}.")
        room = self.size // len(LANES) - 2 * (self.lane_jitter + _MARGIN) + 1
        if not self.object_sizes or min(self.object_sizes) < 6 or max(self.object_sizes) > room:
            raise ValueError(
                f"`object_sizes` must be from 6 to {room} pixels (a lane less `lane_jitter`), got {self.object_sizes}."
            )


@dataclass(kw_only=True, slots=True, frozen=True)
class Event:
    """One object's visit: it appears, moves along its lane at constant speed, and leaves."""

    object: str
    """One of ``OBJECTS``."""
    lane: str
    """One of ``LANES``."""
    start: int
    """Second at which it appears."""
    end: int
    """Second at which it is gone."""
    side: int
    """Height and width of its box in pixels."""
    left: int
    """Left column of its box in pixels."""
    first_top: int
    """Top row of its box at ``start``."""
    last_top: int
    """Top row that it would reach at ``end``."""

    def box_at(self, second: float) -> Box:
        """Give its box in whole pixels in a frame that starts at ``second``, which must be in ``[start, end)``."""
        if not self.start <= second < self.end:
            raise ValueError(f"`second` {second} is outside the visit [{self.start}, {self.end}) of {self.object!r}.")
        share = (second - self.start) / (self.end - self.start)
        top = round(self.first_top + share * (self.last_top - self.first_top))
        return Box(left=self.left, top=top, right=self.left + self.side, bottom=top + self.side)


@dataclass(kw_only=True, slots=True, frozen=True)
class SceneScript:
    """Everything that happens in one video."""

    duration: int
    """Seconds."""
    fps: int
    size: int
    """Height and width in pixels."""
    background: int
    """Grey level."""
    events: tuple[Event, ...]
    """In order of appearance."""
    objects: tuple[str, ...] = OBJECTS
    """What there could have been."""


def draw_scene(spec: SceneSpec, rng: random.Random) -> SceneScript:
    """Draw a scene that keeps all rules of the world.

    An object appears at most once; no two objects of one colour, and no two in one lane, are there at the same time.

    Args:
        spec: the constants.
        rng: where all chance comes from.

    Raises:
        ValueError: if the constants leave no room for the objects.
    """
    duration = rng.randint(spec.min_seconds, spec.max_seconds)
    num_objects = rng.randint(spec.min_objects, spec.max_objects)
    fps = rng.choice(spec.frame_rates)
    # The counts are drawn once and only the placing is repeated: dropping a full scene would make full scenes rarer.
    for _ in range(_DRAWS_PER_SCENE):
        events = _place(spec, rng, duration, num_objects)
        if events is not None:
            return SceneScript(
                duration=duration,
                fps=fps,
                size=spec.size,
                background=spec.background,
                events=events,
                objects=spec.objects,
            )
    raise ValueError(
        f"No room for {num_objects} objects in {duration} s (at least {spec.min_visible_seconds} s each, "
        f"{spec.min_gap_seconds} s between starts, {len(LANES)} lanes); lower `max_objects` or raise `min_seconds`."
    )


def _place(spec: SceneSpec, rng: random.Random, duration: int, num_objects: int) -> tuple[Event, ...] | None:
    """Draw the visits one by one; ``None`` where one finds no place."""
    events: list[Event] = []
    for _ in range(num_objects):
        for _ in range(_DRAWS_PER_OBJECT):
            event = _draw_event(spec, rng, duration)
            if all(_compatible(event, other, spec.min_gap_seconds) for other in events):
                events.append(event)
                break
        else:
            return None
    return tuple(sorted(events, key=lambda event: event.start))


def _draw_event(spec: SceneSpec, rng: random.Random, duration: int) -> Event:
    stay = rng.randint(spec.min_visible_seconds, spec.max_visible_seconds)
    start = rng.randint(0, duration - stay)
    lane = rng.randrange(len(LANES))
    side = rng.choice(spec.object_sizes)
    middle = (2 * lane + 1) * spec.size // (2 * len(LANES))
    travel = [_MARGIN, spec.size - side - _MARGIN]
    if rng.random() < 0.5:
        travel.reverse()
    return Event(
        object=rng.choice(spec.objects),
        lane=LANES[lane],
        start=start,
        end=start + stay,
        side=side,
        left=middle - side // 2 + rng.randint(-spec.lane_jitter, spec.lane_jitter),
        first_top=travel[0],
        last_top=travel[1],
    )


def _compatible(one: Event, other: Event, min_gap: int) -> bool:
    if one.object == other.object or abs(one.start - other.start) < min_gap:
        return False
    apart = one.end <= other.start or other.end <= one.start
    return apart or (one.lane != other.lane and _colour(one) != _colour(other))


def _colour(event: Event) -> str:
    return event.object.split("-")[0]


def render(scene: SceneScript, indices: Sequence[int] | None = None) -> Tensor:
    """Draw frames of a scene.

    Args:
        scene: what is to be seen.
        indices: of the frames, from 0; None draws all of them.

    Returns:
        uint8 ``(N, 3, size, size)``, RGB, in the order of ``indices``.
    """
    wanted = range(scene.duration * scene.fps) if indices is None else indices
    frames = np.full((len(wanted), scene.size, scene.size, 3), scene.background, dtype=np.uint8)
    for event in scene.events:
        colour, shape = event.object.split("-")
        mask = shape_mask(shape, event.side, event.side)
        for place, index in enumerate(wanted):
            if not event.start * scene.fps <= index < event.end * scene.fps:
                continue
            box = event.box_at(index / scene.fps)
            patch = frames[place, int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
            patch[mask] = COLOURS[colour]
    return torch.from_numpy(frames).permute(0, 3, 1, 2)  # (N, H, W, 3) -> (N, 3, H, W)


def _check_range(name: str, low: int, high: int, least: int, most: int) -> None:
    if not least <= low <= high <= most:
        raise ValueError(
            f"`min_{name}` and `max_{name}` must be ascending and from {least} to {most}, got {low} and {high}."
        )
