"""An engine that outlives its faults: it is built anew, gets its weights back, and draws again what was under way.

Requests carry their tokens and seeds, so that the replies are those that would have come without the fault. A call that
never returns cannot be interrupted in this process, and ends it (watchdog.py); a server in another one can (server.py).
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from m1lite.engines.base import EngineError, draw_all
from m1lite.engines.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from m1lite.engines.base import Engine, Generation, Request

logger = logging.getLogger(__name__)


class SupervisedEngine:
    """Stands for an engine that can be built again.

    A fault is an exception in a step, such as one for want of memory, or replies under way of which none has come for
    too long. Copies of all weights that were loaded are kept in this process's memory, to load them again.

    Args:
        build: makes the engine; called at once, and after every fault when the old one is closed.
        name: of the engine, for errors.
        deadline_seconds: so long may no reply come while some are under way; a single call into the engine that lasts
            longer ends the process.
        max_faults: so many are mended until nothing is under way any more; one more is raised.

    Raises:
        EngineError: if the engine cannot be built at first.
        ValueError: if a limit is too small.
    """

    def __init__(
        self, build: Callable[[], Engine], *, name: str, deadline_seconds: float = 600.0, max_faults: int = 3
    ) -> None:
        if not deadline_seconds > 0:
            raise ValueError(f"`deadline_seconds` is {deadline_seconds}; it must be above 0.")
        if max_faults < 0:
            raise ValueError(f"`max_faults` is {max_faults}; it must be at least 0.")
        self.name = name
        self.deadline_seconds = deadline_seconds
        self.max_faults = max_faults
        self.num_faults = 0
        """Since it was made."""
        self._build = build
        self._engine: Engine | None = build()
        self._base: tuple[dict[str, Tensor], int] | None = None
        self._adapters: dict[str, tuple[dict[str, Tensor], dict[str, Any], int]] = {}
        self._under_way: dict[int, Request] = {}  # by our ticket, in the order submitted
        self._tickets: dict[int, int] = {}  # the engine's ticket to ours
        self._num_tickets = self._num_steps = self._num_mended = 0
        self._last_reply = 0.0
        self._watchdog = Watchdog(name, deadline_seconds)

    @property
    def draws_together(self) -> bool:
        """As the engine that it stands for."""
        return self._serving().draws_together

    def submit(self, request: Request) -> int:
        """Queue one reply; what the engine refuses is no fault of it."""
        inner = self._serving().submit(request)
        if not self._under_way:
            self._last_reply = time.monotonic()
        self._num_tickets += 1
        self._under_way[self._num_tickets] = request
        self._tickets[inner] = self._num_tickets
        return self._num_tickets

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Let the engine make one step; after a fault it is mended, and this returns no reply.

        Raises:
            EngineError: if there were too many faults; names the engine, its step and the last fault. Nothing is under
                way then.
        """
        if not self._under_way:
            return []
        self._num_steps += 1
        try:
            engine = self._serving()
            with self._watchdog.watching(f"its step {self._num_steps}"):
                drawn = engine.step(wait)
        except Exception as error:
            fault = repr(error)
            self._count(fault, error)
        else:
            return self._told(drawn)
        self._mend(fault)  # here, where the exception no longer holds the old engine's memory
        return []

    def _told(self, drawn: Sequence[tuple[int, Generation]]) -> list[tuple[int, Generation]]:
        """Give the replies of a step our tickets, and look at the clock where there are none."""
        now = time.monotonic()
        finished = [(self._tickets.pop(ticket), reply) for ticket, reply in drawn]
        for ticket, _ in finished:
            del self._under_way[ticket]
        if finished:
            self._last_reply = now
        elif now - self._last_reply > self.deadline_seconds:
            fault = (
                f"no reply for {now - self._last_reply:.0f} s, more than `deadline_seconds` {self.deadline_seconds:g}"
            )
            self._count(fault, None)
            self._mend(fault)
        if not self._under_way:
            self._num_mended = 0
        return finished

    def _count(self, fault: str, error: Exception | None) -> None:
        """Note a fault, and stop where there were too many."""
        self.num_faults += 1
        self._num_mended += 1
        if self._num_mended <= self.max_faults:
            return
        count, times = len(self._under_way), self._num_mended
        self._drop()  # the next use builds another
        self.abort()
        raise EngineError(
            f"The engine of {self.name} failed {times} times while {count} replies were under way, and `max_faults` is "
            f"{self.max_faults}; the last time at its step {self._num_steps}: {fault}"
        ) from error

    def _mend(self, fault: str) -> None:
        """Build the engine anew, load its weights, and submit again what was under way."""
        while True:
            logger.warning(
                "The engine of %s failed at its step %d and is built anew (%d of %d times): %s",
                self.name,
                self._num_steps,
                self._num_mended,
                self.max_faults,
                fault,
            )
            self._drop()
            try:
                self._engine = self._made()
                self._tickets = {self._engine.submit(request): ticket for ticket, request in self._under_way.items()}
            except Exception as error:
                fault = repr(error)
                self._count(fault, error)
            else:
                self._last_reply = time.monotonic()
                return

    def _made(self) -> Engine:
        engine = self._build()
        try:
            if self._base is not None:
                self._load_base(engine, *self._base)
            for policy, (tensors, config, version) in self._adapters.items():
                self._load_adapter(engine, policy, tensors, config, version)
        except BaseException:
            with suppress(Exception):
                engine.close()
            raise
        return engine

    def _drop(self) -> None:
        """Close the engine, as far as it still can be."""
        engine, self._engine = self._engine, None
        self._tickets.clear()
        if engine is not None:
            with suppress(Exception):
                engine.close()

    def _serving(self) -> Engine:
        """Return the engine; build it where the last attempt failed."""
        if self._engine is None:
            self._engine = self._made()
        return self._engine

    @property
    def num_unfinished(self) -> int:
        """How many replies are queued or under way."""
        return len(self._under_way)

    def abort(self) -> None:
        """Drop everything that is queued or under way."""
        self._under_way.clear()
        self._tickets.clear()
        self._num_mended = 0
        if self._engine is not None:
            try:
                self._engine.abort()
            except Exception:  # it is broken: the next use builds another
                self._drop()

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Draw one reply for each request, in the order given."""
        return draw_all(self, requests)

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Serve ``policy`` with a copy of these LoRA tensors from now on, also after a fault."""
        self._load_adapter(self._serving(), policy, tensors, config, version)
        self._adapters[policy] = _copies(tensors.items()), dict(config), version

    def load_base(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replace the base weights by a copy of these, also after a fault."""
        new = dict(weights)
        self._load_base(self._serving(), new, version)
        self._base = _copies(new.items()), version

    def _load_adapter(
        self, engine: Engine, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int
    ) -> None:
        with self._watchdog.watching(f"the load of version {version} of {policy!r}"):
            engine.load_adapter(policy, tensors, config, version)

    def _load_base(self, engine: Engine, weights: Mapping[str, Tensor], version: int) -> None:
        with self._watchdog.watching(f"the load of version {version} of its base"):
            engine.load_base(weights.items(), version)

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""
        return self._serving().versions()

    def sleep(self) -> None:
        """Let the engine sleep."""
        if self._engine is not None:
            with self._watchdog.watching("falling asleep"):
                self._engine.sleep()

    def close(self) -> None:
        """Close the engine; it cannot be used afterwards."""
        self._under_way.clear()
        self._tickets.clear()
        engine, self._engine = self._engine, None
        self._build = _closed
        self._watchdog.close()
        if engine is not None:
            engine.close()


def _closed() -> Engine:
    raise EngineError("This engine is closed.")


def _copies(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors}


class MakeEngine(Protocol):
    """Builds the engine of one base; a partial of ``VllmEngine`` or ``HfEngine``."""

    def __call__(self, model: str, policies: Sequence[str], *, max_model_len: int) -> Engine:
        """Build an engine that serves ``policies`` on ``model`` with contexts of ``max_model_len`` tokens."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Supervised:
    """Makes supervised engines; arguments as :class:`SupervisedEngine`."""

    make: MakeEngine
    deadline_seconds: float = 600.0
    max_faults: int = 3

    def __call__(self, model: str, policies: Sequence[str], *, max_model_len: int) -> SupervisedEngine:
        """Build an engine that serves ``policies`` on ``model``."""
        return SupervisedEngine(
            partial(self.make, model, policies, max_model_len=max_model_len),
            name=f"{', '.join(policies)} on {model}",
            deadline_seconds=self.deadline_seconds,
            max_faults=self.max_faults,
        )
