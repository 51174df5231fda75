"""Scenes that were drawn but never rendered: tools see them through their scripts, for reading drills without video.

A few hundred videos hold few enough facts to be learnt by heart; here every drill is about a scene of its own, so only
reading helps. Never for training by reward or for evaluation, where tools look at pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from m1lite.data.questions import questions
from m1lite.data.scenes import SceneScript, SceneSpec, draw_scene
from m1lite.records import Sample, Task
from m1lite.toolbox.perception import Detection


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


def _visible(scene: SceneScript, second: float) -> list[Detection]:
    present = [event for event in scene.events if event.start <= second < event.end]
    return [
        Detection(object=event.object, box=event.box_at(second), lane=event.lane)
        for event in sorted(present, key=lambda event: event.left)
    ]
