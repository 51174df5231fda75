"""Dynamic sampling: questions whose episodes all earn the same teach nothing, and are replaced by others."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from m1lite.collaboration.loop import derive_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import lightning.pytorch as pl

    from m1lite.callbacks.learning import Rollout
    from m1lite.records import Sample


class Refill:
    """Plays further questions in place of those that teach nothing, up to a number of rounds.

    A question teaches if the rewards of any agent differ between its episodes. What is still missing after the last
    round is missing: the step then learns from fewer questions, never from the same ones played again.

    Args:
        max_rounds: further rollouts in a step, at least 1.

    Raises:
        ValueError: if ``max_rounds`` is below 1.

    References:
        DAPO: Yu et al. 2025, arXiv:2503.14476, section 3.2, equation 11.
    """

    def __init__(self, *, max_rounds: int = 2) -> None:
        if max_rounds < 1:
            raise ValueError(f"`max_rounds` is {max_rounds}; it must be at least 1, or leave the refill out.")
        self.max_rounds = max_rounds

    def __call__(
        self,
        rollout: Rollout,
        play: Callable[[Sequence[Sample], int], Rollout],
        spare: Sequence[Sample],
        *,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> tuple[Rollout, dict[str, float]]:
        """Return the rollout of the questions that teach, and what it took.

        Args:
            rollout: of the step's own questions.
            play: plays questions under a seed.
            spare: questions to draw from; those that were played already are left out.
            seed: of this step.
            share: rank and number of ranks; every rank draws from its own share of the spare questions.

        Returns:
            The rollout, and for the log ``refill/rounds``, ``refill/dropped`` (questions that taught nothing) and
            ``refill/missing`` (of the step's number of questions).
        """
        wanted, rank, ranks = len(rollout.samples), *share
        own = {sample.id for sample in rollout.samples}
        pool = [sample for sample in spare[rank::ranks] if sample.id not in own]
        Random(derive_seed(seed, "refill")).shuffle(pool)
        kept = rollout.only(rollout.teaching())
        dropped, rounds = wanted - len(kept.samples), 0
        while len(kept.samples) < wanted and rounds < self.max_rounds and pool:
            rounds += 1
            missing = wanted - len(kept.samples)
            drawn, pool = pool[:missing], pool[missing:]
            found = play(drawn, derive_seed(seed, "refill", rounds))
            taught = found.only(found.teaching())
            dropped += len(drawn) - len(taught.samples)
            kept = kept.joined(taught)
        values = {"rounds": rounds, "dropped": dropped, "missing": wanted - len(kept.samples)}
        return kept, {f"refill/{name}": float(value) for name, value in values.items()}


def training_samples(trainer: pl.Trainer) -> Sequence[Sample]:
    """Return the training split of the trainer's data module.

    Raises:
        ValueError: if the trainer has none.
    """
    data: Any = getattr(trainer, "datamodule", None)
    if data is None:
        raise ValueError("`refill` draws from the training split, but the trainer has no datamodule; fit with one.")
    return data.split("train")
