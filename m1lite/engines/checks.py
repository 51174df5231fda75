"""What every engine refuses before it draws or loads anything, so that a refusal leaves the engine as it was.

Nothing here imports torch at run time, transformers or vllm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m1lite.engines.base import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch
    from torch import Tensor

    from m1lite.engines.base import Request
    from m1lite.engines.sight import Sight

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 2.0
"""vLLM clamps below the former without an error, which biases the importance ratio, and refuses above the latter."""


def check_request(
    request: Request, *, policies: Collection[str], max_model_len: int | None, vocab_size: int | None
) -> None:
    """Check a request before it is queued.

    Args:
        request: what is to be drawn.
        policies: names that the engine serves.
        max_model_len: tokens of context, the reply included; ``None`` checks no length.
        vocab_size: ids must lie below it; ``None`` checks no ids.

    Raises:
        EngineError: naming the policy, the value, what is allowed and the remedy.
    """
    if request.policy not in policies:
        raise EngineError(f"No policy {request.policy!r} in this engine; there are {sorted(policies)}.")
    _check_sampling(request)
    _check_prompt(request, max_model_len, vocab_size)


def _check_sampling(request: Request) -> None:
    temperature, tokens = request.sampling.temperature, request.sampling.max_new_tokens
    if temperature != 0 and not LOWEST_TEMPERATURE <= temperature <= HIGHEST_TEMPERATURE:
        raise EngineError(
            f"Policy {request.policy!r} asks for `temperature` {temperature}; allowed are 0 (greedy) and "
            f"[{LOWEST_TEMPERATURE}, {HIGHEST_TEMPERATURE}]."
        )
    if tokens < 1:
        raise EngineError(f"Policy {request.policy!r} asks for `max_new_tokens` {tokens}; at least 1 is needed.")


def _check_prompt(request: Request, max_model_len: int | None, vocab_size: int | None) -> None:
    length = len(request.prompt_ids)
    if length == 0:
        raise EngineError(f"Policy {request.policy!r} got an empty prompt; at least 1 token is needed.")
    if max_model_len is not None and length >= max_model_len:
        raise EngineError(
            f"A prompt of policy {request.policy!r} has {length} tokens and leaves no room for a reply in a context of "
            f"{max_model_len}; shorten it (fewer calls, shorter results) or raise `max_model_len`."
        )
    if vocab_size is not None:
        for extreme in (min(request.prompt_ids), max(request.prompt_ids)):
            if not 0 <= extreme < vocab_size:
                raise EngineError(
                    f"A prompt of policy {request.policy!r} holds token id {extreme}, outside [0, {vocab_size}); was "
                    "it written with another base's tokenizer?"
                )


def check_media(request: Request, sight: Sight | None, *, can_decode: bool) -> None:
    """Check that a request's pictures can be seen, and stand where its placeholders are.

    Args:
        request: what is to be drawn.
        sight: how the base sees; ``None`` for one that does not.
        can_decode: whether the engine got a cache of frames.

    Raises:
        EngineError: naming the policy, what does not fit and the remedy.
    """
    if sight is None:
        if request.media:
            raise EngineError(
                f"Policy {request.policy!r} is shown {len(request.media)} pictures, but its base has no vision tower."
            )
        return
    if request.media and not can_decode:
        raise EngineError(
            f"Policy {request.policy!r} is shown {len(request.media)} pictures, but the engine was built without "
            "`frames` to decode them; pass a `FrameCache`."
        )
    try:
        sight.check(request.prompt_ids, request.media, f"A prompt of policy {request.policy!r}")
    except ValueError as mismatch:
        raise EngineError(str(mismatch)) from mismatch


def check_policy(policy: str, policies: Collection[str]) -> None:
    """Check the policy of a weight update.

    Raises:
        EngineError: if the engine does not serve it.
    """
    if policy not in policies:
        raise EngineError(f"No policy {policy!r} in this engine to load weights for; there are {sorted(policies)}.")


def check_state_dict(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Check that new base weights are the whole model, tied head included.

    A part of a model loads without an error and leaves stale copies behind: the packed head of a tied model, or a fused
    query-key-value matrix of which one third is new.

    Args:
        weights: the new tensors by their ``state_dict`` names.
        shapes: the shapes of the model's own ``state_dict``.

    Raises:
        EngineError: naming what is missing, unknown, or of another shape.
    """
    missing, unknown = sorted(shapes.keys() - weights.keys()), sorted(weights.keys() - shapes.keys())
    if missing or unknown:
        raise EngineError(
            f"New base weights must be the whole `state_dict()`: {len(missing)} names are missing {missing[:3]}, "
            f"{len(unknown)} are unknown {unknown[:3]}; `named_parameters()` leaves out tied weights."
        )
    for name, tensor in weights.items():
        if tensor.shape != shapes[name]:
            raise EngineError(f"New base weight {name!r} has shape {tuple(tensor.shape)}, not {tuple(shapes[name])}.")


def nonnegative_seed(seed: int) -> int:
    """Map any whole number to ``[0, 2**63)``: vLLM reads the seed -1 as no seed at all.

    Example:
        >>> nonnegative_seed(7), nonnegative_seed(-1)
        (7, 9223372036854775807)
    """
    return seed % 2**63
