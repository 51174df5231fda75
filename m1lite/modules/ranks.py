"""What the ranks of a run do together: agree on their number, on what they hold, and add numbers up."""

from __future__ import annotations

import functools
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

T = TypeVar("T")


def num_ranks() -> int:
    """Return the size of the default process group, 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def reduce_over_ranks(values: Tensor, how: Literal["sum", "max"] = "sum") -> Tensor:
    """Reduce a tensor over all ranks in place and return it; every rank gets the same bits."""
    if num_ranks() > 1:
        dist.all_reduce(values, op=dist.ReduceOp.SUM if how == "sum" else dist.ReduceOp.MAX)
    return values


def mean_over_ranks(values: Mapping[str, float], weight: float) -> dict[str, float]:
    """Average named numbers over the ranks that have them; the names may differ between ranks.

    Args:
        values: this rank's; NaN counts as missing.
        weight: how much this rank's values count, for example the number of its episodes.

    Returns:
        The same on every rank, without names that no rank knows.
    """
    found: list[tuple[Mapping[str, float], float]] = [(values, weight)]
    if num_ranks() > 1:
        found = [({}, 0.0)] * num_ranks()
        dist.all_gather_object(found, (dict(values), weight))
    sums: dict[str, tuple[float, float]] = {}
    for part, share in found:
        for name, value in part.items():
            if share > 0 and not math.isnan(value):
                total, count = sums.get(name, (0.0, 0.0))
                sums[name] = total + share * value, count + share
    return {name: total / count for name, (total, count) in sums.items()}


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


def this_rank() -> int:
    """Return this process's rank in the default process group, 0 where there is none."""
    return dist.get_rank() if num_ranks() > 1 else 0


def barrier() -> None:
    """Wait until every rank is here."""
    if num_ranks() > 1:
        dist.barrier()


class AbsentRankError(RuntimeError):
    """A rank that did not come to where the others wait."""


def meet(what: str, numbers: Sequence[float], *, seconds: float) -> list[float]:
    """Wait until every rank is here, but not for ever: a rank that failed alone would leave the others hanging.

    Args:
        what: what the ranks are about to do together, for the message.
        numbers: of this rank; as many on every rank.
        seconds: deadline.

    Returns:
        The largest of each number over the ranks.

    Raises:
        AbsentRankError: on every rank that came, naming this rank; on rank 0 also those that did not come.
    """
    if num_ranks() == 1:
        return list(numbers)
    group, largest = _gloo_group(dist.group.WORLD), torch.tensor(numbers, dtype=torch.float64)
    try:
        dist.monitored_barrier(group, timedelta(seconds=seconds), wait_all_ranks=True)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group)
    except RuntimeError as error:
        raise AbsentRankError(
            f"Rank {dist.get_rank()} waited {seconds:g} s for all {num_ranks()} ranks to meet for {what}; the cause "
            f"stands in the log of the one that is absent. {error}"
        ) from error
    return largest.tolist()


@functools.lru_cache(maxsize=1)
def _gloo_group(world: Any) -> Any:
    """Make a group of all ranks that can tell who is absent, which NCCL's cannot; once for a default group."""
    return dist.new_group(backend="gloo")


def gather_rows(rows: Sequence[T]) -> list[T]:
    """Put the rows of all ranks together, rank 0's first; every rank gets the same list.

    Args:
        rows: small picklable records.
    """
    if num_ranks() == 1:
        return list(rows)
    found: list[list[T]] = [[] for _ in range(num_ranks())]
    dist.all_gather_object(found, list(rows))
    return [row for part in found for row in part]


def broadcast_weights(model: nn.Module, *, source: int) -> None:
    """Give every rank the weights that one rank holds, in place."""
    if num_ranks() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=source)
