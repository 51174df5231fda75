"""Lightning's distributed strategy for a team: a process per device, the module never wrapped.

``DistributedDataParallel`` registers parameters once and expects each in every backward pass; adapters that take turns
on one base break both. Gradients are summed by ``marl.py``, once per agent and update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.strategies import DDPStrategy
from typing_extensions import override

from m1lite.modules.ranks import check_world

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class TeamStrategy(DDPStrategy):
    """``DDPStrategy`` without the wrapper, with its arguments. A process group that exists already is used as it is."""

    @override
    def setup(self, trainer: Trainer) -> None:
        """Check the process group, then set up as usual.

        Raises:
            RuntimeError: if the group's size is not the trainer's world size.
        """
        check_world(trainer.world_size)
        super().setup(trainer)

    @override
    def configure_ddp(self) -> None:
        """Leave the module as it is: no wrapper, no communication hooks."""
