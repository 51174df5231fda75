"""Replays of caption scoring."""

from __future__ import annotations

from tests.golden.cells import Section

SECTIONS: dict[str, Section] = {}
