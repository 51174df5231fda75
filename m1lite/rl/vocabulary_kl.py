"""The divergence of two policies over the whole vocabulary, from hidden states, one chunk of logits at a time.

Estimates from the sampled token alone, which cost nothing on top of its log-prob, are in divergences.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import kl_div
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import Tensor


def reference_kl(
    hidden: Tensor,
    head: Tensor,
    reference: Tensor,
    reference_head: Tensor,
    *,
    temperature: float = 1.0,
    chunk_tokens: int = 512,
) -> Tensor:
    r"""Exact KL(reference ‖ policy) of each token's distribution.

    .. math:: \sum_v q_{t,v} (\log q_{t,v} - \log p_{t,v}), \quad
        p = \mathrm{softmax}(W h / \tau),\ q = \mathrm{softmax}(W' h' / \tau)

    A chunk's logits are computed again in the backward pass, so that at most those of one chunk are held.

    Args:
        hidden: float ``(N, D)``, the policy's last hidden states, with gradient.
        head: float ``(V, D)``, the policy's output matrix.
        reference: float ``(N, D')``, the reference's states; no gradient flows.
        reference_head: float ``(V, D')``; no gradient flows.
        temperature: tau, above 0.
        chunk_tokens: tokens whose logits are held at once, at least 1.

    Returns:
        float32 (float64 for float64 input) ``(N,)``, at least 0 up to rounding, in nats.

    Raises:
        ValueError: if the shapes do not fit or a number is out of range.

    Example:
        >>> one, half = torch.tensor([[1.0]]), torch.tensor([[0.0], [0.0]])
        >>> reference_kl(one, torch.tensor([[0.0], [1.0]]), one, half)
        tensor([0.1201])
    """
    if len(hidden) != len(reference) or len(head) != len(reference_head):
        raise ValueError(
            f"`hidden` and `reference` have {len(hidden)} and {len(reference)} rows, their heads {len(head)} and "
            f"{len(reference_head)}; tokens and vocabulary must be the same."
        )
    if not temperature > 0 or chunk_tokens < 1:
        raise ValueError(
            f"`temperature` is {temperature} and `chunk_tokens` {chunk_tokens}; they must be above 0 and at least 1."
        )
    parts = zip(hidden.split(chunk_tokens), reference.detach().split(chunk_tokens), strict=True)
    found = [
        checkpoint(_chunk, states, head, others, reference_head.detach(), temperature, use_reentrant=False)
        for states, others in parts
    ]
    return torch.cat(found) if len(hidden) else hidden.new_zeros(0)


def _chunk(hidden: Tensor, head: Tensor, reference: Tensor, reference_head: Tensor, temperature: float) -> Tensor:
    with torch.no_grad():
        wanted = _logprobs(reference, reference_head, temperature)
    return kl_div(_logprobs(hidden, head, temperature), wanted, log_target=True, reduction="none").sum(-1)


def _logprobs(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    logits = hidden @ head.T
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
