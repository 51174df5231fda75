"""Training on pairs of trajectories of which one is better: DPO on whole replies, RRPO on the parts that differ.

The losses are in ``rl/preferences.py``; here are the pairs, what each objective scores of them, and the module. Where
pairs come from is the caller's: for example the best and the worst episode of a question.

    batch = pair_batch([(best, worst)], pad_id=team.pad_id("ada"))  # trajectories of one agent
    module = PreferenceModule(team, optimizer=partial(AdamW, lr=1e-5), objective=partial(whole_replies, beta=0.1))
    Trainer(max_epochs=1).fit(module, loader_of_such_batches)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Protocol

import lightning.pytorch as pl
import torch
from typing_extensions import override

from m1lite.agents.chat import pack
from m1lite.modules.batch import moved
from m1lite.modules.optimizer import clip_gradients
from m1lite.modules.ranks import check_world
from m1lite.rl.preferences import dpo, rrpo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from m1lite.modules.team import Team
    from m1lite.records import TokenBatch, Trajectory


@dataclass(kw_only=True, slots=True)
class PairBatch:
    """B pairs of one agent; row i of the one belongs to row i of the other."""

    better: TokenBatch
    worse: TokenBatch

    def __post_init__(self) -> None:
        sides = [(side.agent, len(side.input_ids), side.temperature) for side in (self.better, self.worse)]
        if sides[0] != sides[1]:
            raise ValueError(
                f"`better` and `worse` are (agent, rows, temperature) {sides[0]} and {sides[1]}; they must be the same."
            )

    def to(self, device: torch.device | str, **kwargs: Any) -> PairBatch:
        """Return the pairs on a device."""
        return PairBatch(better=moved(self.better, device, **kwargs), worse=moved(self.worse, device, **kwargs))

    @property
    def agent(self) -> str:
        """Name of the agent that wrote both sides."""
        return self.better.agent


def pair_batch(pairs: Sequence[tuple[Trajectory, Trajectory]], *, pad_id: int, temperature: float = 1.0) -> PairBatch:
    """Lay out pairs of trajectories of one agent; what the agent wrote is compared, all else is read.

    Args:
        pairs: better and worse, on the same question.
        pad_id: fills the rows on the right; ``Team.pad_id`` of the agent.
        temperature: that both are scored at.

    Raises:
        ValueError: if there is no pair, or agents are mixed.
    """
    sides = [
        [replace(one, turns=[replace(turn, policy_version=0) for turn in one.turns]) for one in side]
        for side in zip(*pairs, strict=True)
    ] or [[], []]
    better, worse = (pack(side, [0.0] * len(side), pad_id=pad_id, temperature=temperature) for side in sides)
    return PairBatch(better=better, worse=worse)


def differing_parts(pair: PairBatch) -> tuple[Tensor, Tensor]:
    """Find the tokens that an agent wrote on one side of a pair only, by the longest common runs of the two.

    Returns:
        bool ``(B, T)`` and ``(B, U)``, within the loss masks.

    References:
        RRPO (arXiv:2504.12083) marks the phrases when it makes the pair; finding them by a comparison is our reading.
    """
    better, worse = pair.better.loss_mask.clone(), pair.worse.loss_mask.clone()
    for row in range(len(better)):
        places = [mask[row].nonzero()[:, 0] for mask in (better, worse)]
        ids = [side.input_ids[row, at].tolist() for side, at in zip((pair.better, pair.worse), places, strict=True)]
        for run in SequenceMatcher(a=ids[0], b=ids[1], autojunk=False).get_matching_blocks():
            better[row, places[0][run.a : run.a + run.size]] = False
            worse[row, places[1][run.b : run.b + run.size]] = False
    return better, worse


class PairObjective(Protocol):
    """What is minimised on a batch of pairs."""

    def __call__(self, team: Team, pair: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return losses ``(B,)`` with gradient, and stats ``(B,)`` by log name."""


def whole_replies(team: Team, pair: PairBatch, *, beta: float = 0.1) -> tuple[Tensor, dict[str, Tensor]]:
    """DPO: every token that the agent wrote counts; see ``rl.preferences.dpo``.

    Args:
        team: has the agent's policy and its frozen reference.
        pair: B pairs.
        beta: how strongly the reference holds, above 0.
    """
    return dpo(*_scores(team, pair), pair.better.loss_mask, pair.worse.loss_mask, beta=beta)


def differing_replies(
    team: Team, pair: PairBatch, *, beta: float = 0.1, alpha: float = 0.01
) -> tuple[Tensor, dict[str, Tensor]]:
    """RRPO: the parts that differ count, and the better side stays near the reference; see ``rl.preferences.rrpo``.

    Args:
        team: has the agent's policy and its frozen reference.
        pair: B pairs.
        beta: how much a part counts, above 0.
        alpha: weight of the divergence from the reference over the vocabulary, at least 0.
    """
    divergence = team.reference_divergence(pair.agent, pair.better)
    return rrpo(*_scores(team, pair), *differing_parts(pair), divergence, beta=beta, alpha=alpha)


class PreferenceModule(pl.LightningModule):
    """Trains a team's agents on pairs of what they could have written; one process, and batches of one agent each.

    Args:
        team: the agents; an agent without pairs stays as it is.
        optimizer: parameters to optimiser, for example ``partial(AdamW, lr=1e-5)``.
        objective: :func:`whole_replies` or :func:`differing_replies`, numbers bound by ``functools.partial``.
        max_grad_norm: the gradient is clipped to this norm; None leaves it.
    """

    def __init__(
        self,
        team: Team,
        *,
        optimizer: Callable[[Iterable[Tensor]], Optimizer],
        objective: PairObjective = whole_replies,
        max_grad_norm: float | None = 1.0,
    ) -> None:
        super().__init__()
        self.team = team
        self.objective = objective
        self.max_grad_norm = max_grad_norm
        self._make_optimizer = optimizer

    @override
    def configure_optimizers(self) -> Optimizer:
        return self._make_optimizer(
            [value for agent in self.team.agents for value in self.team.adapter_parameters(agent).values()]
        )

    @override
    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        norm = clip_gradients(optimizer, self.max_grad_norm, step=self.global_step)
        self.log("grad_norm", norm, batch_size=1)

    @override
    def on_fit_start(self) -> None:
        check_world(1)

    @override
    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "")

    @override
    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        self._step(batch, "val/")

    def _step(self, batch: PairBatch, prefix: str) -> Tensor:
        losses, stats = self.objective(self.team, batch)
        values = {"loss": losses.detach(), **stats}
        self.log_dict(
            {f"{prefix}{batch.agent}/{name}": value.mean() for name, value in values.items()}, batch_size=len(losses)
        )
        return losses.mean()


def _scores(team: Team, pair: PairBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-probs of both sides, under the reference last: the policy has to stay active up to the backward."""
    references = [team.reference_logprobs(pair.agent, side) for side in (pair.better, pair.worse)]
    better, worse = (team.logprobs(pair.agent, side)[0] for side in (pair.better, pair.worse))
    return better, worse, references[0], references[1]
