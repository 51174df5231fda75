"""What the ranks of a run do together: agree on their number, on what they hold, and add numbers up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch.distributed as dist

if TYPE_CHECKING:
    from torch import Tensor


def num_ranks() -> int:
    """Return the size of the default process group, 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def reduce_over_ranks(values: Tensor, how: Literal["sum", "max"] = "sum") -> Tensor:
    """Reduce a tensor over all ranks in place and return it; every rank gets the same bits."""
    if num_ranks() > 1:
        dist.all_reduce(values, op=dist.ReduceOp.SUM if how == "sum" else dist.ReduceOp.MAX)
    return values


def check_world(world_size: int) -> None:
    """Raise unless the default process group has ``world_size`` ranks.

    An engine that starts before the group leaves a group of one rank behind; Lightning then trains one process on its
    share of the data without a word.

    Raises:
        RuntimeError: naming both sizes.
    """
    if num_ranks() != world_size:
        raise RuntimeError(
            f"The process group has {num_ranks()} rank(s), but the trainer expects {world_size}; create the group of "
            "all ranks before any engine is built."
        )


def check_same_on_ranks(what: str, fingerprint: str) -> None:
    """Raise unless every rank passes the same string.

    Raises:
        RuntimeError: on every rank, naming the first rank that differs from rank 0.
    """
    if num_ranks() == 1:
        return
    found: list[str] = [""] * num_ranks()
    dist.all_gather_object(found, fingerprint)
    for rank, other in enumerate(found):
        if other != found[0]:
            raise RuntimeError(
                f"The {what} differ between rank 0 ({found[0]}) and rank {rank} ({other}); "
                "every rank must load the same files with the same seed."
            )
