"""How good an answer is: one number m in [0, 1] per sample, by the metric of its task. Signs are terms.py's.

Answers are scored in batches, one call of a functional per task, and remembered: the agents of a team and its episodes
often give the same answer to the same question.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from m1lite.metrics.functional import (
    box_iou_sequence,
    choice_match,
    event_scores,
    numeric_match,
    temporal_iou,
    temporal_set_iou,
)
from m1lite.records import Answer, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from m1lite.records import Sample

_NAN = float("nan")
_MEMO: dict[tuple[Task, Answer, Answer], float] = {}
_MEMO_LIMIT = 100_000


def score_answer(sample: Sample, answer: Answer | None) -> float:
    """Score one answer; see :func:`score_answers`, which is much faster for many."""
    return score_answers([sample], [answer])[0]


def score_answers(samples: Sequence[Sample], answers: Sequence[Answer | None]) -> list[float]:
    """Score one answer for each sample.

    ========================  =================================================
    task                      m
    ========================  =================================================
    grounding                 temporal IoU of the span
    choice                    1 if the text is that of the right option
    counting                  1 if the number is exact
    grounded_qa               1 or 0 for the text × temporal IoU of the span, or
                              IoU of what several spans cover
    tracking                  mean box IoU; 0 for another number of boxes
    caption                   F1 of the events, each counted once, in any order
    ========================  =================================================

    Texts are compared without case and surplus blanks. A missing answer, or one that lacks its task's field, scores 0.

    Args:
        samples: with their true answers.
        answers: one for each sample, ``None`` where there is none.

    Returns:
        One m in [0, 1] for each sample.

    Raises:
        ValueError: if the lengths differ, or a true answer lacks its task's field.

    Example:
        >>> from m1lite.records import Sample
        >>> sample = Sample(
        ...     id="a", video="a.mp4", duration=9.0, task=Task.COUNTING, question="how many?", answer=Answer(number=3)
        ... )
        >>> score_answers([sample, sample, sample], [Answer(number=3), Answer(number=4), None])
        [1.0, 0.0, 0.0]
    """
    if len(samples) != len(answers):
        raise ValueError(f"{len(answers)} answers for {len(samples)} samples; give one, or None, for each.")
    for sample in samples:
        _check_truth(sample)
    keys = [
        None if answer is None else (sample.task, sample.answer, answer)
        for sample, answer in zip(samples, answers, strict=True)
    ]
    scores = {key: _MEMO.get(key) for key in keys if key is not None}
    fresh = [key for key, score in scores.items() if score is None]
    if fresh:
        found = _score(fresh)
        scores.update(found)
        if len(_MEMO) + len(found) > _MEMO_LIMIT:
            _MEMO.clear()
        _MEMO.update(found)
    return [0.0 if key is None else scores[key] or 0.0 for key in keys]


def _score(keys: Sequence[tuple[Task, Answer, Answer]]) -> dict[tuple[Task, Answer, Answer], float]:
    """Score (task, truth, answer) triples, one call per task."""
    result: dict[tuple[Task, Answer, Answer], float] = {}
    for task in dict.fromkeys(key[0] for key in keys):
        rows = [key for key in keys if key[0] == task]
        scores = _SCORERS[task]([truth for _, truth, _ in rows], [answer for _, _, answer in rows])
        result.update(zip(rows, scores.nan_to_num(0.0).clamp(0, 1).tolist(), strict=True))
    return result


def _spans(answers: Sequence[Answer]) -> Tensor:
    rows = [(answer.spans[0].start, answer.spans[0].end) if answer.spans else (_NAN, _NAN) for answer in answers]
    return torch.tensor(rows, dtype=torch.float64)  # (N, 2)


def _span_sets(answers: Sequence[Answer]) -> Tensor:
    """Give all spans, float64 ``(N, most spans, 2)``, padded with NaN."""
    most = max(1, *(len(answer.spans) for answer in answers))
    rows = [[(s.start, s.end) for s in a.spans] + [(_NAN, _NAN)] * (most - len(a.spans)) for a in answers]
    return torch.tensor(rows, dtype=torch.float64)


def _grounding(truths: Sequence[Answer], answers: Sequence[Answer]) -> Tensor:
    return temporal_iou(_spans(answers), _spans(truths))


def _choice(truths: Sequence[Answer], answers: Sequence[Answer]) -> Tensor:
    known: dict[str, int] = {}

    def indices(rows: Sequence[Answer]) -> Tensor:
        texts = [None if row.text is None else _plain(row.text) for row in rows]
        return torch.tensor([-1 if text is None else known.setdefault(text, len(known)) for text in texts])

    return choice_match(indices(answers), indices(truths)).double()


def _counting(truths: Sequence[Answer], answers: Sequence[Answer]) -> Tensor:
    def numbers(rows: Sequence[Answer]) -> Tensor:
        return torch.tensor([_NAN if row.number is None else row.number for row in rows], dtype=torch.float64)

    return numeric_match(numbers(answers), numbers(truths)).double()


def _grounded_qa(truths: Sequence[Answer], answers: Sequence[Answer]) -> Tensor:
    several = torch.tensor(
        [max(len(truth.spans), len(answer.spans)) > 1 for truth, answer in zip(truths, answers, strict=True)]
    )
    overlap = _grounding(truths, answers)
    if several.any():
        sets = temporal_set_iou(_span_sets(answers), _span_sets(truths))
        overlap = torch.where(several, sets, overlap.nan_to_num(0.0))
    return _choice(truths, answers) * overlap


def _tracking(truths: Sequence[Answer], answers: Sequence[Answer]) -> Tensor:
    fitting = [row for row, (t, a) in enumerate(zip(truths, answers, strict=True)) if len(t.boxes) == len(a.boxes)]
    rows = torch.tensor([row for row in fitting for _ in truths[row].boxes], dtype=torch.long)

    def corners(source: Sequence[Answer]) -> Tensor:
        boxes = [(box.left, box.top, box.right, box.bottom) for row in fitting for box in source[row].boxes]
        return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)

    counts = torch.tensor([len(truth.boxes) for truth in truths], dtype=torch.float64)
    ious = box_iou_sequence(corners(answers), corners(truths))
    return torch.zeros(len(truths), dtype=torch.float64).index_add_(0, rows, ious) / counts


def _caption(truths: Sequence[Answer], answers: Sequence[Answer]) -> Tensor:
    pairs = [
        ([_plain(event) for event in answer.events], [_plain(event) for event in truth.events])
        for truth, answer in zip(truths, answers, strict=True)
    ]
    told, told_mask = _pad([_held(given, true) for given, true in pairs])
    true, true_mask = _pad([_held(true, given) for given, true in pairs])
    return event_scores(told, true, predicted_mask=told_mask, target_mask=true_mask).f1.double()


def _held(events: Sequence[str], others: Sequence[str]) -> list[bool]:
    """Flag the events that the other list has too; a repeated event needs a repeated partner."""
    budget = Counter(others)
    flags = []
    for event in events:
        flags.append(budget[event] > 0)
        budget[event] -= 1
    return flags


def _pad(rows: Sequence[Sequence[bool]]) -> tuple[Tensor, Tensor]:
    """Flags and mask, both bool ``(N, longest row)``."""
    width = max(map(len, rows))
    flags = torch.tensor([[*row, *[False] * (width - len(row))] for row in rows], dtype=torch.bool)
    lengths = torch.tensor([len(row) for row in rows])
    return flags.reshape(len(rows), width), torch.arange(width) < lengths[:, None]


def _plain(text: str) -> str:
    """Fold case and blanks."""
    return " ".join(text.casefold().split())


_SCORERS: dict[Task, Callable[[Sequence[Answer], Sequence[Answer]], Tensor]] = {
    Task.GROUNDING: _grounding,
    Task.CHOICE: _choice,
    Task.COUNTING: _counting,
    Task.GROUNDED_QA: _grounded_qa,
    Task.TRACKING: _tracking,
    Task.CAPTION: _caption,
}

_NEEDED: dict[Task, tuple[str, ...]] = {
    Task.GROUNDING: ("spans",),
    Task.CHOICE: ("text",),
    Task.COUNTING: ("number",),
    Task.GROUNDED_QA: ("text", "spans"),
    Task.TRACKING: ("boxes",),
    Task.CAPTION: ("events",),
}


def _check_truth(sample: Sample) -> None:
    for name in _NEEDED[sample.task]:
        if getattr(sample.answer, name) in (None, ()):
            raise ValueError(
                f"Sample {sample.id!r} ({sample.task.value}) has no `answer.{name}`, so no answer to it can be scored."
            )
