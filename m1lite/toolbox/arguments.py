"""The arguments of a tool: read once from its typed signature and docstring, then checked on every call.

A parameter is a word, a whole number, a number, a yes/no, or a list of numbers.
This file knows neither videos nor results, see base.py.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

_SHOWN_CHARACTERS = 60
_MAX_CHARACTERS = 100_000
_MAX_VALUES = 10_000
_MAX_DEPTH = 32
_JSON_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", tuple: "array"}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", tuple: "a list of numbers"}


class ToolArgumentError(ValueError):
    """An argument that a tool refuses; the text names the argument, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Between:
    """Limits of a number, both allowed: ``num_frames: Annotated[int, Between(1, 8)]``."""

    low: float
    high: float


class GivenSchema(Protocol):
    """The JSON schema of a value, from outside."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """As it was written."""

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with a value; ``None`` where it fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One argument of a tool."""

    name: str
    kind: type
    """``str``, ``int``, ``float``, ``bool``, or ``tuple`` for a list of numbers; under a given schema also ``list`` and
    ``dict``."""
    description: str
    required: bool
    default: Any = None
    """What the tool uses where the argument is not given; ``None`` means that it does without."""
    limits: Between | None = None
    choices: tuple[str, ...] = ()
    """The only texts allowed; empty allows any."""
    length: int | None = None
    """How many numbers a list holds; ``None`` allows any number but none."""
    given: GivenSchema | None = None
    """A JSON schema that somebody else wrote: what agents read and what values are checked against."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        if self.given is not None:
            return dict(self.given.schema)
        schema: dict[str, Any] = {"type": _JSON_NAMES[self.kind], "description": self.description}
        if self.kind is tuple:
            most = {} if self.length is None else {"maxItems": self.length}
            return {**schema, "items": {"type": "number"}, "minItems": self.length or 1, **most}
        if self.limits is not None:
            schema |= {"minimum": self.limits.low, "maximum": self.limits.high}
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.default is not None:
            schema["default"] = self.default
        return schema

    def check(self, tool: str, value: Any) -> Any:
        """Return ``value`` in its one form: numbers that are whole become ``int``.

        Raises:
            ToolArgumentError: if the value has another type, is not finite, or lies outside the limits or choices.
        """
        if self.given is not None:
            problem = self.given.problem(value)
            if problem is not None:
                raise ToolArgumentError(f"`{self.name}` of `{tool}` does not fit its schema: {problem}.")
            return value
        read = _read(self.kind, value)
        if read is None:
            raise ToolArgumentError(
                f"`{self.name}` of `{tool}` must be {_WORDS[self.kind]}, got {shorten(value)} ({type(value).__name__})."
            )
        if self.kind is tuple and len(read) != (self.length or len(read) or 1):
            count = "at least 1 number" if self.length is None else f"{self.length} numbers"
            raise ToolArgumentError(f"`{self.name}` of `{tool}` must hold {count}, got {shorten(value)}.")
        if self.choices and read not in self.choices:
            raise ToolArgumentError(
                f"`{self.name}` of `{tool}` must be one of {', '.join(self.choices)}, got {shorten(value)}."
            )
        if self.limits is not None and not self.limits.low <= read <= self.limits.high:
            raise ToolArgumentError(
                f"`{self.name}` of `{tool}` must lie between {self.limits.low:g} and {self.limits.high:g}, "
                f"got {shorten(value)}."
            )
        return read


def shorten(value: Any) -> str:
    """Write ``value`` for an error text, cut where it is long.

    Example:
        >>> shorten("red-square")
        "'red-square'"
    """
    if isinstance(value, int) and not -(10**20) < value < 10**20:
        return "a number of more than 20 digits"  # Python refuses to print the longest ones.
    try:
        text = repr(value[:_SHOWN_CHARACTERS] if isinstance(value, str | list | tuple) else value)
    except RecursionError:
        return f"a {type(value).__name__} of lists in lists"
    except ValueError:  # a number of thousands of digits inside
        return f"a {type(value).__name__} with a number of thousands of digits"
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def read_parameters(function: Callable[..., Any]) -> tuple[str, tuple[Parameter, ...]]:
    """Read what a tool does and takes from its signature and its Google-style docstring.

    Args:
        function: ``f(context, *, ...)`` with ``str``, ``int``, ``float``, ``bool`` or ``Literal`` arguments, each with
            a line under ``Args:``. One with a default may be ``| None``; ``Annotated[int, Between(1, 8)]`` sets limits.

    Returns:
        The docstring's text before its first section, and the parameters in signature order without the context.

    Raises:
        TypeError: if an annotation or a docstring line is missing or cannot be read; names the tool and the argument.
    """
    name = getattr(function, "__name__", repr(function))
    description, lines = read_docstring(inspect.getdoc(function) or "")
    if not description:
        raise TypeError(f"Tool `{name}` needs a docstring that says what it does; agents read it.")
    hints = get_type_hints(function, include_extras=True)
    _, *arguments = inspect.signature(function).parameters.values()
    parameters = tuple(_parameter(name, argument, hints, lines) for argument in arguments)
    unknown = sorted(set(lines) - {parameter.name for parameter in parameters} - {"context"})
    if unknown:
        raise TypeError(f"Tool `{name}` describes {unknown} under `Args:`, which its signature does not take.")
    return description, parameters


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    r"""Split a Google-style docstring into its text before the first section and its ``Args`` lines.

    Args:
        text: the docstring without common indentation.

    Returns:
        The text, paragraphs joined, and argument name to description.

    Example:
        >>> read_docstring("Look.\n\nArgs:\n    query: the object\n        to find.\n\nReturns:\n    A word.")
        ('Look.', {'query': 'the object to find.'})
    """
    summary: list[str] = []
    arguments: dict[str, str] = {}
    section, latest = "", ""
    for line in text.splitlines():
        stripped = line.strip()
        depth = len(line) - len(line.lstrip())
        if depth == 0 and stripped in ("Args:", "Returns:", "Raises:", "Example:", "Examples:", "References:"):
            section = stripped
        elif not section and stripped:
            summary.append(stripped)
        elif section == "Args:" and depth == 4 and ":" in stripped:
            latest, _, first = stripped.partition(":")
            arguments[latest] = first.strip()
        elif section == "Args:" and depth > 4 and latest:
            arguments[latest] = f"{arguments[latest]} {stripped}".strip()
    return " ".join(summary), arguments


def check_values(tool: str, parameters: Mapping[str, Parameter], args: Any) -> dict[str, Any]:
    """Check the arguments of one call; an optional one that is ``None`` counts as not given.

    Args:
        tool: name for the error text.
        parameters: by name, in signature order.
        args: what was given, by name.

    Returns:
        Only the arguments that were given, in signature order, each in its one form.

    Raises:
        ToolArgumentError: if an argument is unknown, missing or wrong, or all together are too large; names it, the
            value and what is allowed.
    """
    if not isinstance(args, Mapping):
        raise ToolArgumentError(
            f"The arguments of `{tool}` must be an object of names and values, got {shorten(args)} "
            f"({type(args).__name__}); it takes {_listing(parameters.values())}."
        )
    _check_extent(tool, args)
    for given in args:
        if given not in parameters:
            raise ToolArgumentError(
                f"`{tool}` has no argument {shorten(given)}; it takes {_listing(parameters.values())}."
            )
    checked = {}
    for name, parameter in parameters.items():
        value = args.get(name)
        if value is not None:
            checked[name] = parameter.check(tool, value)
        elif parameter.required:
            raise ToolArgumentError(
                f"`{tool}` needs `{name}`: {parameter.description} It takes {_listing(parameters.values())}."
            )
    return checked


def _check_extent(tool: str, args: Mapping[str, Any]) -> None:
    """Refuse what is too long, too much or too deep before any check of it, however it is built."""
    characters, values = 0, 1
    waiting: list[tuple[Any, int]] = [(args, 1)]
    while waiting:
        value, depth = waiting.pop()
        holds = value if isinstance(value, Mapping | list | tuple) else ()
        characters += len(value) if isinstance(value, str) else 0
        values += len(holds)
        if characters > _MAX_CHARACTERS or values > _MAX_VALUES or (holds and depth > _MAX_DEPTH):
            raise ToolArgumentError(
                f"The arguments of `{tool}` are too large; allowed are {_MAX_CHARACTERS} characters and {_MAX_VALUES} "
                f"values in all, {_MAX_DEPTH} levels deep."
            )
        waiting += [(entry, depth + 1) for entry in holds]  # an object's names
        waiting += [(entry, depth + 1) for entry in holds.values()] if isinstance(holds, Mapping) else []


def _listing(parameters: Sequence[Parameter] | Any) -> str:
    names = [parameter.name if parameter.required else f"[{parameter.name}]" for parameter in parameters]
    return " ".join(names) or "no arguments"


def _parameter(tool: str, argument: inspect.Parameter, hints: Mapping[str, Any], lines: Mapping[str, str]) -> Parameter:
    name = argument.name
    if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD, argument.POSITIONAL_ONLY):
        raise TypeError(f"Tool `{tool}` takes `{argument}`; every argument of a tool needs a name of its own.")
    if not lines.get(name):
        raise TypeError(f"Tool `{tool}` says nothing about `{name}`; add a line under `Args:` of its docstring.")
    kind, limits, choices, count = _read_annotation(tool, name, hints.get(name))
    required = argument.default is argument.empty
    return Parameter(
        name=name,
        kind=kind,
        description=lines[name],
        required=required,
        default=None if required else argument.default,
        limits=limits,
        choices=choices,
        length=count,
    )


def _read_annotation(tool: str, name: str, hint: Any) -> tuple[type, Between | None, tuple[str, ...], int | None]:
    """Return kind, limits, choices and, of a list, how many numbers it holds."""
    limits = None
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        hint = members[0] if len(members) == 1 else hint
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        limits = next((note for note in notes if isinstance(note, Between)), None)
    if get_origin(hint) is Literal and all(isinstance(choice, str) for choice in get_args(hint)):
        return str, limits, get_args(hint), None
    if get_origin(hint) is tuple and set(get_args(hint)) <= {float, ...}:
        return tuple, limits, (), None if ... in get_args(hint) else len(get_args(hint))
    if hint not in _JSON_NAMES or hint is tuple:
        raise TypeError(
            f"Tool `{tool}` annotates `{name}` as {hint}; allowed are str, int, float, bool, Literal texts and "
            "tuples of float, with `| None` where the argument has a default."
        )
    return hint, limits, (), None


def _read(kind: type, value: Any) -> Any:
    """``value`` in the one form of ``kind``, or ``None`` where it has none: ``True`` and NaN are no numbers."""
    if kind is tuple:
        numbers = [_read(float, entry) for entry in value] if isinstance(value, list | tuple) else [None]
        return None if None in numbers else tuple(numbers)
    if kind in (str, bool):
        return value if isinstance(value, kind) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_as_float(value)):
        return None
    if value == int(value):
        return int(value)
    return value if kind is float else None


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond 1e308
        return math.inf
