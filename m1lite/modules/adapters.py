"""Trained agents on disk: adapters in PEFT's own format, whole models in that of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from m1lite.modules.bases import base_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.modules.team import Team

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_adapters(team: Team, directory: str | Path) -> None:
    """Write every agent's adapter, or its whole model where it is trained in full, to a folder of its name.

    Args:
        team: the agents.
        directory: where to write; made if missing.
    """
    for agent in team.agents:
        folder = Path(directory) / agent
        folder.mkdir(parents=True, exist_ok=True)
        if agent in team.copies:
            model: Any = team.copies[agent]
            model.save_pretrained(folder)
            team.tokenizers[team.members[agent]].save_pretrained(folder)
            continue
        tensors = {name: tensor.cpu().contiguous() for name, tensor in team.adapter_tensors(agent).items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(team.adapter_config(agent), indent=1) + "\n", encoding="utf-8")


def read_adapter(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read an agent as ``Team.adapter_tensors`` and ``Team.adapter_config`` gave it.

    Returns:
        The tensors under PEFT's state-dict names, and the configuration; for a whole model its tensors under the names
        of transformers, and nothing.

    Raises:
        FileNotFoundError: naming the file that is missing.
    """
    if (Path(folder) / "config.json").is_file():
        return dict(base_tensors(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))), {}
    for name in (WEIGHTS, CONFIG):
        if not (Path(folder) / name).is_file():
            raise FileNotFoundError(f"No {name} in {folder}; give the folder of one agent in a run's `adapters`.")
    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    return load_file(Path(folder) / WEIGHTS), config
