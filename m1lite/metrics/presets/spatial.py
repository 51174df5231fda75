"""Official protocol of VSI-Bench: spatial questions about indoor videos, answered by a letter or a number.

The sane counterparts are :class:`~m1lite.metrics.MeanRelativeAccuracy` and
:class:`~m1lite.metrics.MultipleChoiceAccuracy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics.functional.numbers import mean_relative_accuracy
from m1lite.metrics.presets.base import Preset

if TYPE_CHECKING:
    from collections.abc import Mapping

_DIRECTION = "object_rel_direction"
_DIRECTION_LEVELS = tuple(f"{_DIRECTION}_{level}" for level in ("easy", "medium", "hard"))
_CHOICE_TYPES = (*_DIRECTION_LEVELS, "object_rel_distance", "route_planning", "obj_appearance_order")
_NUMBER_TYPES = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
_TYPES = (*_CHOICE_TYPES, *_NUMBER_TYPES)
_REPORTED = (
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
    "object_rel_distance",
    _DIRECTION,
    "route_planning",
    "obj_appearance_order",
)
"""The eight tasks, in the order of the official table."""


class VsiBenchItem(TypedDict):
    """One question of VSI-Bench with the model's answer."""

    question_type: str
    """One of the ten official types."""
    ground_truth: str
    """A letter or a number, as text."""
    response: str
    """The model's whole output."""


class QuestionTypeScores(VideoMetric):
    """Mean score per question type of VSI-Bench, and the mean over its tasks.

    ``update`` takes ``question_type``, long ``(N,)``, index into the ten types, and ``score``, ``(N,)`` in [0, 1].
    ``compute`` gives the mean score of every task that has samples, under its name, and ``overall``, the mean over
    these tasks; without any sample that is NaN, with a warning. The three levels of ``object_rel_direction`` are
    averaged to one task first, but only if the easy one occurs (as officially; the others stay tasks of their own).
    Where it occurs without another, the official script fails; here the levels that occur are averaged.
    """

    score_sum: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sums("score_sum", "count", shape=(len(_TYPES),))

    def update(self, question_type: Tensor, score: Tensor) -> None:
        """Add samples."""
        self.score_sum.index_add_(0, question_type, score.to(self.score_sum.dtype))
        self.count += torch.bincount(question_type, minlength=len(_TYPES))

    def compute(self) -> dict[str, Tensor]:
        """Return the mean score per task and ``overall``."""
        means = {
            name: total / count
            for name, total, count in zip(_TYPES, self.score_sum, self.count, strict=True)
            if bool(count > 0)
        }
        if _DIRECTION_LEVELS[0] in means:
            levels = [means.pop(name) for name in _DIRECTION_LEVELS if name in means]
            means[_DIRECTION] = torch.stack(levels).mean()
        total = sum(means.values(), torch.zeros_like(self.count[0]))
        return {**means, "overall": self.ratio(total, torch.full_like(total, len(means)))}


def first_word(response: str) -> str:
    """Read the answer of a response as VSI-Bench does: up to the first space, without dots and blanks at its end.

    Example:
        >>> first_word("3.5 meters"), first_word("A."), first_word(" A")
        ('3.5', 'A', '')
    """
    return response.split(" ", 1)[0].rstrip(".").strip()


def vsibench_number(text: str) -> float | None:
    """Read a number as VSI-Bench does: the whole text must be a Python float; "nan" and "inf" are.

    Example:
        >>> vsibench_number("+3"), vsibench_number("3m")
        (3.0, None)
    """
    try:
        return float(text)
    except ValueError:
        return None


def vsibench_relative_accuracy(prediction: float | None, target: float | None) -> float:
    """Mean relative accuracy of one number as VSI-Bench's code computes it.

    It divides the error by the true number with its sign, so that with a negative one every prediction but NaN scores
    1. No number on either side scores 0. For a true 0 the official code fails; here it asks for exactly 0.

    Example:
        >>> vsibench_relative_accuracy(9.0, 10.0), vsibench_relative_accuracy(50.0, -2.0)
        (0.9, 1.0)
    """
    if prediction is None or target is None:
        return 0.0
    if -float("inf") < target < 0 and prediction == prediction:
        return 1.0
    numbers = (torch.tensor(number, dtype=torch.float64) for number in (prediction, target))
    return mean_relative_accuracy(*numbers).item()


def read_vsibench(item: VsiBenchItem) -> tuple[Tensor, Tensor]:
    """Score one item of VSI-Bench: the arguments of :meth:`QuestionTypeScores.update`.

    A letter must equal the :func:`first_word` of the response, in either case; a number is graded. Whatever can't be
    read scores 0 and stays in the denominator.

    Raises:
        ValueError: if the question type is none of the ten.

    Example:
        >>> read_vsibench({"question_type": "route_planning", "ground_truth": "B", "response": "b."})
        (tensor([4]), tensor([1.], dtype=torch.float64))
    """
    kind = item["question_type"]
    if kind not in _TYPES:
        raise ValueError(f"`question_type` is {kind!r}; VSI-Bench has {sorted(_TYPES)}.")
    answer = first_word(item["response"])
    if kind in _NUMBER_TYPES:
        score = vsibench_relative_accuracy(vsibench_number(answer), vsibench_number(item["ground_truth"]))
    else:
        score = float(answer.lower() == item["ground_truth"].lower())
    return torch.tensor([_TYPES.index(kind)]), torch.tensor([score], dtype=torch.float64)


def report_vsibench(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report in percent under the official keys, those of tasks without samples left out."""
    measures = {name: "MRA:.5:.95:.05" if name in _NUMBER_TYPES else "accuracy" for name in _REPORTED}
    tasks = {f"{name}_{measure}": values[name].item() * 100.0 for name, measure in measures.items() if name in values}
    return {"overall": values["overall"].item() * 100.0, **tasks}


VSI_BENCH: Preset[VsiBenchItem] = Preset(
    name="vsibench",
    read=read_vsibench,
    metric=QuestionTypeScores,
    report=report_vsibench,
    source="vision-x-nyu/thinking-in-space 51e089c3ae69b9435e9489058610f5b3964c56a8",
)
"""VSI-Bench. Overall is the mean over the tasks that occur; medium and hard directions count there as tasks of their
own where the easy level is missing, though the table doesn't show them."""

PRESETS: tuple[Preset[Any], ...] = (VSI_BENCH,)
