"""Figures that a program can read: every benchmark notes them; they are printed on lines of their own at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

FIGURES = pytest.StashKey[list[str]]()


def line(name: str, value: float, unit: str, operator: str, target: float) -> str:
    """Spell one figure; NaN stands for one that could not be produced."""
    return f"figure {name} {value:.4g} {unit} target {operator} {target:g}"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Give a function that notes ``(name, value, unit, operator, target)`` for the end of the run."""

    def note(name: str, value: float, unit: str, operator: str, target: float) -> None:
        request.config.stash.setdefault(FIGURES, []).append(line(name, value, unit, operator, target))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    for text in config.stash.get(FIGURES, []):
        terminalreporter.write_line(text)
