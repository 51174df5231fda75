"""Several trainings one after the other as one command: each starts from the policy that the one before has learnt.

A stage is a run of its own, in a folder and a process of its own; one that has ended is not run again, and one that was
stopped goes on where it was. Between two stages the adapter is put into its base.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from m1lite.configuration import ConfigError, run_config
from m1lite.console import say
from m1lite.ledger import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from omegaconf import DictConfig

_OWN = ("experiment=", "resume=", "hydra.", "hydra/")
"""Overrides that are the chain's, and not for its stages."""


def run_chain(
    stages: Sequence[str],
    overrides: Sequence[str],
    directory: Path,
    *,
    start: Callable[[list[str]], int] | None = None,
) -> int:
    """Run the stages that are not done yet.

    Args:
        stages: names of experiments, in order.
        overrides: for all of them; those of the first call hold when the chain is continued.
        directory: gets a folder for each stage.
        start: runs a training with these overrides and returns its exit code; None starts a process.

    Returns:
        0, or the exit code of the stage that failed or was stopped.

    Raises:
        ConfigError: if a stage has learnt what cannot be handed over.
    """
    start = start_training if start is None else start
    note = directory / "chain.json"
    if note.is_file():
        overrides = json.loads(note.read_text(encoding="utf-8"))
    else:
        overrides = [override for override in overrides if not override.startswith(_OWN)]
        write_whole(note, json.dumps(list(overrides)))
    before: Path | None = None
    for number, stage in enumerate(stages, start=1):
        folder = directory / f"{number}_{stage}"
        if (folder / "metrics.json").is_file():
            say(f"Stage {number} of {len(stages)}, {stage}, is done: {folder}")
        else:
            say(f"Stage {number} of {len(stages)}: {stage}")
            code = start(_arguments(stage, folder, overrides, before))
            if code:
                say(f"Stage {stage} ended with code {code}. Continue with: python -m m1lite.train resume={directory}")
                return code
        before = folder
    return 0


def start_training(arguments: Sequence[str]) -> int:
    """Run a training in a process of its own; a signal that stops this one lets that one save itself first."""
    process = subprocess.Popen([sys.executable, "-m", "m1lite.train", *arguments])
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),  # the terminal sends it to both
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number)),
    }
    try:
        code = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def handed_over(folder: Path) -> list[str]:
    """Put what a finished run has learnt into its bases, and give the overrides that start from them.

    Args:
        folder: of the run.

    Raises:
        ConfigError: if several agents share a base, or one trained all weights of its own copy.
    """
    config = run_config(folder)
    overrides = []
    for name in map(str, config.team.bases):
        agents = [str(agent) for agent, member in config.team.agents.items() if member.base == name]
        if len(agents) > 1:
            raise ConfigError(f"{', '.join(agents)} share the base {name!r}; a chain hands over one agent of a base.")
        if not agents:
            continue
        if config.team.agents[agents[0]].get("full", False):
            raise ConfigError(f"`team.agents.{agents[0]}.full` is set; a chain hands over adapters.")
        merged = folder / "merged" / name
        if not merged.is_dir():
            from m1lite.modules.merging import save_merged  # heavy

            merged.parent.mkdir(exist_ok=True)
            save_merged(_base_of(config, folder, name), folder / "adapters" / agents[0], merged)
        overrides.append(f"team.bases.{name}.{_place(config, name)}='{merged}'")
    return overrides


def _arguments(stage: str, folder: Path, overrides: Sequence[str], before: Path | None) -> list[str]:
    if (folder / "config.yaml").is_file():
        return [f"resume={folder}"]
    start = [] if before is None else handed_over(before)
    return [f"experiment={stage}", *overrides, *start, f"hydra.run.dir='{folder}'", f"output_dir='{folder}'"]


def _base_of(config: DictConfig, folder: Path, name: str) -> str:
    """Return where the base lies that the adapters of a run are for: the cold start's, or the one it began with."""
    trained = folder / "bases" / name
    return str(trained) if trained.is_dir() else str(config.team.bases[name][_place(config, name)])


def _place(config: DictConfig, name: str) -> str:
    """Return the key that says where a base lies."""
    return "directory" if "directory" in config.team.bases[name] else "name"
