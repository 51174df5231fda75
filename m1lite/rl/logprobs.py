"""Log-probabilities of given tokens, from logits or from hidden states and the output head.

The second form never holds (tokens x vocabulary) for more than one chunk. It covers heads without bias, as the Qwen
family has them. Which positions predict which tokens (the shift by one) is the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_TOKENS = (128, 512)
"""Where the caller names no size, a chunk has half as many tokens as the states are wide, from 128 to 512: every chunk
reads the whole head, which costs more for wider states, and small chunks stay near the processor."""
_NEVER = -1e30
"""Logit of a token that cannot be sampled: a probability of 0, and no ``inf * 0`` in the entropies."""
_CHUNK_LOGITS = 2**22
"""A chunk of a small vocabulary has more tokens, up to so many logits: 16 MiB in float32."""


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
    entropy_gradient: bool = False,
    never: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Log-probability of each given token from hidden states, one chunk of logits at a time.

    .. math:: \log\pi_t = z_{t, y_t} - \log \sum_v e^{z_{t,v}}, \quad z_t = W h_t / \tau

    With a frozen head the gradient towards ``hidden`` is one row per token, :math:`(W_{y_t} - p_t W) / \tau`; it is
    formed while the chunk's probabilities are at hand, and nothing is computed again. With a trained head the logits
    of a chunk are computed again in the backward pass, and both gradients are added up chunk by chunk. Beside inputs,
    outputs and gradients no more than two chunks of logits are held, in float32 (float64 for float64 input).

    Under autocast the products run in autocast's type, as a linear layer's would.

    Args:
        hidden: float ``(..., D)``, the last hidden states.
        head: float ``(V, D)``, the output matrix, of the dtype of ``hidden``.
        ids: long ``(...)``, the tokens in [0, V).
        temperature: tau, above 0: the one that the tokens were sampled at.
        chunk_tokens: tokens whose logits are held at once; None: 128 to 512 by the width D, more where V is small.
        entropies: return the exact entropies too.
        entropy_gradient: let the entropies carry a gradient, as an entropy bonus needs it; one more product.
        never: long ``(M,)``, tokens that the sampler masks out, with a probability of 0; None: every token may come.

    Returns:
        Log-probs ``(...)`` in float32 (float64 for float64 input), at most 0; and entropies ``(...)`` in nats, in
        [0, log V], or None.

    Raises:
        ValueError: if the temperature is not above 0, ``chunk_tokens`` is below 1, shapes or dtypes do not fit, or
            ``entropy_gradient`` is set without ``entropies``.

    References:
        Wijmans et al. 2024, arXiv:2411.09009, and Hsu et al. 2024, arXiv:2410.10989, form the gradient of a cross
        entropy during its forward pass; ours does so per token, before the weight of each token is known.

    Example:
        >>> logprobs, _ = hidden_logprobs(torch.tensor([[1.0]]), torch.tensor([[0.0], [0.0]]), torch.tensor([0]))
        >>> logprobs
        tensor([-0.6931])
    """
    chunk = _check_heads(hidden, head, chunk_tokens)
    _check(hidden, ids, temperature)
    if entropy_gradient and not entropies:
        raise ValueError("`entropy_gradient` is True but `entropies` is False; ask for the entropies too.")
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden, head = (value.to(torch.get_autocast_dtype(device)) for value in (hidden, head))
    if not torch.is_grad_enabled():
        hidden, head = hidden.detach(), head.detach()  # a function's forward sees `requires_grad`, not the mode
    rows, targets = hidden.reshape(-1, hidden.shape[-1]), ids.reshape(-1)  # (N, D), (N,)
    kind = _TrainedHead if head.requires_grad else _FrozenHead
    with torch.autocast(device, enabled=False):  # sums over the vocabulary stay in float32
        scores, spread = kind.apply(rows, head, targets, temperature, chunk, (entropies, entropy_gradient), never)
    return scores.reshape(ids.shape), spread.reshape(ids.shape) if entropies else None


