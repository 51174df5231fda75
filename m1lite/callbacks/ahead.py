"""One step ahead: the next step's questions are played while this step's are learnt from.

What is played and how it is rewarded stands in rollout.py. The weights that play are then one update old, which the
module must allow (``async_level=1``) and its objective correct for.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from m1lite.callbacks.rollout import RolloutCallback

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    import lightning.pytorch as pl

    from m1lite.callbacks.learning import Rollout
    from m1lite.records import Sample


class AheadRolloutCallback(RolloutCallback):
    """Plays in a thread while the module trains; arguments as :class:`RolloutCallback`.

    At the start of a step its rollout is there, or is waited for, and the next one begins. It is over before the step
    ends, so that weights are published, questions are validated and checkpoints are written while nothing is played;
    this callback must therefore stand before the sync. Seeds are those of the step, whenever it is played. The first
    rollout of a fit, also of one that is continued, is played with the current weights.

    Beside the values of every rollout, ``perf/rollout_wait_s`` is the time for which the update had to wait.

    Raises (from the hooks):
        ValueError: if the module does not accept rollouts that are one version old, or the training loader cannot give
            a later step's batch.
    """

    beside_updates = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._thread: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[tuple[Rollout, dict[str, float]]]] | None = None

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if pl_module.async_level < 1:
            raise ValueError(
                f"`async_level` of the module is {pl_module.async_level}, but rollouts are played one step ahead; set "
                "`rollout.async_level=1` with a `correction`, or take `RolloutCallback`."
            )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="m1lite-rollout")

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        started = time.perf_counter()
        if self._next is not None:
            self._next[1].exception()  # waits; what it raises is raised where the rollout is taken
        pl_module.log("perf/rollout_wait_s", time.perf_counter() - started, batch_size=1)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self._end()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._end()  # Lightning tears nothing down then

    def _end(self) -> None:
        """Let what is being played come to its end: an engine may be closed next."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._thread, self._next = None, None

    @override
    def _find(self, trainer: pl.Trainer, samples: Sequence[Sample], step: int) -> tuple[Rollout, dict[str, float]]:
        ready, self._next = self._next, None
        found = ready[1].result() if ready is not None and ready[0] == step else self._play_step(trainer, samples, step)
        if step + 1 < trainer.max_steps or trainer.max_steps < 0:
            later = _batch(trainer, step + 1).samples
            assert self._thread is not None
            self._next = step + 1, self._thread.submit(self._play_step, trainer, later, step + 1)
        return found


def _batch(trainer: pl.Trainer, step: int) -> Any:
    """Look up the batch of a step that the loader has not reached.

    Raises:
        ValueError: if the loader cannot.
    """
    loader: Any = trainer.train_dataloader
    if not hasattr(loader, "batch"):
        raise ValueError(
            f"The training loader is a {type(loader).__name__} without `batch(step)`; rollouts one step ahead need one "
            "that gives the batch of any step, as `StepLoader` does."
        )
    return loader.batch(step)
