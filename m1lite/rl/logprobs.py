"""Log-probabilities of given tokens, from logits or from hidden states and the output head.

The second form never holds (tokens x vocabulary) for more than one chunk. It covers heads without bias, as the Qwen
family has them. Which positions predict which tokens (the shift by one) is the caller's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_CHUNK_LOGITS = 2**26
"""Logits held at once where the caller names no chunk: 256 MiB in float32."""


def token_logprobs(logits: Tensor, ids: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""Log-probability of each given token.

    .. math:: \log\pi_t = z_{t, y_t} / \tau - \log \sum_v e^{z_{t,v} / \tau}

    Args:
        logits: float ``(..., V)``; half precision is cast up to float32.
        ids: long ``(...)``, the tokens in [0, V).
        temperature: tau, above 0: the one that the tokens were sampled at.

    Returns:
        ``(...)``, float32 or float64 as the logits.

    Raises:
        ValueError: if the temperature is not above 0 or the shapes do not fit.

    Example:
        >>> token_logprobs(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([-0.6931])
    """
    _check(logits, ids, temperature)
    scaled = _at_least_float32(logits) / temperature
    return scaled.gather(-1, ids[..., None])[..., 0] - scaled.logsumexp(-1)  # (..., V) -> (...)


def token_entropies(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""Exact entropy of each token's distribution, in nats.

    .. math:: H_t = -\sum_v \pi_{t,v} \log \pi_{t,v}

    Args:
        logits: float ``(..., V)``; half precision is cast up to float32.
        temperature: above 0.

    Returns:
        ``(...)``, in [0, log V], differentiable.

    Raises:
        ValueError: if the temperature is not above 0.

    Example:
        >>> token_entropies(torch.tensor([[0.0, 0.0]]))
        tensor([0.6931])
    """
    _check_temperature(temperature)
    logprobs = (_at_least_float32(logits) / temperature).log_softmax(-1)
    return torch.special.entr(logprobs.exp()).sum(-1)


def hidden_logprobs(
    hidden: Tensor,
    head: Tensor,
    ids: Tensor,
    *,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
    entropies: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each given token from hidden states, one chunk of logits at a time.

    With a frozen head the gradient towards ``hidden`` is one row per token, ``(head[id] - p @ head) / temperature``; it
    is formed while the chunk's probabilities are at hand, and nothing is computed again. With a trained head the logits
    of the chunk are computed again in the backward pass.

    Args:
        hidden: float ``(..., D)``, the last hidden states.
        head: float ``(V, D)``, the output matrix, of the dtype of ``hidden``.
        ids: long ``(...)``, the tokens in [0, V).
        temperature: above 0: the one that the tokens were sampled at.
        chunk_tokens: tokens whose logits are held at once; None: as many as make 64 Mi logits.
        entropies: return the exact entropies too, without gradient.

    Returns:
        Log-probs ``(...)`` in float32 (float64 for float64 input), and entropies ``(...)`` or None.

    Raises:
        ValueError: if the temperature is not above 0, ``chunk_tokens`` is below 1, or the shapes do not fit.

    Example:
        >>> logprobs, _ = hidden_logprobs(torch.tensor([[1.0]]), torch.tensor([[0.0], [0.0]]), torch.tensor([0]))
        >>> logprobs
        tensor([-0.6931])
    """
    if head.ndim != 2 or head.shape[1] != hidden.shape[-1]:
        raise ValueError(
            f"`head` has shape {tuple(head.shape)}; it must be (vocabulary, {hidden.shape[-1]}) for these states."
        )
    _check(hidden, ids, temperature)
    if chunk_tokens is None:
        chunk_tokens = max(1, _CHUNK_LOGITS // len(head))
    elif chunk_tokens < 1:
        raise ValueError(f"`chunk_tokens` is {chunk_tokens}; it must be at least 1, or None for a default.")
    rows, targets = hidden.reshape(-1, hidden.shape[-1]), ids.reshape(-1)  # (N, D), (N,)
    differentiable = torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad)
    if differentiable and head.requires_grad:
        scores, spread = _trained_head(rows, head, targets, temperature, chunk_tokens, entropies)
    else:
        options = (temperature, chunk_tokens, entropies, differentiable)
        scores, spread = _FrozenHead.apply(rows, head, targets, *options)
    return scores.reshape(ids.shape), spread.reshape(ids.shape) if entropies else None


class _FrozenHead(torch.autograd.Function):
    """Log-probs whose gradient towards the hidden states is formed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, ids: Tensor, temperature: float, chunk: int, entropies: bool, keep: bool
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        scores = hidden.new_empty(len(hidden), dtype=dtype)
        spread = hidden.new_zeros(len(hidden) if entropies else 0, dtype=dtype)
        rows = torch.empty_like(hidden) if keep else hidden.new_empty(0)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = (hidden[part] @ head.T).to(dtype).div_(temperature)  # (chunk, V), the only tensor of this size
            picked = logits.gather(1, ids[part, None])[:, 0]
            peak = logits.amax(1)
            probs = logits.sub_(peak[:, None]).exp_()
            mass = probs.sum(1)
            scores[part] = picked - peak - mass.log()
            if not (entropies or keep):
                continue
            probs.div_(mass[:, None])
            if entropies:
                spread[part] = torch.special.entr(probs).sum(1)
            if keep:
                rows[part] = (head[ids[part]] - probs.to(head.dtype) @ head) / temperature
        ctx.save_for_backward(rows)
        ctx.mark_non_differentiable(spread)
        return scores, spread

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        return gradients[0][:, None].to(rows.dtype) * rows, None, None, None, None, None, None


def _trained_head(
    hidden: Tensor, head: Tensor, ids: Tensor, temperature: float, chunk: int, entropies: bool
) -> tuple[Tensor, Tensor]:
    def score(hidden_part: Tensor, ids_part: Tensor) -> tuple[Tensor, Tensor]:
        logits = hidden_part @ head.T
        spread = token_entropies(logits.detach(), temperature=temperature) if entropies else logits.new_zeros(0)
        return token_logprobs(logits, ids_part, temperature=temperature), spread

    parts = [
        checkpoint(score, hidden[start : start + chunk], ids[start : start + chunk], use_reentrant=False)
        for start in range(0, len(hidden), chunk)
    ]
    if not parts:
        empty = (hidden.sum() + head.sum()) * hidden.new_zeros(0)
        return empty, empty.detach()
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check(values: Tensor, ids: Tensor, temperature: float) -> None:
    if values.shape[:-1] != ids.shape:
        raise ValueError(
            f"`ids` has shape {tuple(ids.shape)}; it must be {tuple(values.shape[:-1])}, one token per row."
        )
    _check_temperature(temperature)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(
            f"`temperature` is {temperature}; it must be above 0 (greedy replies have no probability to learn from)."
        )
