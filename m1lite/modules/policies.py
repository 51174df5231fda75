"""What agents compute with: a base with an adapter for each, or a copy of it in which everything is trained.

Which agent gets which is ``team.py``'s.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from m1lite.engines.model_classes import sees

if TYPE_CHECKING:
    from m1lite.modules.bases import Base

TOWER = r".*\bvisual\b.*"
"""PEFT's pattern of the modules of a vision tower."""
_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def check_head(name: str, base: Base) -> None:
    """Refuse a base whose log-probs do not follow from its last hidden states and one matrix.

    Raises:
        ValueError: naming the base and what stands after its head.
    """
    config = base.model.config.get_text_config()
    scaled = [key for key in _SCALED_LOGITS if getattr(config, key, None)]
    head = base.model.get_output_embeddings()
    if scaled or not isinstance(head, nn.Linear) or head.bias is not None:
        raise ValueError(
            f"Base {name!r} ({type(base.model).__name__}) does not end in a plain linear head"
            f"{' (' + ', '.join(scaled) + ')' if scaled else ''}; its log-probs would be wrong here."
        )


def with_adapters(
    base: Base, agents: list[str], *, rank: int, alpha: int, target_modules: str | list[str], seed: int
) -> nn.Module:
    """Put one adapter per agent into the base's model and freeze the rest; without agents it stays as it is.

    Args:
        base: its model is changed in place.
        agents: names of the adapters.
        rank: as in ``Team``, and so are the rest.
        alpha: see there.
        target_modules: see there.
        seed: see there.
    """
    model: Any = base.model.requires_grad_(False)
    for agent in agents:
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=0.0,
            target_modules=target_modules,
            task_type="CAUSAL_LM",
            # The tower stays as it is, so that its features are computed once; PEFT would adapt its layers too.
            exclude_modules=TOWER if sees(model.config) else None,
        )
        drawn = int.from_bytes(hashlib.blake2b(f"{seed}/{agent}".encode(), digest_size=7).digest())
        with torch.random.fork_rng(devices=[]):  # PEFT draws from the global generator
            torch.manual_seed(drawn)
            if agent == agents[0]:
                model = get_peft_model(model, config, adapter_name=agent)
            else:
                model.add_adapter(agent, config)
    return model


def head_of(model: Any) -> Tensor:
    """Return the output matrix of a bare model, ``(V, D)``."""
    return model.get_output_embeddings().weight


def has_adapters(model: Any) -> bool:
    """Say whether a base lies inside PEFT."""
    return isinstance(model, PeftModel)


def trained_copy(base: Base) -> nn.Module:
    """Copy a base's model before adapters are put into it, in float32: in lower precision small steps vanish.

    Raises:
        ValueError: if the base sees: its features are kept, which a tower that is trained would not allow.
    """
    if sees(base.model.config):
        raise ValueError(
            f"{type(base.model).__name__} has a vision tower, which stays frozen; train the agent by an adapter."
        )
    model: Any = deepcopy(base.model)
    return model.float().requires_grad_(True)
