"""Drawn tensors and the settings under which the learning core is compared with another implementation.

Nothing of the other implementation is here: ``trl_parity.py`` calls it, and the tests read what it once gave.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from m1lite.modules.objective import Objective
from m1lite.records import TokenBatch
from m1lite.rl.divergences import kl_k3, off_policy_kl
from m1lite.rl.losses import clipped_surrogate
from m1lite.rl.mismatch import importance_weights, off_policy_mask
from m1lite.rl.ratios import sequence_ratio, token_ratio
from m1lite.rl.reductions import fixed_length, sequence_mean, sequence_sum, token_mean
from m1lite.rl.soft_losses import cispo, sapo, vespo

METHODS = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
CORRECTIONS = ("off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
CLIP_LOW, CLIP_HIGH, CISPO_HIGH, RATIO_CAP = 0.2, 0.28, 1.2, 1.5
IS_LOW, IS_HIGH, THRESHOLD, BETA, MAX_LENGTH, MINIBATCHES = 0.5, 1.6, 0.05, 0.04, 12, 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting."""

    method: str
    level: str
    """Of the ratio: token or sequence."""
    correction: str
    """Engine against trainer."""
    kl: str
    """off, plain, or weighted by the ratio."""
    two_sided: bool
    filtered: bool = False
    """Off-policy sequences are dropped."""
    by_token: bool = False
    """Advantages differ between the tokens of a row."""

    @property
    def name(self) -> str:
        """What tells the case apart, in one word."""
        flags = [flag for flag in ("two_sided", "filtered", "by_token") if getattr(self, flag)]
        return "/".join([self.method, self.level, self.correction, self.kl, *flags])


def cases(*, frozen: bool = False) -> Iterator[Case]:
    """Give all settings, or only those whose results are stored."""
    flags = [False] if frozen else [False, True]
    for method, level, correction, kl, two_sided, filtered, by_token in itertools.product(
        METHODS, ("token", "sequence"), CORRECTIONS, ("off", "plain", "weighted"), (False, True), flags, flags
    ):
        if two_sided and method not in CLIPPED:
            continue
        yield Case(
            method=method,
            level=level,
            correction=correction,
            kl=kl,
            two_sided=two_sided,
            filtered=filtered,
            by_token=by_token,
        )


@dataclass(kw_only=True)
class Drawn:
    """The tensors of one minibatch of two; the other minibatch is its mask alone."""

    logprobs: Tensor
    """``(B, T)``, with gradient."""
    old: Tensor
    reference: Tensor
    sampled: Tensor
    """With one NaN, as from an engine that gave no log-prob."""
    advantages: Tensor
    """``(B, T)``, each its own."""
    completion: Tensor
    """bool ``(B, T)``: real tokens."""
    written: Tensor
    """bool ``(B, T)``: tokens of the policy, not of a tool."""
    other: Tensor
    """bool ``(B, T)``: loss mask of the rollout's other minibatch."""

    @property
    def mask(self) -> Tensor:
        """Tokens to learn from; the last row has none."""
        return self.completion & self.written

    def row_advantages(self) -> Tensor:
        """``(B,)``."""
        return self.advantages[:, 0]


def draw(seed: int, *, rows: int = 6, width: int = 9, dtype: torch.dtype = torch.float64) -> Drawn:
    """Draw log-probs some way apart from each other, so that clips bind on either side."""
    generator = torch.Generator().manual_seed(seed)

    def normal(scale: float) -> Tensor:
        return scale * torch.randn(rows, width, generator=generator, dtype=torch.float64)

    def chosen(share: float) -> Tensor:
        return torch.rand(rows, width, generator=generator, dtype=torch.float64) < share

    old = -0.1 - 3 * torch.rand(rows, width, generator=generator, dtype=torch.float64)
    logprobs, reference, sampled = old + normal(0.5), old + normal(0.4), old + normal(0.5)
    advantages = normal(1.0)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    completion = torch.arange(width) < lengths[:, None]
    completion[-1] = False
    written, other = chosen(0.8), chosen(0.6)
    sampled[0, 0] = float("nan")
    values = [tensor.to(dtype) for tensor in (logprobs, old, reference, sampled, advantages)]
    logprobs, old, reference, sampled, advantages = values
    return Drawn(
        logprobs=logprobs.requires_grad_(),
        old=old,
        reference=reference,
        sampled=sampled,
        advantages=advantages,
        completion=completion,
        written=written,
        other=other,
    )


def objective_of(case: Case) -> Objective:
    """Put the objective of a setting together, as a configuration would."""
    ratio = token_ratio if case.level == "token" else sequence_ratio
    clip = partial(
        clipped_surrogate,
        clip_low=CLIP_LOW,
        clip_high=CLIP_HIGH,
        ratio_cap=RATIO_CAP if case.two_sided else None,
        ratio=ratio,
    )
    rollout: dict[str, Any] = {"reduction": token_mean, "units": "rollout"}
    parts: dict[str, Any] = {
        "grpo": {"loss": clip, "reduction": sequence_mean},
        "bnpo": {"loss": clip, "reduction": token_mean},
        "dr_grpo": {"loss": clip, "reduction": partial(fixed_length, length=MAX_LENGTH)},
        "dapo": {"loss": clip, **rollout},
        "luspo": {"loss": clip, "reduction": sequence_sum},
        "cispo": {"loss": partial(cispo, high=CISPO_HIGH, ratio=ratio), **rollout},
        "sapo": {"loss": partial(sapo, ratio=ratio), "reduction": sequence_mean},
        "vespo": {"loss": vespo, **rollout},
    }[case.method]
    if case.correction != "off":
        level, outside = case.correction.split("_")
        level = {"token": "token", "sequence": "sequence_sum"}[level]
        parts["correction"] = partial(importance_weights, level=level, outside=outside, low=IS_LOW, high=IS_HIGH)
    if case.kl != "off":
        parts |= {"beta": BETA, "kl": kl_k3 if case.kl == "plain" else partial(off_policy_kl, ratio=ratio)}
    if case.filtered:
        parts["sequence_filter"] = partial(off_policy_mask, threshold=THRESHOLD)
    return Objective(**parts)


def run_ours(case: Case, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """Return loss and gradient ``(B, T)`` towards the log-probs."""
    objective = objective_of(case)
    advantages = drawn.advantages if case.by_token else drawn.row_advantages()[:, None].expand_as(drawn.advantages)
    batch = TokenBatch(
        agent="ada",
        input_ids=drawn.completion.long(),
        attention_mask=drawn.completion,
        loss_mask=drawn.mask,
        sampled_logprobs=drawn.sampled,
        advantages=advantages,
        temperature=1.0,
        policy_version=0,
    )
    total, _ = objective(batch, drawn.logprobs, drawn.old, drawn.reference)
    units = objective.count(drawn.mask)
    if objective.units == "rollout":
        units = objective.count(torch.cat([drawn.mask, drawn.other])) / MINIBATCHES
    loss = total / units
    (gradient,) = torch.autograd.grad(loss, drawn.logprobs)
    return loss.detach(), gradient
