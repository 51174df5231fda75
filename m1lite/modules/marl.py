"""The multi-agent update: one training step turns packed trajectories into one new version of every agent.

Manual optimisation. Losses are sums over tokens; per agent and optimiser step there is one all-reduce of
[token count, sums for the log, summed gradient]. Rollouts come from ``callbacks/rollout.py``;
``callbacks/sync.py`` sends the weights to the engine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from m1lite.modules.batch import RolloutBatch, no_tokens
from m1lite.modules.objective import Objective
from m1lite.modules.optimizer import NonFiniteUpdateError, TeamOptimizer, changed_share
from m1lite.modules.ranks import check_same_on_ranks, check_world, num_ranks, reduce_over_ranks
from m1lite.modules.schedules import Schedule, constant
from m1lite.modules.update import AgentUpdate, token_means

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from torch.optim import Optimizer

    from m1lite.modules.team import Team
    from m1lite.records import TokenBatch

_EXTREMES = (
    "sampling/sampling_logp_difference/max",
    "sampling/importance_sampling_ratio/max",
    "sampling/importance_sampling_ratio/min",
)
_MODULE_KEYS = {"gradient_clip_val": "max_grad_norm", "accumulate_grad_batches": "micro_batch_tokens"}


class StaleRolloutError(ValueError):
    """Tokens that were sampled under weights which the update may not use."""


class MarlModule(pl.LightningModule):
    """Trains a team on what it did, agent by agent.

    Args:
        team: the agents.
        optimizer: parameters to optimiser, for example ``partial(AdamW, lr=1e-3)``; or one such function per agent.
        objective: what is minimised; None is the clipped surrogate without a KL term.
        schedule: training step and ``trainer.max_steps`` to a factor of every optimiser's learning rate, of
            ``schedules.py``. It holds for all optimiser steps of a training step, and also for a run that is continued,
            whose rates are those of this module and not of the checkpoint.
        update_epochs: passes over a rollout.
        minibatches: optimiser steps per pass.
        micro_batch_tokens: padded tokens per forward pass; gradients of micro-batches add up.
        max_grad_norm: each agent's gradient is clipped to this norm; None leaves it.
        async_level: how many versions a rollout may be behind; above 0 the objective must correct for it.
        max_skipped: non-finite updates of an agent to skip in a row before one raises.

    Raises:
        ValueError: if a count is out of range, an agent lacks an optimiser, or ``async_level`` has no correction.
    """

    def __init__(
        self,
        team: Team,
        *,
        optimizer: Callable[[Iterable[Tensor]], Optimizer] | Mapping[str, Callable[[Iterable[Tensor]], Optimizer]],
        objective: Objective | None = None,
        schedule: Schedule = constant,
        update_epochs: int = 1,
        minibatches: int = 1,
        micro_batch_tokens: int = 4096,
        max_grad_norm: float | None = 1.0,
        async_level: int = 0,
        max_skipped: int = 0,
    ) -> None:
        super().__init__()
        counts = {"update_epochs": update_epochs, "minibatches": minibatches, "micro_batch_tokens": micro_batch_tokens}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        objective = Objective() if objective is None else objective
        if async_level > 0 and objective.correction is None:
            raise ValueError(
                f"`async_level` is {async_level}, so rollouts may be stale; give the objective a `correction`."
            )
        if isinstance(optimizer, Mapping):
            if set(optimizer) != set(team.agents):
                raise ValueError(f"`optimizer` names {sorted(optimizer)}, but the team is {sorted(team.agents)}.")
            self._make_optimizer = dict(optimizer)
        else:
            self._make_optimizer = dict.fromkeys(team.agents, optimizer)
        self.automatic_optimization = False
        self.team = team
        self.objective = objective
        self.schedule = schedule
        self.update_epochs = update_epochs
        self.minibatches = minibatches
        self.micro_batch_tokens = micro_batch_tokens
        self.max_grad_norm = max_grad_norm
        self.async_level = async_level
        self.max_skipped = max_skipped
        self.versions = dict.fromkeys(team.agents, 0)
        """Finished updates per agent; an agent without any token in a step keeps its version."""
        self.skipped = dict.fromkeys(team.agents, 0)
        """Non-finite updates in a row, per agent."""
        self._rates: dict[str, list[float]] = {}

    @override
    def configure_optimizers(self) -> TeamOptimizer:
        made = {
            agent: self._make_optimizer[agent](list(self.team.adapter_parameters(agent).values()))
            for agent in self.team.agents
        }
        self._rates = {agent: [group["lr"] for group in inner.param_groups] for agent, inner in made.items()}
        return TeamOptimizer(made)

    @override
    def on_fit_start(self) -> None:
        check_world(self.trainer.world_size)
        _check_precision(self)
        if num_ranks() > 1:
            check_same_on_ranks("teams (bases and adapters)", self.team.fingerprint())

    @override
    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        tokens = self._checked(batch)
        started = time.perf_counter()
        optimizer: Any = self.optimizers()
        self._set_rates(optimizer.optimizer)
        extremes = []
        for agent in self.team.agents:
            update = AgentUpdate(
                self.team,
                agent,
                tokens.get(agent) or no_tokens(agent, self.device),
                objective=self.objective,
                micro_batch_tokens=self.micro_batch_tokens,
                backward=self.manual_backward,
                minibatches=self.minibatches,
            )
            self._log_agent(agent, self._train_agent(update, optimizer.optimizer[agent]))
            extremes.append(update.extremes())
        self._log_extremes(extremes)
        optimizer.step()  # the tick that Lightning counts
        seconds = time.perf_counter() - started
        speed = self.trained_tokens(batch) / seconds
        self.log_dict({"perf/update_s": seconds, "perf/update_tokens_per_s": speed}, batch_size=1)

    def trained_tokens(self, batch: RolloutBatch) -> int:
        """Return how many tokens this rank's updates on a batch go over: those of its rows, once for each epoch."""
        tokens = batch.tokens or {}
        return self.update_epochs * sum(int(part.attention_mask.sum()) for part in tokens.values())

    @override
    def validation_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Compute nothing: the rollout callback plays the episodes and logs their scores."""

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["marl"] = {"versions": dict(self.versions), "skipped": dict(self.skipped)}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.versions = dict(checkpoint["marl"]["versions"])
        self.skipped = dict(checkpoint["marl"]["skipped"])

    def _checked(self, batch: RolloutBatch) -> dict[str, TokenBatch]:
        if batch.tokens is None:
            raise ValueError("The batch has no tokens; `RolloutCallback` must be among the trainer's callbacks.")
        for agent, tokens in batch.tokens.items():
            if agent not in self.versions:
                raise ValueError(f"The batch holds tokens of {agent!r}; the team is {list(self.versions)}.")
            lowest, current = self.versions[agent] - self.async_level, self.versions[agent]
            if bool(tokens.loss_mask.any()) and not lowest <= tokens.policy_version <= current:
                raise StaleRolloutError(
                    f"Tokens of {agent!r} were sampled under version {tokens.policy_version}, but the update accepts "
                    f"{lowest} to {current}; publish the weights after every update (`SyncCallback`)."
                )
        return batch.tokens

    def _set_rates(self, optimizer: TeamOptimizer) -> None:
        """Give every agent's optimiser this step's learning rates, and log that of its first parameters."""
        factor = self.schedule(self.global_step, self.trainer.max_steps)
        for agent, rates in self._rates.items():
            for group, rate in zip(optimizer[agent].param_groups, rates, strict=True):
                group["lr"] = rate * factor
            self._log_agent(agent, {"lr": rates[0] * factor})

    def _train_agent(self, update: AgentUpdate, optimizer: Optimizer) -> dict[str, float]:
        """Run all epochs over one agent's rollout and return means over the tokens of all ranks."""
        if self.minibatches > 1:
            update.anchor()
        weights = list(self.team.adapter_parameters(update.agent).values())
        before = [weight.detach().clone() for weight in weights]
        totals: dict[str, float] = {}
        norms: list[float] = []
        for epoch in range(self.update_epochs):
            for rows in self._deal(len(update.lengths), epoch):
                sums = update.accumulate(rows, anchored=epoch > 0 or self.minibatches > 1)
                found, norm = self._reduce_and_step(update.agent, sums, optimizer)
                if norm is not None:
                    norms.append(norm)
                    totals = {name: totals.get(name, 0.0) + value for name, value in found.items()}
        self.versions[update.agent] += bool(norms)
        values = {"skipped_updates": float(self.skipped[update.agent]), "version": float(self.versions[update.agent])}
        if norms:
            values |= {**token_means(totals), "grad_norm": sum(norms) / len(norms)}
            values["update/weights_changed_share"] = changed_share(before, weights)
        return values

    def _deal(self, num_rows: int, epoch: int) -> list[list[int]]:
        """Cut the rows into this epoch's minibatches: as many on every rank, some perhaps empty."""
        rows = list(range(num_rows))
        if self.minibatches > 1:
            order = torch.Generator().manual_seed(self.global_step * self.update_epochs + epoch)
            rows = torch.randperm(num_rows, generator=order).tolist()
        return [rows[part :: self.minibatches] for part in range(self.minibatches)]

    def _reduce_and_step(
        self, agent: str, sums: dict[str, Tensor], optimizer: Optimizer
    ) -> tuple[dict[str, float], float | None]:
        """Add up over ranks, clip, step. Whether to step follows from the global sums, so all ranks agree.

        Returns:
            The global sums, and the gradient's norm before clipping; None where no weight changed.
        """
        parameters = list(self.team.adapter_parameters(agent).values())
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([torch.stack([value.float() for value in sums.values()]), *(g.reshape(-1) for g in gradients)])
        reduce_over_ranks(flat)
        optimizer.zero_grad()
        totals = dict(zip(sums, flat[: len(sums)].tolist(), strict=True))
        if totals["tokens"] == 0:
            return totals, None
        gradient = flat[len(sums) :] / totals["units"]
        norm = gradient.norm()
        if not self._is_finite(agent, totals, norm.item()):
            return totals, None
        if self.max_grad_norm is not None:
            gradient *= (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        optimizer.step()
        optimizer.zero_grad()
        return totals, norm.item()

    def _is_finite(self, agent: str, totals: Mapping[str, float], norm: float) -> bool:
        loss, bad = totals["loss"] / totals["units"], int(totals["nonfinite_logprobs"])
        if math.isfinite(loss) and math.isfinite(norm) and not bad:
            self.skipped[agent] = 0
            return True
        self.skipped[agent] += 1
        if self.skipped[agent] > self.max_skipped:
            raise NonFiniteUpdateError(
                f"The update of {agent!r} at step {self.global_step} is not finite (loss {loss}, gradient norm {norm}, "
                f"{bad} log-probs that are no number) after {self.skipped[agent] - 1} skipped in a row; lower the "
                "learning rate, or raise `max_skipped`."
            )
        return False

    def _log_agent(self, agent: str, values: Mapping[str, float]) -> None:
        self.log_dict({f"{agent}/{name}": value for name, value in values.items()}, batch_size=1)

    def _log_extremes(self, extremes: list[list[float]]) -> None:
        highest = reduce_over_ranks(torch.tensor(extremes, device=self.device), "max").tolist()
        for agent, (difference, ratio, least) in zip(self.team.agents, highest, strict=True):
            if difference >= 0:
                self._log_agent(agent, dict(zip(_EXTREMES, (difference, ratio, -least), strict=True)))


def refuse_trainer_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse trainer arguments that mean nothing under manual optimisation.

    Args:
        arguments: as the trainer would get them.

    Raises:
        ValueError: naming the argument and the module's own that does the same.

    Example:
        >>> refuse_trainer_arguments({"gradient_clip_val": 0.5})
        Traceback (most recent call last):
        ValueError: `trainer.gradient_clip_val=0.5` works for one optimiser only; set `max_grad_norm` of `MarlModule`.
    """
    for key, own in _MODULE_KEYS.items():
        value = arguments.get(key)
        if value not in (None, 1 if key == "accumulate_grad_batches" else None):
            raise ValueError(f"`trainer.{key}={value}` works for one optimiser only; set `{own}` of `MarlModule`.")


def _check_precision(module: MarlModule) -> None:
    """Raise unless the trainable weights are float32 and no loss scaler is in use."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise ValueError(
                f"Trainable weight {name} is {parameter.dtype}, in which small steps vanish; "
                "set `trainer.precision` to 32-true or bf16-mixed and give the base its own `dtype`."
            )
    if getattr(module.trainer.precision_plugin, "scaler", None) is not None:
        raise ValueError("`trainer.precision` 16-mixed scales losses, which sums over ranks undo; use bf16-mixed.")
