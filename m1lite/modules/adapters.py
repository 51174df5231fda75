"""Adapters on disk, in PEFT's own format, so that any program that reads PEFT can use a trained agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.modules.team import Team

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_adapters(team: Team, directory: str | Path) -> None:
    """Write every agent's adapter to a folder of its name.

    Args:
        team: the agents.
        directory: where to write; made if missing.
    """
    for agent in team.agents:
        folder = Path(directory) / agent
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in team.adapter_tensors(agent).items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(team.adapter_config(agent), indent=1) + "\n", encoding="utf-8")


def read_adapter(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read an adapter as an engine takes it.

    Returns:
        The tensors under PEFT's state-dict names, and the configuration.

    Raises:
        FileNotFoundError: naming the file that is missing.
    """
    for name in (WEIGHTS, CONFIG):
        if not (Path(folder) / name).is_file():
            raise FileNotFoundError(f"No {name} in {folder}; give the folder of one agent in a run's `adapters`.")
    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    return load_file(Path(folder) / WEIGHTS), config
