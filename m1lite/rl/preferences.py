"""Losses on pairs of replies, one better than the other: DPO, and RRPO on the phrases that differ.

One value per pair, to be averaged by the caller. Log-probs of both replies and of the frozen reference are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.functional import logsigmoid

from m1lite.rl._checks import check_positive, check_shapes, inside

if TYPE_CHECKING:
    from torch import Tensor


def dpo(
    better: Tensor,
    worse: Tensor,
    better_reference: Tensor,
    worse_reference: Tensor,
    better_mask: Tensor,
    worse_mask: Tensor,
    *,
    beta: float = 0.1,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Direct preference optimisation: a pair's better reply gains on the worse, both against the reference.

    .. math:: L_i = -\log\sigma\Big(\beta \sum_t \log\frac{\pi(y^{+}_t)}{\pi_{ref}(y^{+}_t)}
        - \beta \sum_t \log\frac{\pi(y^{-}_t)}{\pi_{ref}(y^{-}_t)}\Big)

    Args:
        better: float ``(B, T)``, log-probs of the better reply, with gradient.
        worse: float ``(B, U)``, of the worse reply, with gradient.
        better_reference: float ``(B, T)``, the frozen reference's.
        worse_reference: float ``(B, U)``, the frozen reference's.
        better_mask: bool ``(B, T)``, true on the reply's tokens; what stands elsewhere is not read.
        worse_mask: bool ``(B, U)``.
        beta: how strongly the reference holds, above 0.

    Returns:
        Losses ``(B,)``, and by name ``(B,)``: ``rewards/margins`` and ``rewards/accuracies`` (1 where the better reply
        is ahead).

    Raises:
        ValueError: if shapes differ or ``beta`` is not above 0.

    References:
        Rafailov et al. 2023, arXiv:2305.18290, equation 7.

    Example:
        >>> import torch
        >>> one, nil = torch.tensor([[True]]), torch.zeros(1, 1)
        >>> dpo(nil, nil, nil, nil, one, one)[0]
        tensor([0.6931])
    """
    check_positive(beta=beta)
    margin = _gain(better, better_reference, better_mask) - _gain(worse, worse_reference, worse_mask)
    return -logsigmoid(beta * margin), _margins(beta * margin)


def rrpo(
    better: Tensor,
    worse: Tensor,
    better_reference: Tensor,
    worse_reference: Tensor,
    better_phrases: Tensor,
    worse_phrases: Tensor,
    divergence: Tensor,
    *,
    beta: float = 0.1,
    alpha: float = 0.01,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""DPO on the phrases that tell two replies apart, with a KL term on every token of the better one.

    .. math:: L_i = -\log\sigma\Big(\sum_{n} r(y^{+}_n) - r(y^{-}_n)\Big) + \alpha \sum_t
        D_{KL}\big(\pi_{ref}(\cdot \mid y^{+}_{<t}) \,\|\, \pi(\cdot \mid y^{+}_{<t})\big), \quad
        r(y_n) = \beta \sum_{t \in n} \log\frac{\pi(y_t)}{\pi_{ref}(y_t)}

    over the phrases n. Printed with one minus sign for both terms, which would reward the divergence; here it is
    a penalty, as the text has it.

    Args:
        better: float ``(B, T)``, log-probs of the better reply, with gradient.
        worse: float ``(B, U)``, of the worse reply, with gradient.
        better_reference: float ``(B, T)``, the frozen reference's.
        worse_reference: float ``(B, U)``, the frozen reference's.
        better_phrases: bool ``(B, T)``, true on the tokens of the phrases that differ.
        worse_phrases: bool ``(B, U)``.
        divergence: float ``(B, T)``, the KL of the tokens of the better reply, with gradient; 0 elsewhere.
        beta: how much a phrase counts, above 0.
        alpha: weight of the divergence, at least 0.

    Returns:
        Losses ``(B,)``, and the stats of :func:`dpo`.

    Raises:
        ValueError: if shapes differ or a weight is out of range.

    References:
        RRPO: Sarkar and Etemad 2025, arXiv:2504.12083, section 2 (training objective). The defaults are ours.

    Example:
        >>> import torch
        >>> one, nil = torch.tensor([[True]]), torch.zeros(1, 1)
        >>> rrpo(nil, nil, nil, nil, one, one, torch.full((1, 1), 2.0), alpha=0.5)[0]
        tensor([1.6931])
    """
    check_positive(beta=beta)
    if alpha < 0:
        raise ValueError(f"`alpha` is {alpha}; the weight of the divergence must be at least 0.")
    check_shapes(better, divergence=divergence)
    margin = _gain(better, better_reference, better_phrases) - _gain(worse, worse_reference, worse_phrases)
    return -logsigmoid(beta * margin) + alpha * divergence.sum(1), _margins(beta * margin)


def _gain(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> Tensor:
    check_shapes(logprobs, reference_logprobs=reference_logprobs, mask=mask)
    return inside(mask, logprobs - reference_logprobs).sum(1)  # (B, T) -> (B,)


def _margins(margin: Tensor) -> dict[str, Tensor]:
    margin = margin.detach()
    return {"rewards/margins": margin, "rewards/accuracies": (margin > 0).to(margin.dtype)}
