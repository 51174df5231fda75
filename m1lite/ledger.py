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
    tokens: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    """Evaluation to its verdicts; they lie in files of their own."""

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Take up what an earlier part of the run wrote, or begin."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else cls()

    def write(self, path: Path) -> None:
        """Write everything but the verdicts."""
        kept = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "cold_start": self.cold_start}
        write_whole(path, json.dumps(kept, indent=1))

    def spend(self, spent: Mapping[str, tuple[float, float]]) -> None:
        """Add seconds and CPU seconds to stages; a stage that was interrupted and continued took both times."""
        for name, (wall, cpu) in spent.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + wall
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + cpu

    def keep(self, name: str, rows: list[Verdict]) -> None:
        """Note an evaluation's verdicts and its tokens."""
        self.verdicts[name] = rows
        self.tokens[name] = sum(row.sampled_tokens + row.read_tokens for row in rows)


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
