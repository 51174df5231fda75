"""An adapter is put into its base for good, between two trainings; while one runs, it stays apart from its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import AutoProcessor

from m1lite.engines.model_classes import sees
from m1lite.modules.adapters import read_adapter
from m1lite.modules.bases import load_base

if TYPE_CHECKING:
    from collections.abc import Mapping


@torch.no_grad()
def save_merged(base: str, adapter: str | Path, directory: str | Path) -> None:
    """Write a base with an adapter added to its weights, in float32: W + (alpha / r) B A.

    Args:
        base: directory or name of the base.
        adapter: folder of one agent in a run's ``adapters``.
        directory: where to write; must not exist. It appears when it is whole.

    Raises:
        ValueError: if the folder holds a whole model, which needs no merging.
    """
    tensors, config = read_adapter(adapter)
    if not config:
        raise ValueError(f"{adapter} holds a whole model, not an adapter; take it as the base itself.")
    found = load_base(base)
    model: Any = get_peft_model(found.model, _lora(config))
    set_peft_model_state_dict(model, tensors)
    merged: Any = model.merge_and_unload()
    whole = Path(directory)
    partial = whole.with_name(f".{whole.name}")
    merged.save_pretrained(partial)
    texts: Any = AutoProcessor.from_pretrained(base) if sees(merged.config) else found.tokenizer
    texts.save_pretrained(partial)
    partial.rename(whole)


def _lora(config: Mapping[str, Any]) -> LoraConfig:
    known = LoraConfig.__dataclass_fields__
    return LoraConfig(**{name: value for name, value in config.items() if name in known})
