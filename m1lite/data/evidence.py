"""Whether the texts of tool results show the answer of a question of the synthetic world.

Reads the wording of the classical tools and the truth; for the cold start's teacher and for oracles, never for agents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        >>> from m1lite.records import Answer, Span
        >>> truth = Answer(spans=(Span(start=9, end=15),))
        >>> when = Sample(id="", video="", duration=47, task=Task.GROUNDING, question="when red-square", answer=truth)
        >>> shown(when, ["red-square clip 8 16"]), shown(when, ["none", "red-square 9 15"])
        (False, True)
    """
    return any(map(_READERS[sample.task](sample), texts)) if sample.task is not Task.GROUNDED_QA else _qa(sample, texts)


def subject(sample: Sample) -> str:
    """Return what the question is about: an object, or `objects`."""
    return sample.question.split()[-1]


def _span_phrase(sample: Sample) -> str:
    span = sample.answer.spans[0]
    return f" {subject(sample)} {number(span.start)} {number(span.end)} "


def _grounding(sample: Sample) -> Callable[[str], bool]:
    phrase = _span_phrase(sample)
    return lambda text: phrase in f" {text} "


def _qa(sample: Sample, texts: Sequence[str]) -> bool:
    span, lane = _span_phrase(sample), f"{subject(sample)} {sample.answer.text} "
    return any(span in f" {text} " for text in texts) and any(f"{text} ".startswith(lane) for text in texts)


def _choice(sample: Sample) -> Callable[[str], bool]:
    """The right option follows the subject in a list by first sight: `seen 3 A B C` or `A 9 15 B 12 20`."""
    pair = [subject(sample), sample.answer.text]

    def follows(text: str) -> bool:
        words = text.split()
        if words[:1] == ["seen"]:
            names = words[2:]
        elif len(words) % 3 == 0:
            names = words[::3]
        else:
            return False
        return any(names[place : place + 2] == pair for place in range(len(names) - 1))

    return follows


def _counting(sample: Sample) -> Callable[[str], bool]:
    start = f"seen {number(sample.answer.number or 0)} "
    return lambda text: f"{text} ".startswith(start)


def _tracking(sample: Sample) -> Callable[[str], bool]:
    boxes = [(box.left, box.top, box.right, box.bottom) for box in sample.answer.boxes]
    ending = "".join(f" box {' '.join(map(number, box))}" for box in boxes)
    return lambda text: text.startswith(f"{subject(sample)} ") and text.endswith(ending)


def _caption(sample: Sample) -> Callable[[str], bool]:
    whole = " ".join(["seen", str(len(sample.answer.events)), *sample.answer.events])
    return lambda text: text == whole


_READERS: Mapping[Task, Callable[[Sample], Callable[[str], bool]]] = {
    Task.GROUNDING: _grounding,
    Task.CHOICE: _choice,
    Task.COUNTING: _counting,
    Task.TRACKING: _tracking,
    Task.CAPTION: _caption,
}
