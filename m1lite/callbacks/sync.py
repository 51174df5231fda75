"""After every step: weights that changed go to the engine, under the version that their rollouts will carry.

Adapters are handed over as tensors. A whole model is handed over as it lies in the trainer, weight by weight, with no
second copy of it. That the engine then serves them is asked of ``probe.py``.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Protocol

import lightning.pytorch as pl
from typing_extensions import override

from m1lite.engines.base import EngineError
from m1lite.modules.bases import base_tensors
from m1lite.modules.ranks import gather_rows, meet, this_rank

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from m1lite.callbacks.probe import Probe, Probed
    from m1lite.modules.team import Team

MEETING_SECONDS = 600.0
"""The longest that a rank waits for the others' syncs: an engine gives up its own waits long before."""


class SyncError(RuntimeError):
    """Weights that did not reach an engine, with rank, step, policy and version."""


class LogprobMismatchError(SyncError):
    """An engine that serves other weights than the trainer holds."""


class PolicyEngine(Protocol):
    """What the sync needs of an engine or of an engine group."""

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Serve ``policy`` with these tensors from now on; without a config they are those of a whole model."""

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""


class SyncCallback(pl.Callback):
    """Keeps the engine at the module's versions: everything at the start of a fit, then what an update changed.

    All agents are probed at the start, where a base that is not the trainer's shows, and one of those that changed
    after every step, in turn. What fails on one rank stops all of them with its message.

    Args:
        engine: serves every agent of the team.
        probe: compares engine and trainer; None compares nothing.

    Raises (from the hooks):
        SyncError: if an engine does not take the weights in time.
        LogprobMismatchError: if it took them and its log-probs are not the trainer's.
        AbsentRankError: if another rank does not finish its sync.
    """

    def __init__(self, engine: PolicyEngine, probe: Probe | None = None) -> None:
        self.engine = engine
        self.probe = probe
        self._turns: dict[str, int] = {}
        """Agent to the number of syncs since it was probed."""

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Publish every agent: what an engine serves under a version before is not known to be these weights.

        Raises:
            ValueError: if the engine does not serve an agent.
        """
        missing = sorted(set(pl_module.team.agents) - set(self.engine.versions()))
        if missing:
            raise ValueError(f"The engine does not serve {missing}; it serves {sorted(self.engine.versions())}.")
        self._sync(trainer, pl_module, pl_module.team.agents, pl_module.team.agents)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        started = time.perf_counter()
        served = self.engine.versions()
        changed = [agent for agent, version in pl_module.versions.items() if served[agent] != version]
        values = self._sync(trainer, pl_module, changed, self._next(changed))
        pl_module.log_dict({**values, "perf/sync_s": time.perf_counter() - started}, batch_size=1)

    def _next(self, changed: Sequence[str]) -> list[str]:
        """Choose the one of the changed agents whose last probe is longest ago."""
        for agent in changed:
            self._turns[agent] = self._turns.get(agent, 0) + 1
        return sorted(changed, key=lambda agent: -self._turns[agent])[:1]

    def _sync(self, trainer: pl.Trainer, module: Any, agents: Sequence[str], probed: Sequence[str]) -> dict[str, float]:
        """Publish some agents and probe some of them; return what all ranks found together."""
        failure: SyncError | None = None
        found: list[Probed] = []
        try:
            for agent in agents:
                self._publish(module.team, agent, module.versions[agent], trainer.global_step)
            found = self._probe(module, probed, trainer.global_step)
        except SyncError as error:
            failure = error
        gap = max((row.error for row in found), default=-math.inf)
        still = max((-row.shift for row in found if row.shift is not None), default=-math.inf)
        what = f"the sync after step {trainer.global_step}"
        failed, gap, still = meet(what, [failure is not None, gap, still], seconds=MEETING_SECONDS)
        if failed:
            self._raise_first(failure)
        values = {"sync/logprob_error": gap, "sync/logprob_shift": -still}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    @staticmethod
    def _raise_first(failure: SyncError | None) -> None:
        """Raise this rank's failure, or else that of the first rank that has one."""
        failures = [other for other in gather_rows([failure]) if other is not None]
        raise failures[0] if failure is None else failure

    def _publish(self, team: Team, agent: str, version: int, step: int) -> None:
        tensors = dict(base_tensors(team.copies[agent])) if agent in team.copies else team.adapter_tensors(agent)
        try:
            self.engine.load_adapter(agent, tensors, team.adapter_config(agent), version=version)
        except EngineError as error:
            raise SyncError(
                f"Rank {this_rank()}, step {step}: the weights of {agent!r} at version {version} did not reach their "
                f"engine. {error}"
            ) from error

    def _probe(self, module: Any, agents: Sequence[str], step: int) -> list[Probed]:
        if self.probe is None or not agents:
            return []
        where = f"Rank {this_rank()}, step {step}"
        try:
            found = self.probe(module.team, agents)
        except EngineError as error:
            raise SyncError(f"{where}: the engines of {list(agents)} do not reply after their sync. {error}") from error
        self._turns.update(dict.fromkeys(agents, 0))
        for row in found:
            if not row.agrees:
                base = module.team.members[row.agent]
                raise LogprobMismatchError(
                    f"{where}: the engine serves {row.agent!r} at version {module.versions[row.agent]} with log-probs "
                    f"that are {row.error:.3g} nats from the trainer's (allowed {row.tolerance:g}). It has old weights "
                    f"or caches, another base than {base!r} ({module.team.base_hashes()[base]}), or another `dtype`."
                )
        return found
