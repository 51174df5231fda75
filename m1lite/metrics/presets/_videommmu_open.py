"""How VideoMMMU (by MMMU's rule) reads numbers and phrases out of an answer to an open question, and compares them.

Numbers are compared at 2 decimals, phrases by whether they hold the true text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_INDICATORS = (
    "could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ", "are ", "in total ", "total ",
    "identify ", "recognize ", "calculated as ", "counted as ", "measured as ", "observed as ", "concluded as ",
    "found to be ", "equals ", "determined to be ", "number of ", "value is ", "adds up to ", "have ", "has ",
)  # fmt: skip
"""What stands before the phrase that answers; in the last line "=" too."""

_TRIVIAL = {":", ",", ".", "!", "?", ";", "'"}

# The official patterns, started only at the first digit of a run: one that fails there fails at the later digits too.
_THOUSANDS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?(?<!\d)\d++(?:\.\d++)?+[eE][+-]?\d++")
_SIMPLE = re.compile(r"-?(?:(?<!\d)\d++\.\d++|\.\d++|(?<!\d)\d++\b)(?![eE][+-]?\d)(?![,\d])")


def videommmu_open_right(text: str, answer: str | Sequence[str]) -> bool | None:
    """Say whether VideoMMMU counts an answer to an open question as right.

    Every line gives its shortest end behind one of some words such as "is" or "total"; without any, the whole text
    counts. These phrases and the numbers in them are candidates. One that is a number is right if a true one equals it
    at 2 decimals; one that is text is right if it holds a true text, where a true text of one character needs a blank
    beside it.

    Args:
        text: what the model wrote.
        answer: the true text, or several that all count.

    Returns:
        Whether it is right; ``None`` for an empty text or ``API Error``, which leave the denominator.

    References:
        ``parse_open_response`` and ``eval_open`` of EvolvingLMMs-Lab/VideoMMMU 88b4ac3e
        lmms_eval/tasks/videommmu/utils.py.

    Example:
        >>> videommmu_open_right("The answer is 1,000", "1000"), videommmu_open_right("about 12.49", "12.5")
        (True, False)
    """
    if text in ("", "API Error"):
        return None
    truths = _normalized([answer] if isinstance(answer, str) else answer)
    phrases = _phrases(text)
    numbers = (number for phrase in phrases for number in _numbers(phrase))
    for candidate in _normalized([*phrases, *numbers]):
        if isinstance(candidate, str):
            if any(isinstance(truth, str) and truth in candidate for truth in truths):
                return True
        elif candidate in truths:
            return True
    return False


def _phrases(text: str) -> list[str]:
    """Return the shortest end of every line behind an indicator, or the whole text."""
    text = text.strip().strip(".").lower()
    lines = text.split("\n")
    phrases = []
    for number, line in enumerate(lines):
        last = number == len(lines) - 1
        shortest = ""
        for indicator in (*_INDICATORS, "=") if last else _INDICATORS:
            if indicator in line:
                end = line.rsplit(indicator, 1)[1].strip()
                if not shortest or len(end) < len(shortest):
                    shortest = end
        if shortest and shortest not in _TRIVIAL:
            phrases.append(shortest)
    return phrases or [text]


def _numbers(phrase: str) -> list[str]:
    return [match[0] for pattern in (_THOUSANDS, _SCIENTIFIC, _SIMPLE) for match in pattern.finditer(phrase)]


def _normalized(texts: Iterable[str]) -> list[str | float]:
    """Write numbers as floats at 2 decimals, texts in lower case, one character as two texts with a blank beside it."""
    values: list[str | float] = []
    for text in texts:
        text = text.strip()
        try:
            values.append(round(float(text.replace(",", "")), 2))
        except ValueError:
            text = text.lower()
            values += [f" {text}", f"{text} "] if len(text) == 1 else [text]
    return values
