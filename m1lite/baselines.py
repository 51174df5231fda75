"""Blind baselines and the ceiling: what a question is worth without the video, and with tools read perfectly.

Constants and priors are fitted on the training split and chosen on validation, by answers alone. The oracle asks the
synthetic world's tools what it needs and copies their words. Playing a trained team on other videos is the third blind
control and stands in evaluation.py.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from m1lite.records import Answer, Box, Sample, Span, Task, ToolCall

if TYPE_CHECKING:
    from m1lite.evaluation import Score
    from m1lite.toolbox.base import RunTools

Guess = Callable[[Sample], Answer]
_GRID = 20
"""Constant spans start and end on a grid of twentieths of the duration."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Blind:
    """A guesser with a name."""

    name: str
    guess: Guess


@dataclass(kw_only=True, slots=True, frozen=True)
class BlindResult:
    """The best blind guesser of one task."""

    task: str
    name: str
    validation: float
    """Mean score ``2 m - 1`` on the validation split, by which it was chosen."""
    scores: dict[str, float]
    """Score of each test question, by sample id."""


def blind_result(
    task: Task, train: Sequence[Sample], val: Sequence[Sample], test: Sequence[Sample], score: Score
) -> BlindResult | None:
    """Fit a task's blind guessers on one split, keep the one that scores best on another, and score it on a third.

    Args:
        task: of the questions.
        train: fits the constants and priors.
        val: chooses.
        test: is scored.
        score: scores answers in [0, 1].

    Returns:
        The result, or ``None`` where a split has no question of the task.
    """
    seen, held, asked = ([sample for sample in split if sample.task is task] for split in (train, val, test))
    if not (seen and held and asked):
        return None
    best = max(_FITS[task](seen), key=lambda blind: mean_score(held, blind.guess, score))
    values = score(asked, [best.guess(sample) for sample in asked])
    return BlindResult(
        task=str(task),
        name=best.name,
        validation=2 * mean_score(held, best.guess, score) - 1,
        scores={sample.id: 2 * m - 1 for sample, m in zip(asked, values, strict=True)},
    )


def mean_score(samples: Sequence[Sample], guess: Guess, score: Score) -> float:
    """Average the score of a guesser."""
    return sum(score(samples, [guess(sample) for sample in samples])) / len(samples)


def task_means(samples: Sequence[Sample], values: Sequence[float]) -> dict[str, float]:
    """Average ``2 m - 1`` per task, from one m in [0, 1] per sample."""
    parts: dict[str, list[float]] = {}
    for sample, m in zip(samples, values, strict=True):
        parts.setdefault(str(sample.task), []).append(2 * m - 1)
    return {task: sum(part) / len(part) for task, part in parts.items()}


def _best_span(samples: Sequence[Sample]) -> Callable[[float], Span]:
    """Find the constant span, as shares of the duration, with the largest mean temporal IoU."""
    shares = [(a / _GRID, b / _GRID) for a in range(_GRID) for b in range(a + 1, _GRID + 1)]
    spans = [(s.answer.spans[0].start / s.duration, s.answer.spans[0].end / s.duration) for s in samples]

    def mean_iou(share: tuple[float, float]) -> float:
        total = 0.0
        for start, end in spans:
            inter = max(0.0, min(end, share[1]) - max(start, share[0]))
            total += inter / (end - start + share[1] - share[0] - inter)
        return total / len(spans)

    first, last = max(shares, key=mean_iou)
    return lambda duration: Span(start=first * duration, end=last * duration)


def _grounding(samples: Sequence[Sample]) -> list[Blind]:
    span = _best_span(samples)
    return [
        Blind(name="constant span", guess=lambda sample: Answer(spans=(span(sample.duration),))),
        Blind(name="whole video", guess=lambda sample: Answer(spans=(Span(start=0.0, end=sample.duration),))),
    ]


def _choice(samples: Sequence[Sample]) -> list[Blind]:
    places = max(len(sample.options) for sample in samples)
    counts = Counter(sample.answer.text for sample in samples)
    named = [Blind(name=f"option {place + 1}", guess=partial(_option, place=place)) for place in range(places)]
    common = Blind(
        name="most frequent right option",
        guess=lambda sample: Answer(text=max(sample.options, key=lambda option: counts[option])),
    )
    return [*named, common]


def _option(sample: Sample, place: int) -> Answer:
    return Answer(text=sample.options[min(place, len(sample.options) - 1)])


def _always(sample: Sample, answer: Answer) -> Answer:
    return answer


def _counting(samples: Sequence[Sample]) -> list[Blind]:
    common = Counter(sample.answer.number for sample in samples).most_common(3)
    return [
        Blind(name=f"always {number:g}", guess=partial(_always, answer=Answer(number=number)))
        for number, _ in common
        if number is not None
    ] + [_count_by_length(samples)]


