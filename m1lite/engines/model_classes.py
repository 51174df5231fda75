"""Which of transformers' automatic classes loads a model: those that see are not among the causal language models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def sees(config: PretrainedConfig) -> bool:
    """Whether a model of this configuration has a vision tower."""
    return getattr(config, "vision_config", None) is not None


def model_class(config: PretrainedConfig) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    """Return the class whose ``from_pretrained`` and ``from_config`` make the model with its language head."""
    return AutoModelForImageTextToText if sees(config) else AutoModelForCausalLM
