"""Replays stored inputs of official scoring code and compares with its stored outputs, cell by cell.

A file maps section to a list of rows; a row holds inputs and, per official function, an output. A cell is one
(row, output field). What replays a field stands in ``replays_*.py`` beside this file: each has SECTIONS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
"""The inputs of a row; its outputs have been taken out."""

_DESCRIPTIONS = ("tag", "note")
"""Keys that only say what a row is about, in any section."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """How one output field of a section is replayed."""

    replay: Callable[[Row], Any]
    core: bool = True
    """False: reported, and a failure doesn't fail the run."""
    relative: float = 1e-9
    absolute: float = 1e-12


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Cells that are not replayed, with the reason; ``when`` sees the inputs only, None excludes the whole field."""

    field: str
    reason: str
    when: Callable[[Row], bool] | None = None


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the stored files."""

    fields: Mapping[str, Field]
    inputs: Sequence[str]
    """Keys of a row that are inputs. Every other key must be a field or excluded."""
    exclusions: Sequence[Exclusion] = ()


@dataclass(kw_only=True)
class Count:
    """Outcome of the cells of one field."""

    core: bool
    passed: int = 0
    excluded: int = 0
    failures: list[str] = field(default_factory=list)


def replay_section(section: Section, rows: Sequence[Row]) -> dict[str, Count]:
    """Replay every cell of a section's rows; the result maps field to outcome."""
    counts: dict[str, Count] = {}
    for number, row in enumerate(rows):
        inputs = {key: row[key] for key in (*section.inputs, *_DESCRIPTIONS) if key in row}
        for name in row:
            if name in inputs:
                continue
            cell = section.fields.get(name)
            count = counts.setdefault(name, Count(core=cell is None or cell.core))
            if _raised(row[name]) or _is_excluded(section, name, inputs):
                count.excluded += 1
            elif cell is None:
                count.failures.append(f"row {number}: nothing replays the field {name!r}")
            else:
                problem = _difference(cell, inputs, row[name])
                if problem:
                    count.failures.append(f"row {number}: {problem}")
                else:
                    count.passed += 1
    return counts


def decoded(value: Any) -> Any:
    """Turn "nan", "inf" and "-inf" into the floats they stand for, at any depth; for inputs that are numbers."""
    if isinstance(value, Mapping):
        return {key: decoded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [decoded(entry) for entry in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


def _raised(expected: Any) -> bool:
    """Say whether the official code raised an exception; what it would have scored is unknown."""
    return isinstance(expected, Mapping) and set(expected) == {"error"}


def _is_excluded(section: Section, name: str, inputs: Row) -> bool:
    return any(rule.field == name and (rule.when is None or rule.when(inputs)) for rule in section.exclusions)


def _difference(cell: Field, inputs: Row, expected: Any) -> str:
    try:
        found = cell.replay(inputs)
    except Exception as error:  # a crash of the code under test is a failed cell, and the rest goes on
        return f"expected {expected!r}, raised {error!r}"
    same = equal(found, expected, relative=cell.relative, absolute=cell.absolute)
    return "" if same else f"expected {expected!r}, found {found!r}"


def equal(found: Any, expected: Any, *, relative: float, absolute: float) -> bool:
    """Compare numbers within a tolerance and everything else exactly; "nan" and "inf" stand for the numbers.

    Where one value of several is an exception of the official code, anything will do.
    """
    if _raised(expected):
        return True
    if expected in ("nan", "inf", "-inf") and isinstance(found, float):
        expected = float(expected)
    if isinstance(expected, Mapping):
        return (
            isinstance(found, Mapping)
            and {str(key) for key in found} == {str(key) for key in expected}
            and all(equal({str(k): v for k, v in found.items()}[str(key)], value, relative=relative, absolute=absolute)
                    for key, value in expected.items())
        )  # fmt: skip
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(found, (list, tuple))
            and len(found) == len(expected)
            and all(equal(a, b, relative=relative, absolute=absolute) for a, b in zip(found, expected, strict=True))
        )
    if isinstance(expected, (int, float)) and not isinstance(expected, bool):
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            return False
        if expected != expected or found != found:
            return expected != expected and found != found
        return found == expected or math.isclose(found, expected, rel_tol=relative, abs_tol=absolute)
    return type(found) is type(expected) and found == expected
