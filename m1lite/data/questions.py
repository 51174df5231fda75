"""Questions with exact answers about a scene of the synthetic world, one function per task."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from m1lite.data.scenes import Event, SceneScript
from m1lite.records import Answer, Sample, Span, Task

NUM_OPTIONS = 4
"""Options of a choice question; a blind guess is right once in four."""
NUM_TIMES = 2
"""Times asked of a tracking question."""

FIRST_WORDS: Mapping[Task, str] = {
    Task.GROUNDING: "when",
    Task.CHOICE: "next",
    Task.COUNTING: "count",
    Task.GROUNDED_QA: "where",
    Task.TRACKING: "track",
    Task.CAPTION: "list",
}
"""The word that begins a task's questions and tells the task."""

_LENGTHS = ((30, "short"), (45, "medium"))


def questions(
    scene: SceneScript, uri: str | Path, rng: random.Random, tasks: Sequence[Task], *, per_task: int = 1
) -> list[Sample]:
    """Ask about a scene.

    Args:
        scene: what happens in the video.
        uri: the video's file; its name without the ending begins the samples' ids.
        rng: chooses the objects, the options and the times.
        tasks: what to ask for.
        per_task: how many questions per task, each about another object (fewer where the scene has fewer objects;
            counting and caption are about the whole video and asked once).

    Returns:
        At least one sample per task, in the order of ``tasks``.

    Raises:
        ValueError: if ``per_task`` is below 1.
    """
    if per_task < 1:
        raise ValueError(f"`per_task` must be at least 1, got {per_task}.")
    samples = []
    for task in tasks:
        subjects = _subjects(scene, task)
        for number, event in enumerate(rng.sample(subjects, k=min(per_task, len(subjects)))):
            sample = _WRITERS[task](scene, event, rng)
            sample.id = f"{Path(uri).stem}-{task.value}-{number}"
            sample.video = str(uri)
            samples.append(sample)
    return samples


def telling_stretch(scene: SceneScript, sample: Sample) -> Span:
    """Find the part of a video that tells a question's answer.

    Args:
        scene: what happens in it.
        sample: a question of :func:`questions` about it.

    Returns:
        The visit that is asked about; for a choice up to where the next one has begun, for tracking the times asked
        about, for counting and captions the whole video.
    """
    if sample.task in (Task.COUNTING, Task.CAPTION):
        return Span(start=0.0, end=scene.duration)
    if sample.task is Task.TRACKING:
        return Span(start=min(sample.times), end=max(sample.times) + 1)
    about = sample.question.split()[-1]
    place = next(place for place, event in enumerate(scene.events) if event.object == about)
    event = scene.events[place]
    if sample.task is Task.CHOICE:
        return Span(start=event.start, end=scene.events[place + 1].start + 1)
    return Span(start=event.start, end=event.end)


def _subjects(scene: SceneScript, task: Task) -> Sequence[Event]:
    """List the visits that a task may ask about."""
    if task is Task.CHOICE:
        return scene.events[:-1]  # the last one has no successor
    if task in (Task.COUNTING, Task.CAPTION):
        return scene.events[:1]  # about no object: one question
    return scene.events


def _sample(scene: SceneScript, task: Task, subject: str, answer: Answer) -> Sample:
    length = next((name for limit, name in _LENGTHS if scene.duration < limit), "long")
    tags = {"source": "world", "length": length, "objects": str(len(scene.events))}
    question = f"{FIRST_WORDS[task]} {subject}"
    return Sample(id="", video="", duration=scene.duration, task=task, question=question, answer=answer, tags=tags)


def _span(event: Event) -> tuple[Span, ...]:
    return (Span(start=event.start, end=event.end),)


def _grounding(scene: SceneScript, event: Event, rng: random.Random) -> Sample:
    return _sample(scene, Task.GROUNDING, event.object, Answer(spans=_span(event)))


def _grounded_qa(scene: SceneScript, event: Event, rng: random.Random) -> Sample:
    return _sample(scene, Task.GROUNDED_QA, event.object, Answer(text=event.lane, spans=_span(event)))


def _choice(scene: SceneScript, event: Event, rng: random.Random) -> Sample:
    right = scene.events[scene.events.index(event) + 1].object
    present = [other.object for other in scene.events if other.object not in (event.object, right)]
    absent = sorted(set(scene.objects) - {right, event.object} - set(present))
    # Objects of the same video come first: with absent ones alone, seeing the video at all would give the answer away.
    strangers = rng.sample(absent, k=min(NUM_OPTIONS, len(absent)))
    wrong = [*rng.sample(present, k=len(present)), *strangers][: NUM_OPTIONS - 1]
    options = [right, *wrong]
    rng.shuffle(options)
    sample = _sample(scene, Task.CHOICE, event.object, Answer(text=right))
    sample.options = tuple(options)
    return sample


def _counting(scene: SceneScript, event: Event, rng: random.Random) -> Sample:
    return _sample(scene, Task.COUNTING, "objects", Answer(number=len(scene.events)))


def _tracking(scene: SceneScript, event: Event, rng: random.Random) -> Sample:
    times = sorted(rng.sample(range(event.start, event.end), k=NUM_TIMES))
    boxes = tuple(event.box_at(second) for second in times)
    sample = _sample(scene, Task.TRACKING, event.object, Answer(boxes=boxes))
    sample.times = tuple(float(second) for second in times)
    return sample


def _caption(scene: SceneScript, event: Event, rng: random.Random) -> Sample:
    events = tuple(visit.object for visit in scene.events)
    return _sample(scene, Task.CAPTION, "objects", Answer(events=events))


_WRITERS: Mapping[Task, Callable[[SceneScript, Event, random.Random], Sample]] = {
    Task.GROUNDING: _grounding,
    Task.CHOICE: _choice,
    Task.COUNTING: _counting,
    Task.GROUNDED_QA: _grounded_qa,
    Task.TRACKING: _tracking,
    Task.CAPTION: _caption,
}
