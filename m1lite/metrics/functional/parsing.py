"""Text in: what a model wrote, read as spans, boxes, an option or a number. Official readers are in metrics/presets.

The rules are strict and few, and what they do not cover is no answer (``None``), never a guess and never an error.
Every pattern is linear in the length of the text: repetitions do not give back what they took, so nothing is retried.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_OPTIONS = 26

_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_THINK_TAG = re.compile(r"<(/?)think>", re.IGNORECASE)

_PLAIN = r"(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?+"
_CLOCK = r"[0-9]{1,3}+:[0-5][0-9](?::[0-5][0-9])?+(?:\.[0-9]++)?+"
_THOUSANDS = r"[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])(?:\.[0-9]++)?+"
_FREE = rf"(?:{_CLOCK}|{_THOUSANDS}|{_PLAIN})"
"""A number in running text, where a comma may separate thousands."""
_LISTED = rf"(?:{_CLOCK}|{_PLAIN})"
"""A number in brackets, where a comma separates numbers."""

_SECONDS = r"(?:\s*+(?:seconds|second|secs|sec|s)(?![A-Za-z0-9_]))?+"
_OTHER_UNIT = r"(?!\s*+(?:%|(?:minutes?|mins?|m|hours?|hrs?|h|ms|milliseconds?|frames?|percent)(?![A-Za-z0-9_])))"
_FREE_END = rf"{_SECONDS}(?![.,:]?[A-Za-z0-9_]){_OTHER_UNIT}"
_LISTED_END = rf"{_SECONDS}\s*+"
_NEW_WORD = r"(?<![A-Za-z0-9_.,:])"

_SPAN = re.compile(
    rf"[\[(]\s*+([-+]?{_LISTED}){_LISTED_END}[,;]\s*+([-+]?{_LISTED}){_LISTED_END}[\])]"
    rf"|((?:{_NEW_WORD}[-+])?{_NEW_WORD}{_FREE}){_FREE_END}"
    rf"\s*+(?:to\b|and\b|until\b|till\b|[-\u2010-\u2015\u2212~])\s*+([-+]?{_FREE}){_FREE_END}",
    re.IGNORECASE,
)
_NO_SPANS = re.compile(r"\s*+[\[(]\s*+[\])]\s*+")
_NUMBER = re.compile(
    rf"((?:(?<![A-Za-z0-9_.,:/)\]])[-+])?(?<![A-Za-z0-9_.,:/])(?:{_THOUSANDS}|{_PLAIN}))"
    r"(?![.,:/]?[0-9])(?![A-Za-z_]++[0-9])"
)
_INNERMOST = re.compile(r"[\[(]([^\[\]()]*+)[\])]")
_LISTED_NUMBER = re.compile(rf"[-+]?{_PLAIN}")

_SAID = re.compile(r"(?i:answer(?:\s++is)?+)\s*+[:=]?+[\s(\[{*\"'`]*+(?:option\s++)?+([A-Z])(?![A-Za-z0-9'])")
_LEADING = re.compile(r"[\s(\[{*\"'`]*+([A-Z])(?:[)\]}.:,;*\"'`]|\s*+$)")
_ALONE = re.compile(r"[\s(\[{*\"'`]*+([A-Za-z])[\s)\]}.:,;*\"'`]*+")
_BRACKETED = re.compile(r"[(\[{]\s*+([A-Z])\s*+[)\]}]")
_STANDING = re.compile(r"(?<![A-Za-z0-9'])([A-Z])(?![A-Za-z0-9'])(?!(?<=I)\s++[a-z])")
_ARTICLE = re.compile(r"A\s++[a-z]")
_WORD = re.compile(r"[^\W_]++")


def parse_interval(text: str) -> Tensor | None:
    """Read one span of time.

    The answer is the content of the last ``<answer>`` block, or what follows ``</think>``, or the whole text. In it the
    last span counts: two numbers joined by ``to``, ``and``, ``until`` or a dash, or a bracketed pair ``[a, b]`` or
    ``(a, b)``. A number is seconds (``5``, ``5.0s``, ``1,000 seconds``) or a clock time (``1:05``, ``00:01:05``); one
    with another unit is not read.

    Args:
        text: what the model wrote.

    Returns:
        float64 ``(2,)``, start and end in seconds with start <= end; ``None`` where there is no such span.

    Example:
        >>> parse_interval("<think>3 to 4?</think><answer>It happens from 5.0s to 10.5s.</answer>")
        tensor([ 5.0000, 10.5000], dtype=torch.float64)
        >>> parse_interval("1:05 - 1:20").tolist()
        [65.0, 80.0]
        >>> parse_interval("I cannot see it.") is None
        True
    """
    spans = _spans(_answer(text))
    return None if not spans or not _is_span(*spans[-1]) else torch.tensor(spans[-1], dtype=torch.float64)


def parse_intervals(text: str) -> Tensor | None:
    """Read all spans of time, in the order of the text.

    The grammar is that of :func:`parse_interval`. One impossible span (reversed, or not finite) makes the whole answer
    unreadable, since leaving it out would score an answer that was not given.

    Args:
        text: what the model wrote.

    Returns:
        float64 ``(N, 2)`` in seconds; ``(0, 2)`` for an answer that is an empty list; ``None`` for no spans.

    Example:
        >>> parse_intervals("<answer>[(1, 2.5), (4, 6)]</answer>").tolist()
        [[1.0, 2.5], [4.0, 6.0]]
        >>> parse_intervals("[]").shape
        torch.Size([0, 2])
        >>> parse_intervals("1 to 2, 9 to 3") is None
        True
    """
    answer = _answer(text)
    if _NO_SPANS.fullmatch(answer):
        return torch.zeros(0, 2, dtype=torch.float64)
    spans = _spans(answer)
    if not spans or not all(_is_span(*span) for span in spans):
        return None
    return torch.tensor(spans, dtype=torch.float64)


def parse_boxes(text: str) -> Tensor | None:
    """Read boxes: every innermost pair of brackets that holds four numbers.

    A bracket with another count of numbers makes the whole answer unreadable; one with anything else is passed by.

    Args:
        text: what the model wrote; of an ``<answer>`` block only the last counts.

    Returns:
        float64 ``(N, 4)``, the numbers as written: their order (corners or sides) and unit are the prompt's; ``None``
        where there is no box or a number is not finite.

    Example:
        >>> parse_boxes("[[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]]").tolist()
        [[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]]
        >>> parse_boxes("[[0.1, 0.2, 0.5]]") is None
        True
    """
    boxes = []
    for match in _INNERMOST.finditer(_answer(text)):
        parts = [part.strip() for part in match[1].split(",")]
        if not all(_LISTED_NUMBER.fullmatch(part) for part in parts):
            continue
        numbers = [float(part) for part in parts]
        if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
            return None
        boxes.append(numbers)
    return torch.tensor(boxes, dtype=torch.float64) if boxes else None


def parse_number(text: str) -> float | None:
    """Read a number in digits.

    The answer (as in :func:`parse_interval`) must hold exactly one number; with several it is not known which is meant.
    Signs, decimals, exponents and commas between thousands are read; words and fractions are not.

    Args:
        text: what the model wrote.

    Returns:
        The finite number, or ``None``.

    Example:
        >>> parse_number("<think>4 or 3</think> About 1,250.5 m")
        1250.5
        >>> parse_number("4 or 3") is None
        True
    """
    found = [match[1] for match in _NUMBER.finditer(_answer(text))]
    if len(found) != 1:
        return None
    value = float(found[0].replace(",", ""))
    return value if math.isfinite(value) else None


def parse_choice(text: str, options: int | Sequence[str]) -> int | None:
    """Read the option that was chosen.

    In the answer (as in :func:`parse_interval`) the first rule that finds letters decides: the last ``answer is B`` or
    ``Answer: B``; a letter at the start with a mark after it (``B``, ``(B) two dogs``, ``B. two dogs``) or letters in
    brackets; letters that stand alone (the words "A" and "I" choose nothing); and last the text of one option, in full.
    Where a rule finds two different options, nothing was chosen.

    Args:
        text: what the model wrote.
        options: how many options there are, 1 to 26, or their texts.

    Returns:
        Index of the option from 0, or ``None``.

    Raises:
        ValueError: if there are no options or more than 26; never for what ``text`` holds.

    References:
        Official readers differ in almost every text: see :mod:`m1lite.metrics.presets.choice`. Unlike them, this one
        reads no letter out of a word ("Because" is not B) and does not choose between two letters.

    Example:
        >>> parse_choice("A is wrong, so the answer is (C).", 4)
        2
        >>> parse_choice("It shows two dogs.", ["a red car", "two dogs"])
        1
        >>> parse_choice("Both B and D", 4) is None
        True
    """
    count = options if isinstance(options, int) else len(options)
    if not 1 <= count <= _MAX_OPTIONS:
        raise ValueError(f"`options` gives {count} options; there must be 1 to {_MAX_OPTIONS}, one letter for each.")
    answer = _answer(text)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]
    found = _said_letters(answer, letters)
    if found:
        return letters.index(next(iter(found))) if len(found) == 1 else None
    return None if isinstance(options, int) else _only_option_in(answer, options)


def format_match(text: str, tags: Sequence[str] = ("think", "answer")) -> bool:
    """Say whether a text is one block of each tag, in this order, and nothing else but blanks between and around.

    Args:
        text: what the model wrote.
        tags: names of the tags, without brackets.

    Returns:
        True if every opening and closing tag occurs once, each block follows the one before it, and all text is in a
        block. Case counts.

    References:
        The rule of the R1 family lets tags repeat: :func:`m1lite.metrics.presets.r1.stretched_format`.

    Example:
        >>> format_match("<think>so</think> <answer>B</answer>")
        True
        >>> format_match("<think>so</think><answer>A</answer><answer>B</answer>")
        False
    """
    rest = text.strip()
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1 or not rest.startswith(opening):
            return False
        _, closed, rest = rest.partition(closing)
        if not closed:
            return False
        rest = rest.lstrip()
    return not rest


def _answer(text: str) -> str:
    """Return the part of a text that answers: the last answer block, else what is not thought, else everything."""
    tags = list(_ANSWER_TAG.finditer(text))
    for position in reversed(range(len(tags))):
        if not tags[position][1]:
            closed = position + 1 < len(tags)
            return text[tags[position].end() : tags[position + 1].start() if closed else len(text)]
    tags = list(_THINK_TAG.finditer(text))
    if not tags:
        return text
    return text[tags[-1].end() :] if tags[-1][1] else ""


def _spans(answer: str) -> list[tuple[float, float]]:
    """Read all pairs of numbers that are written as spans."""
    matches = _SPAN.finditer(answer)
    return [(_seconds(match[1] or match[3]), _seconds(match[2] or match[4])) for match in matches]


def _seconds(written: str) -> float:
    """Read a number or a clock time."""
    sign = -1.0 if written[0] == "-" else 1.0
    seconds = 0.0
    for part in written.lstrip("+-").replace(",", "").split(":"):
        seconds = 60 * seconds + float(part)
    return sign * seconds


def _is_span(start: float, end: float) -> bool:
    return math.isfinite(start) and math.isfinite(end) and start <= end


def _said_letters(answer: str, letters: str) -> set[str]:
    """Return the letters that the first rule with a hit finds: one if an option was chosen, several if none was."""
    whole = _ALONE.fullmatch(answer)
    if whole and whole[1].upper() in letters:
        return {whole[1].upper()}
    said = [match[1] for match in _SAID.finditer(answer) if match[1] in letters]
    if said:
        return {said[-1]}
    leading = _LEADING.match(answer)
    marked = {match[1] for match in _BRACKETED.finditer(answer)} | ({leading[1]} if leading else set())
    if marked & set(letters):
        return marked & set(letters)
    standing = [match for match in _STANDING.finditer(answer) if match[1] in letters]
    # "A" before a word may be an article: alone it chooses nothing, beside another letter it leaves the choice open.
    surely = {match[1] for match in standing if not _ARTICLE.match(answer, match.start())}
    return surely and {match[1] for match in standing}


def _only_option_in(answer: str, options: Sequence[str]) -> int | None:
    """Return the one option whose words stand in the answer, longer options first where one holds another."""
    words = _words(answer)
    found = []
    for index, option in sorted(enumerate(options), key=lambda pair: -len(pair[1])):
        option_words = _words(option)
        if option_words.strip() and option_words in words:
            found.append(index)
            words = words.replace(option_words, "  ")
    return found[0] if len(found) == 1 else None


def _words(text: str) -> str:
    """Return a text's words in lower case, with a blank before and after each."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "
