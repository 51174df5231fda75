"""Several replicas as one: each request goes to the least loaded, and those of a lost replica to the others.

What a request says and what the replicas serve is not known here, see ``server.py``.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from m1lite.engines.base import EngineError
from m1lite.engines.replica import Replica, ReplicaError, ReplicaRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.engines.replica import Drawn

T = TypeVar("T")
logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 256
"""Requests that one replica has at a time, as many as vLLM computes in one batch by default; the rest waits here."""


class NoReplicaError(EngineError):
    """All replicas are lost; each is named with its reason."""


@dataclass(slots=True, eq=False)
class _Job:
    ticket: int
    body: bytes
    replica: Replica | None = None
    """That it was last given to; None while it waits."""


class Fleet:
    """Draws replies on whatever replicas are left.

    A replica is lost when it does not answer a request or a health check in time, breaks off, fails, or answers
    something else. Requests carry their seeds, so that another replica draws the same reply.

    Args:
        replicas: at least one.
        deadline_seconds: for one reply, from when it is sent.
        health_seconds: while replies are awaited each replica is asked so often for its health, and has so long to
            answer: one that hangs is found before its replies are overdue.
    """

    def __init__(self, replicas: Sequence[Replica], *, deadline_seconds: float, health_seconds: float) -> None:
        self.live = list(replicas)
        self.lost: dict[Replica, str] = {}
        """Replica to the reason."""
        self.deadline_seconds, self.health_seconds = deadline_seconds, health_seconds
        self._loads = dict.fromkeys(replicas, 0)
        self._jobs: dict[int, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._errands = _Errands(len(replicas) * (MAX_IN_FLIGHT + 2))
        self._asked_health = time.monotonic()
        self._looked_for: set[Replica] = set()
        self._back: queue.SimpleQueue[Replica] = queue.SimpleQueue()

    def submit(self, ticket: int, body: bytes) -> None:
        """Queue one request.

        Raises:
            NoReplicaError: if no replica is left.
        """
        if not self.live:
            raise self._nobody()
        self._jobs[ticket] = job = _Job(ticket, body)
        self._waiting.append(job)
        self._deal()

    @property
    def num_unfinished(self) -> int:
        """How many requests are without a reply."""
        return len(self._jobs)

    def step(self, wait: float) -> list[tuple[int, Drawn]]:
        """Return the replies that came, after at most ``wait`` seconds if there is none.

        Raises:
            NoReplicaError: if no replica is left; all requests are dropped.
            ReplicaRefusedError: if a replica refuses a request; all requests are dropped.
        """
        due = time.monotonic() + wait
        finished: list[tuple[int, Drawn]] = []
        while self._jobs:
            self._check_health()
            left = 0.0 if finished else max(0.0, min(due - time.monotonic(), self.health_seconds))
            try:
                told = self._errands.told.get(timeout=left) if left else self._errands.told.get_nowait()
            except queue.Empty:
                if finished or time.monotonic() >= due:
                    break
                continue
            try:
                finished += told()
            except EngineError:
                self.abort()
                raise
            self._deal()
        return finished

    def abort(self) -> None:
        """Drop all requests; the servers drop them too."""
        if not self._jobs:
            return
        self._jobs.clear()
        self._waiting.clear()
        self._loads = dict.fromkeys(self._loads, 0)
        for replica in self.live:
            replica.hang_up()
        self._errands.told = queue.SimpleQueue()  # what the broken exchanges still tell goes nowhere

    def everywhere(self, call: Callable[[Replica], T]) -> dict[Replica, T]:
        """Make the same call to every live replica at once, and lose those that do not answer.

        Args:
            call: has a deadline of its own.

        Raises:
            NoReplicaError: if no replica is left.
            ReplicaRefusedError: if a replica refuses; the others have been asked too.
        """
        if not self.live:
            raise self._nobody()
        answers: queue.SimpleQueue[Callable[[], tuple[Replica, T]]] = queue.SimpleQueue()
        for replica in self.live:
            self._errands.start(partial(_pair, replica, call), answers.put)
        found: dict[Replica, T] = {}
        refusal: ReplicaRefusedError | None = None
        for replica in list(self.live):
            answer = answers.get()
            try:
                replica, result = answer()
                found[replica] = result
            except _SilentError as silent:
                self._lose(silent.replica, silent.reason)
            except ReplicaRefusedError as error:
                refusal = error
        if refusal is not None:
            raise refusal
        return found

    def returned(self) -> list[Replica]:
        """Ask lost replicas for their health, and give those that have answered since the last call.

        Where others are left nobody waits for the answers. They stay lost until :meth:`take_back`, since a server that
        was restarted has none of the adapters.
        """
        for replica in self.lost.keys() - self._looked_for:
            self._looked_for.add(replica)
            self._errands.start(partial(replica.check_health, self.health_seconds), partial(self._found, replica))
        while not self.live and self._looked_for and self._back.empty():
            time.sleep(0.05)
        found = []
        while not self._back.empty():
            found.append(self._back.get())
        return [replica for replica in found if replica in self.lost]

    def take_back(self, replica: Replica) -> None:
        """Give requests to a replica again."""
        del self.lost[replica]
        self.live.append(replica)
        self._loads[replica] = 0
        logger.warning("The rollout server %s is back.", replica.url)

    def close(self) -> None:
        """Drop all requests and end the threads."""
        self.abort()
        for replica in (*self.live, *self.lost):
            replica.hang_up()
        self._errands.close()

    # ---- inside ----------------------------------------------------------------------------------

    def _deal(self) -> None:
        """Give waiting requests to the least loaded replicas, up to their limits."""
        while self._waiting:
            replica = min(self.live, key=self._loads.__getitem__)
            if self._loads[replica] >= MAX_IN_FLIGHT:
                return
            job = self._waiting.popleft()
            job.replica = replica
            self._loads[replica] += 1
            draw = partial(_pair, replica, partial(_generate, body=job.body, seconds=self.deadline_seconds))
            self._errands.tell(draw, partial(self._drawn, job, replica))

    def _drawn(
        self, job: _Job, replica: Replica, answer: Callable[[], tuple[Replica, Drawn]]
    ) -> list[tuple[int, Drawn]]:
        if job.replica is not replica or job.ticket not in self._jobs:
            return []  # the replica was lost meanwhile, and another has the request
        self._loads[replica] -= 1
        try:
            _, drawn = answer()
        except _SilentError as silent:
            self._lose(replica, silent.reason)
            return []
        del self._jobs[job.ticket]
        return [(job.ticket, drawn)]

    def _lose(self, replica: Replica, reason: str) -> None:
        """Take a replica out and queue its requests anew.

        Raises:
            NoReplicaError: if it was the last one.
        """
        if replica in self.lost:
            return
        self.live.remove(replica)
        self.lost[replica] = reason
        again = [job for job in self._jobs.values() if job.replica is replica]
        for job in reversed(again):
            job.replica = None
            self._waiting.appendleft(job)
        replica.hang_up()
        if not self.live:
            raise self._nobody()
        logger.warning("Lost a rollout server: %s %d replies are drawn on others.", reason, len(again))

    def _nobody(self) -> NoReplicaError:
        reasons = " ".join(self.lost.values())
        return NoReplicaError(f"No rollout server is left, with {len(self._jobs)} replies awaited: {reasons}")

    def _check_health(self) -> None:
        if time.monotonic() - self._asked_health < self.health_seconds:
            return
        self._asked_health = time.monotonic()
        for replica in self.live:
            asked = partial(_pair, replica, partial(Replica.check_health, seconds=self.health_seconds))
            self._errands.tell(asked, partial(self._healthy, replica))

    def _healthy(self, replica: Replica, answer: Callable[[], object]) -> list[tuple[int, Drawn]]:
        try:
            answer()
        except _SilentError as silent:
            self._lose(replica, silent.reason)
        return []

    def _found(self, replica: Replica, answer: Callable[[], object]) -> None:
        """Note in the errand's thread whether a lost replica is healthy."""
        try:
            answer()
        except EngineError:
            pass
        else:
            self._back.put(replica)
        self._looked_for.discard(replica)


