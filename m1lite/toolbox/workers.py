"""Threads for calls that may hang: equal jobs share one execution, and every job has a deadline.

A thread cannot be stopped, so an overdue job keeps its own and stops counting as busy. Knows nothing of tools.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from queue import Full
from threading import Condition, Thread
from typing import Generic, TypeVar

Result = TypeVar("Result")
Done = Callable[[Result | None, bool], None]
"""Gets the result, ``None`` where the job missed its deadline, and whether an earlier asker gets the same."""


@dataclass(slots=True, eq=False)
class Job(Generic[Result]):
    """One execution, waited for by everyone who asked for it."""

    key: Hashable
    function: Callable[[], Result]
    """Must not raise."""
    waiting: list[Done[Result]] = field(default_factory=list)
    """In the order of asking."""
    shared: bool = False
    """Whether somebody has been told of it or is the first to be."""
    due: float | None = None
    """Monotonic time of the deadline; ``None`` until a worker takes the job, so that waiting for one does not count."""


class Workers(Generic[Result]):
    """A bounded number of daemon threads, started when there is work and gone when there is none.

    One more thread looks after the deadlines; it ends when it has found nothing to do for the length of one.

    Args:
        num_workers: jobs that run at the same time, overdue ones not counted; at least 1.
        deadline_seconds: time that a job may run before those who wait give up; above 0.
        max_queued: jobs that wait for a worker; at least 1, ``None`` for any number.
    """

    def __init__(self, *, num_workers: int, deadline_seconds: float, max_queued: int | None = None) -> None:
        if num_workers < 1:
            raise ValueError(f"`workers` must be at least 1, got {num_workers}.")
        if not deadline_seconds > 0:
            raise ValueError(f"`deadline_seconds` must be above 0, got {deadline_seconds}.")
        if max_queued is not None and max_queued < 1:
            raise ValueError(f"`max_queued` must be at least 1, got {max_queued}.")
        self._max_queued = max_queued
        self.deadline_seconds = deadline_seconds
        self._num_workers = num_workers
        self._queued: deque[Job[Result]] = deque()
        self._running: dict[Job[Result], None] = {}  # in the order begun, which is that of the deadlines
        self._unfinished: dict[Hashable, Job[Result]] = {}
        self._changed = Condition()
        self._watched = False

    def submit(self, key: Hashable, function: Callable[[], Result], done: Done[Result]) -> None:
        """Queue a job, or join the unfinished one of the same key.

        Args:
            key: equal jobs have equal keys.
            function: the job; must not raise.
            done: called once, when the job has ended or its deadline has passed, from any thread; where the deadline of
                a job that is joined has passed already, before this returns.

        Raises:
            queue.Full: if a new job would have to wait behind ``max_queued`` others.
        """
        with self._changed:
            job = self._unfinished.get(key)
            if job is None:
                if self._max_queued is not None and len(self._queued) >= self._max_queued:
                    raise Full
                job = self._unfinished[key] = Job(key, function)
                self._queued.append(job)
            overdue = job.due is not None and time.monotonic() >= job.due
            if not overdue:
                job.waiting.append(done)
            self._start_threads()
        if overdue:
            done(None, True)

    def _start_threads(self) -> None:
        while (job := self._take()) is not None:
            Thread(target=self._work, args=(job,), name="m1lite-tool", daemon=True).start()
        if not self._watched and (self._running or self._queued):
            self._watched = True
            Thread(target=self._watch, name="m1lite-tool-deadlines", daemon=True).start()

    def _take(self) -> Job[Result] | None:
        """Take the next queued job if a place is free; its time starts now."""
        if not self._queued:
            return None
        now = time.monotonic()
        busy = sum(1 for job in self._running if job.due is not None and job.due > now)
        if busy >= self._num_workers:
            return None
        job = self._queued.popleft()
        job.due = now + self.deadline_seconds
        self._running[job] = None
        return job

    def _work(self, first: Job[Result]) -> None:
        job: Job[Result] | None = first
        while job is not None:
            result = job.function()
            with self._changed:
                late = job.due is not None and time.monotonic() > job.due
                waiting, job.waiting = job.waiting, []
                del self._running[job], self._unfinished[job.key]
                ended, job = job, self._take()
            _tell(ended, waiting, None if late else result)

    def _watch(self) -> None:
        """Tell those who wait for overdue jobs, and give the places of such jobs to others."""
        idle = False
        while True:
            late: list[tuple[Job[Result], list[Done[Result]]]] = []
            with self._changed:
                now = time.monotonic()
                coming = next((job.due for job in self._running if job.due is not None and job.due > now), None)
                if coming is None and not self._queued and idle:
                    self._watched = False
                    return
                idle = coming is None
                # A job that begins while this sleeps is due later than those it sleeps for: nobody need wake it.
                self._changed.wait(self.deadline_seconds if coming is None else coming - now)
                now = time.monotonic()
                for job in self._running:
                    if job.waiting and job.due is not None and job.due <= now:
                        late.append((job, job.waiting))
                        job.waiting = []
                self._start_threads()
            for job, waiting in late:
                _tell(job, waiting, None)


def _tell(job: Job[Result], waiting: list[Done[Result]], result: Result | None) -> None:
    for done in waiting:
        shared, job.shared = job.shared, True
        done(result, shared)
