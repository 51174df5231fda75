"""Replays of grounded_qa scoring."""

from __future__ import annotations

from tests.golden.cells import Section

SECTIONS: dict[str, Section] = {}
