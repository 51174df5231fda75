"""Whether an adapter fits a base: every module that it adapts is there, with its sizes and the rank of its config.

For engines that cannot look into the process that computes. Nothing here imports transformers, PEFT or vllm.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from m1lite.engines.base import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


def check_adapter(
    policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], shapes: Mapping[str, torch.Size]
) -> None:
    """Check an adapter before it is published.

    Args:
        policy: whose adapter, for the message.
        tensors: under PEFT's state-dict names.
        config: of PEFT.
        shapes: the shapes of the base's ``state_dict``.

    Raises:
        EngineError: naming the tensor, what it is, and what the base or the config has.
    """
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.startswith(("pissa", "olora", "corda", "loftq")):
        raise EngineError(
            f"`init_lora_weights` {start!r} of policy {policy!r} changes the base weights, which an adapter's tensors "
            "cannot carry; use True or 'gaussian'."
        )
    ranks = {int(config["r"]), *(config.get("rank_pattern") or {}).values()}
    sides: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        module = found["module"] if found else ""
        shape = shapes.get(f"{module}.weight")
        if found is None or shape is None or len(shape) != 2:
            raise EngineError(
                f"The adapter of policy {policy!r} does not fit this base: {name!r} has no place in the model; were "
                "`target_modules` chosen for another base?"
            )
        rank, size = tensor.shape if found["side"] == "A" else tensor.shape[::-1]
        wanted = shape[1] if found["side"] == "A" else shape[0]
        if size != wanted:
            raise EngineError(
                f"The adapter of policy {policy!r} does not fit this base: {name!r} has shape {tuple(tensor.shape)} "
                f"for a weight of shape {tuple(shape)}."
            )
        if rank not in ranks:
            raise EngineError(
                f"The adapter of policy {policy!r} does not fit its config: {name!r} has rank {rank}, the config says "
                f"{sorted(ranks)}."
            )
        sides.setdefault(module, set()).add(found["side"])
    halves = sorted(module for module, found in sides.items() if found != {"A", "B"})
    if halves or not sides:
        raise EngineError(
            f"The adapter of policy {policy!r} is not whole: {len(halves)} modules lack `lora_A` or `lora_B` "
            f"{halves[:2]}, of {len(sides)}; send `get_peft_model_state_dict(model)`."
        )
