"""How CG-Bench reads the texts of models, and how it computes IoU where spans are no proper ones.

Its protocol is in grounded_qa.py. Time is linear in the length of the text (sorting aside), and nothing raises.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from m1lite.metrics.functional.spans import temporal_set_iou
from m1lite.metrics.presets._spans_official import _merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.metrics.presets.r1 import Interval

_FENCE = "```json"
_BARE_WORD = re.compile(r"(?<=:\s)([A-Za-z_]\w*+)")
_OPTION = re.compile(r"\b[A-H]\b")
_NUMBER = re.compile(r"-?\d++\.?+\d*+")


def cgbench_set_iou(prediction: Tensor, target: Tensor) -> Tensor:
    """IoU of the time that sets of spans cover, with CG-Bench's arithmetic of reversed spans.

    A reversed span has a negative length, and covers nothing: alone it gives 0, beside a good span it shortens the
    union, and the result can pass 1. Without reversed spans this is
    :func:`~m1lite.metrics.functional.temporal_set_iou`, and 0 where neither side has spans.

    Args:
        prediction: ``(..., P, 2)``, a row with NaN is padding.
        target: ``(..., T, 2)``, padded alike.

    Returns:
        ``(...)``, at least 0.

    References:
        ``calculate_intervals_iou`` of CG-Bench/CG-Bench f826608 run/utils.py.

    Example:
        >>> cgbench_set_iou(torch.tensor([[1.0, 5.0], [10.0, 8.0]]), torch.tensor([[1.0, 5.0]]))
        tensor(2.)
    """
    scores = temporal_set_iou(prediction, target, empty=0.0)
    backwards = [(spans[..., 0] > spans[..., 1]).any(-1) for spans in (prediction, target)]
    for place in (backwards[0] | backwards[1]).nonzero().tolist():
        sides = (_rows(spans[tuple(place)]) for spans in (prediction, target))
        scores[tuple(place)] = _signed_iou(*sides)
    return scores


def cgbench_iou(prediction: Sequence[Sequence[float]], target: Sequence[Sequence[float]]) -> float:
    """:func:`cgbench_set_iou` of two lists, whose bounds need not be finite: beside good spans such ones vanish or not.

    Example:
        >>> cgbench_iou([[8, 11]], [[8, 11], [20, 30]])
        0.23076923076923078
    """
    if not all(math.isfinite(bound) for span in (*prediction, *target) for bound in span):
        return _signed_iou(prediction, target)
    sides = (torch.tensor(side, dtype=torch.float64).reshape(-1, 2) for side in (prediction, target))
    return cgbench_set_iou(*sides).item()


def cgbench_choice(response: str | None, right_answer: str) -> bool | None:
    r"""Say whether a response chooses the right letter, as CG-Bench does; None where it stores no result.

    The ``result`` of the first JSON block must be the letter. Without such a block, any letter A to H that stands alone
    counts, and the answer is right if the right letter is among them: "A or E" is right for E.

    References:
        ``post_process`` of CG-Bench/CG-Bench f826608 run/utils.py.

    Example:
        >>> cgbench_choice('```json\n{"result": "E"}\n```', "E"), cgbench_choice("A or E", "E")
        (True, True)
        >>> cgbench_choice("e", "E") is None
        True
    """
    if not response:
        return None
    block = _json_block(response)
    found, result = _result(_BARE_WORD.sub(r'"\1"', block))
    if found:
        return bool(result == right_answer)
    letters = _OPTION.findall(response)
    return right_answer in letters if letters else None


def cgbench_spans(response: str | None) -> list[Interval] | None:
    r"""Read the spans of a response, as CG-Bench does; None where it stores no result.

    The ``result`` of the first JSON block must be a list of pairs of numbers. Otherwise all numbers of the text, in
    pairs. No number at all is a list without spans, which scores 0 and counts. An odd number of numbers is no result,
    nor are pairs read so that overlap or touch (the official code fails on them). Bounds that are not finite score 0
    officially, whatever stands beside them; they give a list without spans.

    References:
        ``post_process`` of CG-Bench/CG-Bench f826608 run/utils.py. Lists of pairs in which something else hides behind
        an overlap are read as such there.

    Example:
        >>> cgbench_spans('```json\n{"result": [[8, 11]]}\n```'), cgbench_spans("8 to 11, 20"), cgbench_spans("none")
        ([(8.0, 11.0)], None, [])
    """
    if not response:
        return None
    found, result = _result(_json_block(response))
    if found and not result:
        return []
    if found and isinstance(result, list) and all(_is_pair(entry) for entry in result):
        pairs = [(_as_float(start), _as_float(end)) for start, end in result]
    else:
        numbers = [float(number) for number in _NUMBER.findall(response)]
        if len(numbers) % 2:
            return None
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if len(_merged(pairs)) < len(pairs):
            return None
    return pairs if all(math.isfinite(bound) for pair in pairs for bound in pair) else []


def _json_block(response: str) -> str:
    """Return the first fenced block marked as JSON, "" without one."""
    start = response.find(_FENCE)
    end = response.find("```", start + len(_FENCE))
    return response[start + len(_FENCE) : end].strip() if start >= 0 and end >= 0 else ""


def _result(block: str) -> tuple[bool, Any]:
    """Return whether the block is an object with a result, and that."""
    try:
        return True, json.loads(block)["result"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False, None


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(bound, (int, float)) for bound in entry)


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _rows(spans: Tensor) -> list[list[float]]:
    """Return the rows that are no padding."""
    return spans[~spans.isnan().any(-1)].tolist()


def _signed_iou(prediction: Sequence[Sequence[float]], target: Sequence[Sequence[float]]) -> float:
    """IoU of two lists in which reversed spans have negative length, those that another reaches over aside."""
    merged, true = _merged(prediction), _merged(target)
    inter = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in merged for b in true)
    union = sum(end - start for start, end in merged) + sum(end - start for start, end in true) - inter
    return inter / union if union > 0 else 0.0
