"""Scenes that were drawn but lie on no disk: drills for teams that read and for teams that see.

Tools see them through their scripts; policies are shown frames that are rendered when they are asked for.
A few hundred videos hold few enough facts to be learnt by heart; here every drill is about a scene of its own, so only
reading and looking help. Never for training by reward or for evaluation, where videos are decoded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from m1lite.data.questions import questions, telling_stretch
from m1lite.data.scenes import SceneScript, SceneSpec, draw_scene, render
from m1lite.records import Sample, Span, Task
from m1lite.toolbox.perception import Detection
from m1lite.video.base import Size, VideoMetadata
from m1lite.video.policy import VideoPolicy
from m1lite.video.reader import VideoReader, resized


class DrawnScenes:
    """Scenes with all their questions, and the look that tools see them by.

    Args:
        spec: what makes the scenes easy or hard.
        tasks: what is asked.
        num_scenes: how many are drawn, at least 1.
        seed: of the scenes; they differ from those of every world.

    Raises:
        ValueError: if ``num_scenes`` is below 1.

    Example:
        >>> scenes = DrawnScenes(SceneSpec(), [Task.COUNTING], num_scenes=1)
        >>> counting, = scenes.samples
        >>> frames = scenes.look(counting.video, range(int(counting.duration)))
        >>> len({seen.object for frame in frames for seen in frame}) == counting.answer.number
        True
    """

    def __init__(self, spec: SceneSpec, tasks: Sequence[Task], *, num_scenes: int, seed: int = 0) -> None:
        if num_scenes < 1:
            raise ValueError(f"`num_scenes` is {num_scenes}; drills need at least 1.")
        asked = [Task(task) for task in tasks]
        self._scripts: dict[str, SceneScript] = {}
        self.samples: list[Sample] = []
        """Every question that the scenes allow, one per task and object."""
        for index in range(num_scenes):
            rng = random.Random(f"drawn {seed} {index}")
            uri = f"drawn-{index:06d}"
            self._scripts[uri] = draw_scene(spec, rng)
            self.samples += questions(self._scripts[uri], uri, rng, asked, per_task=spec.max_objects)

    def look(self, video: str, seconds: Sequence[float]) -> list[list[Detection]]:
        """See what a perfect eye would see in the frames that are shown at some seconds, left to right."""
        scene = self._scripts[video]
        return [_visible(scene, math.floor(second * scene.fps) / scene.fps) for second in seconds]

    def open(self, video: str) -> VideoReader:
        """Open a scene as a video, as ``FrameCache`` does with its ``opener``; raises KeyError for any other video."""
        scene = self._scripts[video]
        return VideoReader(video, lambda: _Rendering(scene), policy=VideoPolicy())

    def telling_stretch(self, sample: Sample) -> Span:
        """Find the part of its scene that tells a sample's answer; see data/questions.py."""
        return telling_stretch(self._scripts[sample.video], sample)


class _Rendering:
    """A scene as a decoder: nothing is decoded, frames are drawn."""

    def __init__(self, scene: SceneScript) -> None:
        self.scene = scene
        count = scene.duration * scene.fps
        self.metadata = VideoMetadata(
            duration=scene.duration, fps=scene.fps, num_frames=count, height=scene.size, width=scene.size
        )

    def frames_at(self, seconds: list[float], size: Size | None) -> tuple[Tensor, list[float]]:
        """Draw the frame shown at each second."""
        indices = [math.floor(second * self.scene.fps) for second in seconds]
        return resized(render(self.scene, indices), size), [index / self.scene.fps for index in indices]

    def frame_starts(self) -> NDArray[np.float64]:
        """Give the second at which each frame starts."""
        return np.arange(self.metadata.num_frames) / self.scene.fps

    def key_starts(self) -> NDArray[np.float64]:
        """Give the same: every frame stands for itself."""
        return self.frame_starts()

    def key_frames_at(self, seconds: list[float], size: Size | None) -> tuple[Tensor, list[float]]:
        """Draw frames that start at these seconds."""
        return self.frames_at(seconds, size)


def _visible(scene: SceneScript, second: float) -> list[Detection]:
    present = [event for event in scene.events if event.start <= second < event.end]
    return [
        Detection(object=event.object, box=event.box_at(second), lane=event.lane)
        for event in sorted(present, key=lambda event: event.left)
    ]
