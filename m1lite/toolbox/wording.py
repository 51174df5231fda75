"""Words that the classical tools share: how a number is written, which windows exist, which objects have a name.

Refusals are ``ToolArgumentError``: the agent reads them as the result of its call.
"""

from __future__ import annotations

from m1lite.toolbox.arguments import ToolArgumentError, shorten
from m1lite.toolbox.perception import COLOURS, OBJECTS, SHAPES

ANYTHING = "objects"
"""The question for whatever there is, not for one object."""
NOTHING = "none"
_KNOWN = frozenset(OBJECTS)


def number(value: float) -> str:
    """Write seconds, pixels or a count: whole without decimals, else with at most two.

    Example:
        >>> number(5.0), number(2.25)
        ('5', '2.25')
    """
    rounded = round(value, 2)
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)


def window(duration: float, start: float | None, end: float | None) -> tuple[float, float]:
    """Return the window ``[start, end)`` in seconds; a side that is not given is the video's.

    Raises:
        ToolArgumentError: if the window leaves the video or holds no time.

    Example:
        >>> window(47.0, 10, None)
        (10, 47.0)
    """
    first = 0.0 if start is None else start
    last = duration if end is None else end
    if first < 0:
        raise ToolArgumentError(f"`start` {number(first)} is before the video, which starts at 0.")
    if last > duration:
        raise ToolArgumentError(f"`end` {number(last)} is past the video end {number(duration)}.")
    if first >= duration:
        raise ToolArgumentError(f"`start` {number(first)} is not before the video end {number(duration)}.")
    if first >= last:
        raise ToolArgumentError(f"`start` {number(first)} must be before `end` {number(last)}.")
    return first, last


def check_object(argument: str, word: str, *, or_anything: bool = False) -> None:
    """Refuse a word that names no object.

    Args:
        argument: the argument's name, for the error text.
        word: what was given.
        or_anything: allow ``objects`` too.

    Raises:
        ToolArgumentError: names the word and what is allowed.
    """
    if word in _KNOWN or (or_anything and word == ANYTHING):
        return
    asked = f"`{ANYTHING}` or one object" if or_anything else "one object"
    raise ToolArgumentError(
        f"`{argument}` {shorten(word)} is not {asked}; an object is a colour of {', '.join(COLOURS)} and a shape of "
        f"{', '.join(SHAPES)}, such as {OBJECTS[0]}."
    )
