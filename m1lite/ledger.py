"""What the stages of a run cost and found; on disk after every stage, so that a run that is continued adds up."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from m1lite.evaluation import Verdict


@dataclass(kw_only=True)
class Ledger:
    """Seconds, CPU seconds and tokens per stage, validation scores of the cold start, and all verdicts."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    cold_start: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    tokens: dict[str, dict[str, int]] = field(default_factory=dict)
    """Stage to how many tokens models read and sampled in it, and how many they were trained on."""
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    """Evaluation to its verdicts; they lie in files of their own."""

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Take up what an earlier part of the run wrote, or begin."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else cls()

    def write(self, path: Path) -> None:
        """Write everything but the verdicts."""
        kept = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "tokens": self.tokens}
        write_whole(path, json.dumps({**kept, "cold_start": self.cold_start}, indent=1))

    def spend(self, spent: Mapping[str, tuple[float, float]]) -> None:
        """Add seconds and CPU seconds to stages; a stage that was interrupted and continued took both times."""
        for name, (wall, cpu) in spent.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + wall
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + cpu

    def count(self, name: str, tokens: Mapping[str, int]) -> None:
        """Add tokens to a stage: ``read``, ``sampled``, ``trained``; they count as often as they were spent."""
        for kind, number in tokens.items():
            kinds = self.tokens.setdefault(name, {})
            kinds[kind] = kinds.get(kind, 0) + number

    def keep(self, name: str, rows: list[Verdict]) -> None:
        """Note an evaluation's verdicts."""
        self.verdicts[name] = rows


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