class _SilentError(EngineError):
    """A replica that gave no usable answer, and why."""

    def __init__(self, replica: Replica, reason: str) -> None:
        super().__init__(reason)
        self.replica, self.reason = replica, reason


def _pair(replica: Replica, call: Callable[[Replica], T]) -> tuple[Replica, T]:
    try:
        return replica, call(replica)
    except ReplicaError as error:
        raise _SilentError(replica, str(error)) from error


def _generate(replica: Replica, *, body: bytes, seconds: float) -> Drawn:
    try:
        return replica.generate(body, seconds)
    except ReplicaRefusedError as refusal:
        if "does not exist" not in str(refusal):
            raise
        # It had the adapter when it was pushed: the server was restarted under the same address.
        raise ReplicaError(f"{refusal} It was restarted since its adapters were pushed.") from refusal


class _Errands:
    """Daemon threads for exchanges that wait; started as they are needed, up to a limit.

    Args:
        limit: threads at most.
    """

    def __init__(self, limit: int) -> None:
        self.told: queue.SimpleQueue[Callable[[], list[tuple[int, Drawn]]]] = queue.SimpleQueue()
        """What came of the errands of :meth:`tell`, as calls for the thread that reads this."""
        self._limit = limit
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._num_threads = self._num_todo = 0

    def tell(self, call: Callable[[], T], then: Callable[[Callable[[], T]], list[tuple[int, Drawn]]]) -> None:
        """Make a call in a thread, and put ``then`` with its outcome into today's :attr:`told`."""
        told = self.told
        self.start(call, lambda answer: told.put(partial(then, answer)))

    def start(self, call: Callable[[], T], then: Callable[[Callable[[], T]], None]) -> None:
        """Make a call in a thread, and hand its outcome to ``then`` there: a function that returns or raises it."""
        with self._lock:
            self._num_todo += 1
            if self._num_todo > self._num_threads < self._limit:
                self._num_threads += 1
                threading.Thread(target=self._work, daemon=True, name="m1lite-replica").start()
        self._todo.put(lambda: then(_outcome(call)))

    def close(self) -> None:
        """End the threads once they have done what they are at."""
        for _ in range(self._num_threads):
            self._todo.put(None)

    def _work(self) -> None:
        while (errand := self._todo.get()) is not None:
            errand()
            with self._lock:
                self._num_todo -= 1


def _outcome(call: Callable[[], T]) -> Callable[[], T]:
    try:
        result = call()
    except Exception as error:
        kept = error

        def again() -> T:
            raise kept

        return again
    return lambda: result
