"""Whether the texts of tool results show the answer of a question of the synthetic world.

Reads the wording of the classical tools and the truth; for the cold start's teacher and for oracles, never for agents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from m1lite.records import Task
from m1lite.toolbox.wording import number

if TYPE_CHECKING:
    from m1lite.records import Sample


def shown(sample: Sample, texts: Sequence[str]) -> bool:
    """Say whether the right answer can be read off the results.

    Args:
        sample: with its truth.
        texts: of the results of calls on the sample's video.

    Example:
        >>> from m1lite.records import Answer, Sample, Span, Task
        >>> truth = Answer(spans=(Span(start=9, end=15),))
        >>> when = Sample(id="", video="", duration=47, task=Task.GROUNDING, question="when red-square", answer=truth)
        >>> shown(when, ["red-square clip 8 16"]), shown(when, ["none", "red-square 9 15"])
        (False, True)
    """
    return _READERS[sample.task](sample, texts)


def subject(sample: Sample) -> str:
    """Return what the question is about: an object, or `objects`."""
    return sample.question.split()[-1]


def _grounding(sample: Sample, texts: Sequence[str]) -> bool:
    """Some result gives the subject's span: `red-square 9 15`, alone or in a list."""
    span = sample.answer.spans[0]
    phrase = f" {subject(sample)} {number(span.start)} {number(span.end)} "
    return any(phrase in f" {text} " for text in texts)


def _grounded_qa(sample: Sample, texts: Sequence[str]) -> bool:
    """The span and, in this or another result, the lane: `red-square left`."""
    lane = f"{subject(sample)} {sample.answer.text} "
    return _grounding(sample, texts) and any(f"{text} ".startswith(lane) for text in texts)


def _choice(sample: Sample, texts: Sequence[str]) -> bool:
    """The right option follows the subject in a list by first sight."""
    pair = (subject(sample), sample.answer.text or "")
    return any(pair in pairwise(_in_order(text.split())) for text in texts)


def _in_order(words: Sequence[str]) -> Sequence[str]:
    """Return the objects that a result lists by first sight: of `seen 2 A B` or of `A 9 15 B 12 20`."""
    if words[:1] == ["seen"]:
        return words[2:]
    spans = len(words) % 3 == 0 and all(word.isdigit() for word in (*words[1::3], *words[2::3]))
    return words[::3] if spans else ()


def _counting(sample: Sample, texts: Sequence[str]) -> bool:
    start = f"seen {number(sample.answer.number or 0)} "
    return any(f"{text} ".startswith(start) for text in texts)


def _tracking(sample: Sample, texts: Sequence[str]) -> bool:
    boxes = [(box.left, box.top, box.right, box.bottom) for box in sample.answer.boxes]
    ending = "".join(f" box {' '.join(map(number, box))}" for box in boxes)
    return any(f" {text}".endswith(f" {subject(sample)}{ending}") for text in texts)


def _caption(sample: Sample, texts: Sequence[str]) -> bool:
    return " ".join(["seen", str(len(sample.answer.events)), *sample.answer.events]) in texts


_READERS: Mapping[Task, Callable[[Sample, Sequence[str]], bool]] = {
    Task.GROUNDING: _grounding,
    Task.CHOICE: _choice,
    Task.COUNTING: _counting,
    Task.GROUNDED_QA: _grounded_qa,
    Task.TRACKING: _tracking,
    Task.CAPTION: _caption,
}
