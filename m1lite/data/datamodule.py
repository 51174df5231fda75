"""The samples of every split as batches for Lightning; the batch of a step is a pure function of (seed, step).

So an interrupted run continues with the very samples it would have had, on any number of ranks. Where samples come
from is said in ``worlds.py`` and ``readers/``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from lightning.pytorch import LightningDataModule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from m1lite.records import Sample


class Source(Protocol):
    """Where samples come from: a ``World`` of ``worlds.py``, or ``Files``."""

    def split(self, name: str) -> Sequence[Sample]:
        """Return the samples of ``"train"``, ``"val"`` or ``"test"``, always in the same order."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """A dataset in a folder."""

    read: Callable[[str, str], Sequence[Sample]]
    """The dataset's reader, called with the folder and the split's name; for example ``read_jsonl``."""
    root: str
    """The folder."""

    def split(self, name: str) -> Sequence[Sample]:
        """Read the samples of a split."""
        return self.read(self.root, name)


def step_indices(num_samples: int, batch_size: int, *, seed: int, step: int) -> list[int]:
    """Choose the samples of one training step.

    Every pass over the samples has its own order, drawn from (seed, pass). A pass has ``num_samples // batch_size``
    steps; the remainder is left out (another one in every pass), so a batch never holds a sample twice.

    Args:
        num_samples: samples in the split.
        batch_size: samples of a step over all ranks, at most ``num_samples``.
        seed: of the run.
        step: counted from 0 over all passes.

    Returns:
        ``batch_size`` different indices in ``[0, num_samples)``.

    Raises:
        ValueError: if the batch is empty or larger than the split.

    Example:
        >>> [step_indices(6, 2, seed=0, step=step) for step in range(4)]
        [[0, 5], [1, 4], [3, 2], [2, 0]]
    """
    if not 1 <= batch_size <= num_samples:
        raise ValueError(
            f"`batch_size` is {batch_size}; it must be from 1 to the {num_samples} samples of the split: "
            "lower it or add samples."
        )
    passes, within = divmod(step, num_samples // batch_size)
    return list(_order(num_samples, seed, passes)[within * batch_size : (within + 1) * batch_size])


@lru_cache(maxsize=2)
def _order(num_samples: int, seed: int, passes: int) -> tuple[int, ...]:
    """Draw the order of one pass; a text seed is hashed whole, so (seed, pass) pairs never share an order."""
    order = list(range(num_samples))
    random.Random(f"{seed}/{passes}").shuffle(order)
    return tuple(order)


class StepLoader:
    """Training batches in order of the step, sized and with a position that Lightning saves and restores.

    Args:
        samples: the whole split, the same on every rank.
        batch_size: samples of a step over all ranks.
        collate: makes a batch of this rank's samples.
        seed: of the run.
        rank: which share of every step this process takes.
        world_size: number of shares; a rank takes every ``world_size``-th sample of a step.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        batch_size: int,
        collate: Callable[[list[Sample]], Any],
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        step_indices(len(samples), batch_size, seed=seed, step=0)  # An impossible batch is refused now.
        if batch_size < world_size:
            raise ValueError(
                f"`batch_size` is {batch_size} over {world_size} ranks; give every rank at least one sample of a step."
            )
        self.samples, self.batch_size, self.collate, self.seed = samples, batch_size, collate, seed
        self.rank, self.world_size = rank, world_size
        self.step = 0

    def batch(self, step: int) -> Any:
        """Return this rank's share of the batch of ``step``."""
        indices = step_indices(len(self.samples), self.batch_size, seed=self.seed, step=step)
        return self.collate([self.samples[index] for index in indices[self.rank :: self.world_size]])

    def __len__(self) -> int:
        return len(self.samples) // self.batch_size

    def __iter__(self) -> Iterator[Any]:
        # After a resume in the middle of a pass only its rest is left.
        for _ in range(len(self) - self.step % len(self)):
            self.step += 1
            yield self.batch(self.step - 1)

    def state_dict(self) -> dict[str, int]:
        """Return the next step, and what the order depends on."""
        return {"step": self.step, "seed": self.seed, "batch_size": self.batch_size, "num_samples": len(self.samples)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at the saved step; refuse a seed, batch size or data set that would give other batches."""
        mine = self.state_dict()
        for name in ("seed", "batch_size", "num_samples"):
            if state[name] != mine[name]:
                raise ValueError(
                    f"The checkpoint was trained with {name}={state[name]}, this run has {mine[name]}; "
                    f"resume with the same {name}."
                )
        self.step = state["step"]


def in_order(samples: Sequence[Sample], batch_size: int, *, rank: int = 0, world_size: int = 1) -> list[list[Sample]]:
    """Cut a split into batches for evaluation: every sample once, the same number of batches on every rank.

    Args:
        samples: the whole split, the same on every rank.
        batch_size: samples of a batch over all ranks.
        rank: which share of every batch this process takes; that of the last batch can be empty.
        world_size: number of shares; a rank takes every ``world_size``-th sample of a batch.

    Example:
        >>> in_order([0, 1, 2, 3, 4], 4, rank=1, world_size=2)
        [[1, 3], []]
    """
    starts = range(0, len(samples), batch_size)
    return [list(samples[start : start + batch_size][rank::world_size]) for start in starts]


class EvaluationLoader:
    """Evaluation batches in a fixed order. A class of its own: Lightning takes a plain list for several loaders."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class SampleDataModule(LightningDataModule):
    """Samples of a source as training and evaluation batches.

    Args:
        source: asked for the splits ``"train"``, ``"val"`` and ``"test"``, once for each.
        collate: makes a batch of a list of samples.
        batch_size: samples of a training step, over all ranks.
        eval_batch_size: samples of an evaluation batch, over all ranks.
        seed: of the run; the training batches depend on it and on the step only.
    """

    def __init__(
        self,
        source: Source,
        collate: Callable[[list[Sample]], Any],
        *,
        batch_size: int,
        eval_batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.collate = source, collate
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self._splits: dict[str, Sequence[Sample]] = {}

    def split(self, name: str) -> Sequence[Sample]:
        """Return the samples of a split, read at the first use.

        Raises:
            ValueError: if an id stands twice in the split (results are paired by it).
        """
        if name not in self._splits:
            samples, seen = self.source.split(name), set()
            for sample in samples:
                if sample.id in seen:
                    raise ValueError(f"The id {sample.id!r} stands twice in split {name!r}; make ids unique.")
                seen.add(sample.id)
            self._splits[name] = samples
        return self._splits[name]

    def train_dataloader(self) -> StepLoader:
        """Return the loader of the training split, this rank's share of every step."""
        return StepLoader(self.split("train"), self.batch_size, self.collate, seed=self.seed, **self._ranks())

    def val_dataloader(self) -> EvaluationLoader:
        """Return the batches of the validation split, this rank's share."""
        return self._evaluation("val")

    def test_dataloader(self) -> EvaluationLoader:
        """Return the batches of the test split, this rank's share."""
        return self._evaluation("test")

    def _evaluation(self, name: str) -> EvaluationLoader:
        batches = in_order(self.split(name), self.eval_batch_size, **self._ranks())
        return EvaluationLoader([self.collate(batch) for batch in batches])

    def _ranks(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
