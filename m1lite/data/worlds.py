"""The synthetic video world on disk: scenes rendered to video files once, cached by content, with samples per split.

Scenes are drawn in data/scenes.py and asked about in data/questions.py; this file decides which scene is which video,
and makes the files that are not there yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from m1lite.data.questions import questions, telling_stretch
from m1lite.data.scenes import Event, SceneScript, SceneSpec, draw_scene, render
from m1lite.records import Sample, Span, Task
from m1lite.toolbox.perception import COLOURS, SHAPES
from m1lite.video.writer import write_video

__all__ = [
    "Event",
    "SceneScript",
    "SceneSpec",
    "World",
    "WorldSpec",
    "build_world",
    "draw_scene",
    "questions",
    "render",
]

CODE_VERSION = 1
"""Raise it when the same spec would give other pixels, so that cached videos are made anew."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
MARKER = "world.json"


@dataclass(kw_only=True, slots=True, frozen=True)
class WorldSpec:
    """A whole world: which scenes, how many, and what is asked."""

    seed: int = 0
    num_train: int = 200
    """Videos for training."""
    num_val: int = 60
    """Videos for choosing."""
    num_test: int = 240
    """Held-out videos."""
    train_per_task: int = 4
    """Questions per task and training video; validation and test ask one, so that questions weigh as much as videos."""
    tasks: tuple[Task, ...] = (Task.GROUNDING, Task.CHOICE, Task.COUNTING, Task.GROUNDED_QA)
    scenes: SceneSpec = field(default_factory=SceneSpec)
    """What makes the scenes easy or hard."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "tasks", tuple(Task(task) for task in self.tasks))  # names in a configuration
        except ValueError as error:
            raise ValueError(f"`tasks` holds an unknown name ({error}); use {', '.join(Task)}.") from None
        for split in SPLITS:
            if self.count(split) < 0:
                raise ValueError(f"`num_{split}` must be at least 0, got {self.count(split)}.")
        if self.train_per_task < 1:
            raise ValueError(f"`train_per_task` must be at least 1, got {self.train_per_task}.")
        unknown = [str(task) for task in self.tasks if task not in list(Task)]
        if unknown:
            raise ValueError(f"`tasks` holds {unknown}, which do not exist; there are {' '.join(Task)}.")
        object.__setattr__(self, "tasks", tuple(map(Task, self.tasks)))  # a configuration gives names
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"`tasks` must be distinct and at least one, got {[str(task) for task in self.tasks]}.")

    def count(self, split: Split) -> int:
        """Give the number of videos in a split."""
        return {"train": self.num_train, "val": self.num_val, "test": self.num_test}[split]

    def scene(self, split: Split, index: int) -> SceneScript:
        """Draw a video's scene, which depends on the seed, the split and the index but not on the number of videos."""
        return draw_scene(self.scenes, random.Random(f"scene {self.seed} {split} {index}"))

    def key(self) -> str:
        """Hash what decides the pixels (not the counts and not the questions)."""
        content = {
            "version": CODE_VERSION,
            "seed": self.seed,
            "scenes": asdict(self.scenes),
            "colours": COLOURS,
            "shapes": SHAPES,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(kw_only=True, slots=True, frozen=True)
class World:
    """A world whose videos are on disk; make it with ``build_world``."""

    spec: WorldSpec
    folder: Path

    def video(self, split: Split, index: int) -> Path:
        """Name a video's file."""
        return self.folder / f"{split}-{index:05d}.mp4"

    def split(self, name: Split) -> list[Sample]:
        """Make the samples of a split, the same ones at every call.

        Raises:
            ValueError: if there is no such split.
        """
        if name not in SPLITS:
            raise ValueError(f"`name` {name!r} is no split; use one of {', '.join(SPLITS)}.")
        per_task = self.spec.train_per_task if name == "train" else 1
        samples = []
        for index in range(self.spec.count(name)):
            rng = random.Random(f"questions {self.spec.seed} {name} {index}")
            scene = self.spec.scene(name, index)
            samples += questions(scene, self.video(name, index), rng, self.spec.tasks, per_task=per_task)
        return samples

    def every_question(self, name: Split) -> list[Sample]:
        """Make all questions that the videos of a split allow: one per task and object."""
        samples = []
        for index in range(self.spec.count(name)):
            rng = random.Random(f"every question {self.spec.seed} {name} {index}")
            scene, video = self.spec.scene(name, index), self.video(name, index)
            samples += questions(scene, video, rng, self.spec.tasks, per_task=self.spec.scenes.max_objects)
        return samples

    def telling_stretch(self, sample: Sample) -> Span:
        """Find the part of its video that tells a sample's answer, by the scene's script; see data/questions.py.

        Raises:
            ValueError: if the sample's video is none of this world.
        """
        name, _, index = Path(sample.video).stem.partition("-")
        if Path(sample.video).parent != self.folder or name not in SPLITS or not index.isdigit():
            raise ValueError(f"{sample.video!r} is no video of the world in {self.folder}.")
        return telling_stretch(self.spec.scene(name, int(index)), sample)


def build_world(
    spec: WorldSpec,
    root: str | Path,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> World:
    """Make the videos that are missing under ``root`` and give the world.

    The folder's name is a hash of what decides the pixels, so a changed spec never meets old videos. Videos are renamed
    into place one by one: an interrupted build goes on where it stopped, and several processes may build the same world
    at once. Threads suffice, because encoding releases the interpreter lock; they start at once and are safe in a
    process that has loaded torch, which forking is not.

    Args:
        spec: the world.
        root: folder for all worlds; made if missing.
        workers: threads; ``None`` takes one per available core.
        on_progress: called with (videos ready, videos in all), first before any video is made.

    Raises:
        ValueError: if ``workers`` is below 1 or the scenes' constants leave no room.
        VideoError: if a video cannot be written.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1, got {workers}.")
    world = World(spec=spec, folder=Path(root).absolute() / f"world-{spec.key()}")
    world.folder.mkdir(parents=True, exist_ok=True)
    wanted = [(split, index) for split in SPLITS for index in range(spec.count(split))]
    missing = [video for video in wanted if not world.video(*video).exists()]
    ready, report = len(wanted) - len(missing), on_progress or (lambda ready, total: None)
    report(ready, len(wanted))
    # Processes that build the same world at once begin at different places, so that they share most of the work.
    random.Random(os.getpid()).shuffle(missing)
    with ThreadPoolExecutor(workers, thread_name_prefix="world") as pool:
        for _ in pool.map(lambda video: _make_video(world, *video), missing):
            ready += 1
            report(ready, len(wanted))
    _mark(world)
    return world


def _make_video(world: World, split: Split, index: int) -> None:
    path = world.video(split, index)
    if path.exists():  # another process was faster
        return
    scene = world.spec.scene(split, index)
    write_video(path, render(scene), fps=scene.fps)


def _mark(world: World) -> None:
    """Tell what the folder holds, once it holds all of it."""
    temporary = world.folder / f".{MARKER}.{uuid.uuid4().hex}"
    temporary.write_text(json.dumps({"version": CODE_VERSION, **asdict(world.spec)}, indent=2) + "\n")
    os.replace(temporary, world.folder / MARKER)
