"""After every step: adapters that changed go to the engine, under the version that their rollouts will carry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import lightning.pytorch as pl
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from m1lite.modules.marl import MarlModule


class AdapterEngine(Protocol):
    """What the sync needs of an engine or of an engine group."""

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Serve ``policy`` with these LoRA tensors from now on."""

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""


class SyncCallback(pl.Callback):
    """Keeps the engine at the module's versions: all adapters at the start of a fit, then those that an update changed.

    Args:
        engine: serves every agent of the team.
    """

    def __init__(self, engine: AdapterEngine) -> None:
        self.engine = engine

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Publish every adapter: what an engine serves under a version before is not known to be these weights.

        Raises:
            ValueError: if the engine does not serve an agent.
        """
        missing = sorted(set(pl_module.team.agents) - set(self.engine.versions()))
        if missing:
            raise ValueError(f"The engine does not serve {missing}; it serves {sorted(self.engine.versions())}.")
        for agent in pl_module.team.agents:
            self._publish(pl_module, agent)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        started = time.perf_counter()
        served = self.engine.versions()
        for agent, version in pl_module.versions.items():
            if served[agent] != version:
                self._publish(pl_module, agent)
        pl_module.log("perf/sync_s", time.perf_counter() - started, batch_size=1)

    def _publish(self, module: MarlModule, agent: str) -> None:
        team = module.team
        self.engine.load_adapter(
            agent, team.adapter_tensors(agent), team.adapter_config(agent), version=module.versions[agent]
        )
