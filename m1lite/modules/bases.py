"""Frozen base models: loading one by name or path, streaming its weights, and the hash that tells two bases apart.

Adapters and agents are in ``team.py``; tiny random bases in ``tiny.py``.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import AutoConfig

from m1lite.engines.model_classes import model_class
from m1lite.modules.ranks import barrier, this_rank
from m1lite.modules.tiny import load_tokenizer, save_tiny_base
from m1lite.modules.tiny_vision import save_tiny_vision_base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from m1lite.modules.tiny_vision import Family


@dataclass(kw_only=True, slots=True)
class Base:
    """A language model that several agents share, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    """Model name or directory, as an engine would load it; empty for a model that was built in memory."""
    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass: less memory for one more forward pass."""

    def __repr__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        return f"Base(name={self.name!r}, {type(self.model).__name__}, weights={weights})"


def load_base(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    attention: str = "sdpa",
    trust_remote_code: bool = False,
    gradient_checkpointing: bool = False,
    weights: bool = True,
) -> Base:
    """Load a language model, with its vision tower where it has one, and its tokenizer; frozen and in eval mode.

    Args:
        name: a directory, or a model's name on the hub such as ``"Qwen/Qwen3-8B"``.
        revision: commit, tag or branch on the hub.
        dtype: of the frozen weights and the compute; ``"bfloat16"`` for real models.
        attention: transformers' name of the attention kernel.
        trust_remote_code: run Python code that comes with the model.
        gradient_checkpointing: recompute each layer in the backward pass.
        weights: False leaves them out, where an engine that loads its own is all that computes: the model is then one
            on the meta device.

    Raises:
        ValueError: if ``dtype`` is not a floating point type that models come in.
    """
    allowed = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in allowed:
        raise ValueError(f"`dtype` {dtype!r} is not one of {sorted(allowed)}.")
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    made: dict[str, Any] = {"dtype": allowed[dtype], "attn_implementation": attention}
    config = AutoConfig.from_pretrained(name, **common)
    kind: Any = model_class(config)
    if weights:
        model = kind.from_pretrained(name, **made, **common)
    else:
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=trust_remote_code, **made)
    return Base(
        model=model.requires_grad_(False).eval(),
        tokenizer=load_tokenizer(name, **common),
        name=name,
        gradient_checkpointing=gradient_checkpointing,
    )


def base_tensors(model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the base's own weights under their transformers names, tied head included, with or without adapters on it.

    Args:
        model: a transformers model, bare or inside PEFT.
    """
    for name, tensor in model.state_dict().items():
        if ".lora_" not in name:
            yield name.removeprefix("base_model.model.").replace(".base_layer.", "."), tensor


def hash_weights(model: torch.nn.Module) -> str:
    """Return a hash of the base's names, shapes, types and bits; adapters do not change it.

    Args:
        model: a transformers model, bare or inside PEFT.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(base_tensors(model), key=lambda pair: pair[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def stored_tiny_base(
    directory: str,
    architecture: Literal["qwen3", "qwen2"],
    *,
    hidden_size: int = 128,
    num_layers: int = 2,
    seed: int = 0,
    weights: bool = True,
) -> Base:
    """Make a tiny base of random weights on disk, where an engine can load it too; rank 0 writes, every rank loads.

    Args:
        directory: where it lies; what lies there already is taken as it is.
        architecture: as in ``tiny_base``.
        hidden_size: as in ``tiny_base``.
        num_layers: as in ``tiny_base``.
        seed: as in ``tiny_base``.
        weights: as in :func:`load_base`.
    """
    save = partial(save_tiny_base, architecture=architecture, hidden_size=hidden_size, num_layers=num_layers, seed=seed)
    _store(directory, save)
    return load_base(directory, weights=weights)


def stored_tiny_vision_base(
    directory: str,
    family: Family,
    *,
    hidden_size: int = 128,
    num_layers: int = 2,
    patch_size: int | None = None,
    whole_numbers: int = 0,
    seed: int = 0,
    weights: bool = True,
) -> Base:
    """Make a tiny vision-language base of random weights on disk; rank 0 writes, every rank loads.

    Args:
        directory: where it lies; what lies there already is taken as it is.
        family: as in ``tiny_vision_base``.
        hidden_size: as in ``tiny_vision_base``.
        num_layers: as in ``tiny_vision_base``.
        patch_size: as in ``tiny_vision_base``.
        whole_numbers: as in ``tiny_vision_base``.
        seed: as in ``tiny_vision_base``.
        weights: as in :func:`load_base`.
    """
    save = partial(
        save_tiny_vision_base,
        family=family,
        hidden_size=hidden_size,
        num_layers=num_layers,
        patch_size=patch_size,
        whole_numbers=whole_numbers,
        seed=seed,
    )
    _store(directory, save)
    return load_base(directory, weights=weights)


def _store(directory: str, save: Callable[[Path], None]) -> None:
    """Write a base on rank 0 where none lies, and wait for it on every rank."""
    path = Path(directory)
    if this_rank() == 0 and not (path / "config.json").is_file():
        # Renamed when it is whole: an interrupted run leaves no half of a base behind.
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        save(fresh)
        os.replace(fresh, path)
    barrier()
