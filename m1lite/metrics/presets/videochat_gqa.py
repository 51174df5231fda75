"""How VideoChat-R1 rewards grounded answers: a letter in ``<answer>``, spans of time in ``<glue>``. Text in, score out.

These are the official rules with their faults, for training like them; the sane ones are in metrics/functional/. The
readers it shares with its other tasks are in r1.py. Time is linear in the length of the text, and nothing is evaluated.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from m1lite.metrics.presets._spans_official import videochat_r1_set_iou
from m1lite.metrics.presets.r1 import Interval, blocks, stretched_format, videochat_r1_letter

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLANK = r"[ \t\f\r\n]*+"
_NUMBER = r"[0-9]++(?:\.[0-9]++)?+"
_PAIR = rf"\({_NUMBER},{_BLANK}{_NUMBER}\)"
_GLUE = re.compile(rf"\[(?:{_PAIR}(?:,{_BLANK}{_PAIR})*+,?+)?+\]\n?")
_PAIR_NUMBERS = re.compile(rf"({_NUMBER}),{_BLANK}({_NUMBER})")
_OCTAL_LIKE = re.compile(r"0[0-9]*[1-9]")
_MAX_WHOLE_DIGITS = 4300
"""Python reads no whole number with more digits, and so the official code takes such a list for invalid."""


def parse_glue(text: str) -> list[Interval] | None:
    """Read the list of spans in the first ``<glue>`` block, as VideoChat-R1 does; None if it is not valid.

    Valid is ``[(a, b), ...]``: pairs in round brackets of unsigned decimals with a <= b, a comma and optional blanks
    between, nothing before or after, an optional comma at the end, or ``[]``. Numbers too large for a float are not
    valid here; officially they give NaN or an error.

    References:
        ``is_valid_two_d_list_format`` of OpenGVLab/VideoChat-R1 73b2ea9a src/open_r1/grpo_tasks.py.

    Example:
        >>> parse_glue("<glue>[(1.5, 4), (8, 9)]</glue>")
        [(1.5, 4.0), (8.0, 9.0)]
        >>> parse_glue("<glue>[[1.5, 4]]</glue>") is None
        True
    """
    glue = blocks(text, "glue")
    if not glue or not _GLUE.fullmatch(glue[0]):
        return None
    pairs = []
    for match in _PAIR_NUMBERS.finditer(glue[0]):
        if not (_is_python_number(match[1]) and _is_python_number(match[2])):
            return None
        start, end = float(match[1]), float(match[2])
        if not start <= end or math.isinf(end):
            return None
        pairs.append((start, end))
    return pairs


def videochat_r1_glue_iou(text: str, target: Sequence[Interval]) -> float:
    """Return VideoChat-R1's reward for spans: IoU of the time they cover, 0 for an invalid list.

    Where neither side covers any time (no spans, or only spans without length) it is 1.

    Args:
        text: what the model wrote.
        target: the true spans.

    References:
        ``iou_glue_reward`` of OpenGVLab/VideoChat-R1 73b2ea9a src/open_r1/grpo_tasks.py.

    Example:
        >>> videochat_r1_glue_iou("<glue>[(1, 3), (2, 5)]</glue>", [(1.0, 9.0)])
        0.5
    """
    spans = parse_glue(text)
    return 0.0 if spans is None else videochat_r1_set_iou(spans, target)


def videochat_r1_gqa_answer(text: str, target: str) -> float:
    """Return 1.0 if the letter in the first ``<answer>`` block is the one in ``target``, or neither has a letter.

    References:
        ``answer_reward`` of OpenGVLab/VideoChat-R1 73b2ea9a src/open_r1/grpo_tasks.py.

    Example:
        >>> videochat_r1_gqa_answer("<answer>The best answer is C.</answer>", "(C)")
        1.0
    """
    answers = blocks(text, "answer")
    return float(bool(answers) and videochat_r1_letter(answers[0]) == videochat_r1_letter(target))


def videochat_r1_gqa_format(text: str) -> float:
    """Return 1.0 for blocks ``<think>``, ``<answer>`` and ``<glue>`` in this order around a valid list, else 0.0.

    References:
        ``format_reward_gqa`` of OpenGVLab/VideoChat-R1 73b2ea9a src/open_r1/grpo_tasks.py.

    Example:
        >>> videochat_r1_gqa_format("<think>so</think><answer>C</answer><glue>[(1, 3)]</glue>")
        1.0
    """
    return float(stretched_format(text, ("think", "answer", "glue")) and parse_glue(text) is not None)


def _is_python_number(written: str) -> bool:
    """Say whether Python takes the decimal as a literal: no ``07`` (but ``07.5``), no endless whole number."""
    return "." in written or (len(written) <= _MAX_WHOLE_DIGITS and not _OCTAL_LIKE.match(written))