def _count_by_length(samples: Sequence[Sample]) -> Blind:
    """The duration is known without seeing the video, and longer videos may hold more."""
    by_length: dict[int, Counter[float | None]] = {}
    for sample in samples:
        by_length.setdefault(int(sample.duration // 10), Counter())[sample.answer.number] += 1
    overall = Counter(sample.answer.number for sample in samples)

    def guess(sample: Sample) -> Answer:
        return Answer(number=by_length.get(int(sample.duration // 10), overall).most_common(1)[0][0])

    return Blind(name="most frequent for the duration", guess=guess)


def _grounded_qa(samples: Sequence[Sample]) -> list[Blind]:
    span = _best_span(samples)
    texts = [text for text, _ in Counter(sample.answer.text for sample in samples).most_common(3)]

    def with_span(sample: Sample, text: str | None) -> Answer:
        return Answer(text=text, spans=(span(sample.duration),))

    return [Blind(name=f"{text} and constant span", guess=partial(with_span, text=text)) for text in texts]


def _tracking(samples: Sequence[Sample]) -> list[Blind]:
    edges = [(b.left, b.top, b.right, b.bottom) for sample in samples for b in sample.answer.boxes]
    middle = [sorted(column)[len(column) // 2] for column in zip(*edges, strict=True)]
    widest = [min(e[0] for e in edges), min(e[1] for e in edges), max(e[2] for e in edges), max(e[3] for e in edges)]

    def constant(name: str, corners: Sequence[float]) -> Blind:
        box = Box(left=corners[0], top=corners[1], right=corners[2], bottom=corners[3])
        return Blind(name=name, guess=lambda sample: Answer(boxes=(box,) * len(sample.times)))

    return [constant("median box", middle), constant("whole field", widest)]


def _caption(samples: Sequence[Sample]) -> list[Blind]:
    common = [event for event, _ in Counter(e for sample in samples for e in sample.answer.events).most_common()]
    return [
        Blind(name=f"{count} most frequent events", guess=partial(_always, answer=Answer(events=tuple(common[:count]))))
        for count in (3, 5, 8, len(common))
    ]


_FITS: Mapping[Task, Callable[[Sequence[Sample]], list[Blind]]] = {
    Task.GROUNDING: _grounding,
    Task.CHOICE: _choice,
    Task.COUNTING: _counting,
    Task.GROUNDED_QA: _grounded_qa,
    Task.TRACKING: _tracking,
    Task.CAPTION: _caption,
}


ORACLE_TOOLS = frozenset({"grounding_tool", "spatial_tool", "rough_browser"})
"""What :func:`oracle` calls."""


def oracle(samples: Sequence[Sample], run_tools: RunTools, *, seed: int = 0) -> list[Answer]:
    """Answer questions of the synthetic world by calling the fitting tools and reading them perfectly: the ceiling.

    Args:
        samples: of the synthetic world.
        run_tools: runs calls.
        seed: of the guess among options where the tools do not tell.

    Returns:
        One answer per sample; an empty one where a tool failed.
    """
    calls = [(sample, call) for sample in samples for call in _oracle_calls(sample)]
    results = iter(run_tools(calls))
    rng = random.Random(seed)
    answers = []
    for sample in samples:
        words = [next(results).text.split() for _ in _oracle_calls(sample)]
        answers.append(_read(sample, words, rng))
    return answers


def _oracle_calls(sample: Sample) -> list[ToolCall]:
    about = sample.question.split()[-1]
    ground = ToolCall(tool="grounding_tool", args={"event": about})
    match sample.task:
        case Task.GROUNDING:
            return [ground]
        case Task.GROUNDED_QA:
            return [ToolCall(tool="spatial_tool", args={"question": about}), ground]
        case Task.TRACKING:
            window = {"start": min(sample.times), "end": max(sample.times)}
            return [ToolCall(tool="spatial_tool", args={"question": about, **window})]
        case _:
            return [ToolCall(tool="rough_browser", args={"question": "objects"})]


def _read(sample: Sample, words: Sequence[Sequence[str]], rng: random.Random) -> Answer:
    match sample.task:
        case Task.GROUNDING:
            return Answer(spans=_span(words[0]))
        case Task.GROUNDED_QA:
            return Answer(text=words[0][1] if len(words[0]) > 1 else None, spans=_span(words[1]))
        case Task.TRACKING:
            numbers = [float(word) for word in words[0] if word.lstrip("-").isdigit()]
            boxes = zip(*[iter(numbers)] * 4, strict=False)
            return Answer(boxes=tuple(Box(left=a, top=b, right=c, bottom=d) for a, b, c, d in boxes))
        case Task.COUNTING:
            return Answer(number=float(words[0][1]) if len(words[0]) > 1 else None)
        case Task.CAPTION:
            return Answer(events=tuple(words[0][2:]))
        case Task.CHOICE:
            seen, about = list(words[0][2:]), sample.question.split()[-1]
            after = seen[seen.index(about) + 1 :][:1] if about in seen else []
            return Answer(text=after[0] if after else rng.choice(sample.options))


def _span(words: Sequence[str]) -> tuple[Span, ...]:
    return (Span(start=float(words[1]), end=float(words[2])),) if len(words) == 3 else ()
