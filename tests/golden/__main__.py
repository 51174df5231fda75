"""``python -m tests.golden FILE...``: replay stored cases of official scoring code; exit 1 if a core cell fails."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.golden.cells import Count, replay_section
from tests.golden.sections import SECTIONS

_SHOWN = 5
"""Failures printed per field."""


def main() -> int:
    """Replay the files and print passed / failed / excluded cells per section and field."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=str(__doc__))
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    broken = 0
    totals = Count(core=True)
    for path in parser.parse_args().files:
        for section, rows in json.loads(path.read_text(encoding="utf-8")).items():
            if section.startswith("_"):
                continue
            if section not in SECTIONS:
                print(f"{path.name} {section}: nothing replays this section; there are {sorted(SECTIONS)}")
                broken += 1
                continue
            for field, count in replay_section(SECTIONS[section], rows).items():
                kind = "core" if count.core else "optional"
                print(
                    f"{path.name} {section} {field} [{kind}]: "
                    f"{count.passed} passed, {len(count.failures)} failed, {count.excluded} excluded"
                )
                for failure in count.failures[:_SHOWN]:
                    print(f"    {failure}")
                broken += len(count.failures) if count.core else 0
                totals.passed += count.passed
                totals.excluded += count.excluded
                totals.failures += count.failures
    print(f"all: {totals.passed} passed, {len(totals.failures)} failed, {totals.excluded} excluded")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