class _FrozenHead(torch.autograd.Function):
    """Log-probs whose gradient towards the hidden states is formed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        ids: Tensor,
        temperature: float,
        chunk: int,
        want: tuple[bool, bool],
        never: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        keep, (entropies, steep) = ctx.needs_input_grad[0], want
        scores, spread = _results(hidden, entropies)
        rows = torch.empty_like(hidden if keep else hidden[:0])
        slopes = torch.empty_like(hidden if keep and steep else hidden[:0])
        for part, logits, probs in _chunks(hidden, head, temperature, chunk, never):
            total = _normalise(logits, probs)
            scores[part] = (logits.gather(1, ids[part, None]) - total)[:, 0]
            if keep:
                shares = probs.to(head.dtype)
                torch.addmm(head[ids[part]], shares, head, beta=1 / temperature, alpha=-1 / temperature, out=rows[part])
            if entropies:
                torch.sum(logits.sub_(total).mul_(probs), 1, out=spread[part]).neg_()
            if keep and steep:
                slope = logits.addcmul_(probs, spread[part, None]).to(head.dtype)  # p (log p + H)
                torch.mm(slope, head, out=slopes[part]).mul_(-1 / temperature)
        ctx.save_for_backward(rows, slopes)
        if not steep:
            ctx.mark_non_differentiable(spread)
        return scores, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, slopes = ctx.saved_tensors
        found = gradients[0][:, None].to(rows.dtype) * rows
        if len(slopes):
            found.addcmul_(gradients[1][:, None].to(rows.dtype), slopes)
        return found, None, None, None, None, None, None


class _TrainedHead(torch.autograd.Function):
    """Log-probs that keep each token's log-sum-exp, and form a chunk's logits again for the gradient of the head."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        ids: Tensor,
        temperature: float,
        chunk: int,
        want: tuple[bool, bool],
        never: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        entropies, ctx.steep = want
        scores, spread = _results(hidden, entropies)
        totals = torch.empty_like(scores)
        for part, logits, probs in _chunks(hidden, head, temperature, chunk, never):
            total = _normalise(logits, probs)
            totals[part] = total[:, 0]
            scores[part] = (logits.gather(1, ids[part, None]) - total)[:, 0]
            if entropies:
                torch.sum(logits.sub_(total).mul_(probs), 1, out=spread[part]).neg_()
        ctx.save_for_backward(hidden, head, ids, totals, spread)
        ctx.temperature, ctx.chunk, ctx.never = temperature, chunk, never
        if not ctx.steep:
            ctx.mark_non_differentiable(spread)
        return scores, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, ids, totals, spread = ctx.saved_tensors
        to_hidden, to_head = ctx.needs_input_grad[:2]
        found = torch.empty_like(hidden if to_hidden else hidden[:0])
        # In float32 whatever the head's dtype: many chunks are added up.
        summed = torch.zeros_like(head if to_head else head[:0], dtype=totals.dtype)
        for part, logits, probs in _chunks(hidden, head, ctx.temperature, ctx.chunk, ctx.never):
            weights = gradients[0][part, None]
            torch.exp(logits.sub_(totals[part, None]), out=probs)
            if ctx.steep:
                slopes = logits.add_(spread[part, None]).mul_(gradients[1][part, None]).add_(weights)
                slopes.mul_(probs).neg_()
            else:
                slopes = probs.mul_(-weights)
            slopes = slopes.scatter_add_(1, ids[part, None], weights).to(head.dtype)  # (chunk, V), towards z
            if to_hidden:
                torch.mm(slopes, head, out=found[part]).mul_(1 / ctx.temperature)
            if to_head:
                _add_product(summed, slopes.T, hidden[part], 1 / ctx.temperature)
        return found if to_hidden else None, summed.to(head.dtype) if to_head else None, None, None, None, None, None


def _chunks(
    hidden: Tensor, head: Tensor, temperature: float, chunk: int, never: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield each chunk's place, its logits over the temperature, and room of the same shape.

    Both tensors lie in the same memory for every chunk: fresh pages for each would cost more than the arithmetic.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    room = [hidden.new_empty(min(chunk, len(hidden)), len(head), dtype=dtype) for _ in range(2)]
    for start in range(0, len(hidden), chunk):
        part = slice(start, min(start + chunk, len(hidden)))
        logits, probs = (tensor[: part.stop - start] for tensor in room)
        if hidden.dtype == dtype:
            torch.addmm(logits, hidden[part], head.T, beta=0, alpha=1 / temperature, out=logits)
        else:
            logits.copy_(hidden[part] @ head.T).div_(temperature)
        if never is not None:
            logits.index_fill_(1, never, _NEVER)
        yield part, logits, probs


def _normalise(logits: Tensor, probs: Tensor) -> Tensor:
    """Fill in the softmax and return the log-sum-exp, ``(chunk, 1)``."""
    peak, at = logits.max(1, keepdim=True)
    torch.softmax(logits, 1, out=probs)
    # The likeliest token's share is the reciprocal of the sum of exponentials: no pass of its own for the sum.
    return peak - probs.gather(1, at).log_()


def _results(hidden: Tensor, entropies: bool) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    return hidden.new_empty(len(hidden), dtype=dtype), hidden.new_empty(len(hidden) if entropies else 0, dtype=dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor, factor: float) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right, alpha=factor)
    else:
        total.add_(left @ right, alpha=factor)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check(values: Tensor, ids: Tensor, temperature: float) -> None:
    if values.shape[:-1] != ids.shape:
        raise ValueError(
            f"`ids` has shape {tuple(ids.shape)}; it must be {tuple(values.shape[:-1])}, one token per row."
        )
    _check_temperature(temperature)


def _check_heads(hidden: Tensor, head: Tensor, chunk_tokens: int | None) -> int:
    if head.ndim != 2 or head.shape[1] != hidden.shape[-1]:
        raise ValueError(
            f"`head` has shape {tuple(head.shape)}; it must be (vocabulary, {hidden.shape[-1]}) for these states."
        )
    if head.dtype != hidden.dtype and not torch.is_autocast_enabled(hidden.device.type):
        raise ValueError(
            f"`head` is {head.dtype} but `hidden` is {hidden.dtype}; cast one of them to the other's dtype."
        )
    if chunk_tokens is None:
        least, most = _CHUNK_TOKENS
        return max(_CHUNK_LOGITS // max(1, len(head)), min(max(hidden.shape[-1] // 2, least), most))
    if chunk_tokens < 1:
        raise ValueError(f"`chunk_tokens` is {chunk_tokens}; it must be at least 1, or None for a default.")
    return chunk_tokens


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(
            f"`temperature` is {temperature}; it must be above 0 (greedy replies have no probability to learn from)."
        )
