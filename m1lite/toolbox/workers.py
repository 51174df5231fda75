"""Threads for calls that may hang: equal jobs share one execution, and every job has a deadline.

A thread cannot be stopped, so an overdue job keeps its own and stops counting as busy. Knows nothing of tools.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Job(Generic[Result]):
    """One execution, waited for by everyone who asked for it."""

    key: Any
    function: Callable[[], Result]
    """Must not raise."""
    due: float | None = None
    """Monotonic time of the deadline; ``None`` until a worker takes the job, so that waiting for one does not count."""
    late: bool = False
    """Finished after its deadline."""
    result: Result | None = None
    """``None`` until finished."""


class Workers(Generic[Result]):
    """A bounded number of daemon threads, started when there is work and gone when there is none.

    Args:
        num_workers: jobs that run at the same time, overdue ones not counted; at least 1.
        deadline_seconds: time that a job may run before those who wait give up; above 0.
    """

    def __init__(self, *, num_workers: int, deadline_seconds: float) -> None:
        if num_workers < 1:
            raise ValueError(f"`workers` must be at least 1, got {num_workers}.")
        if not deadline_seconds > 0:
            raise ValueError(f"`deadline_seconds` must be above 0, got {deadline_seconds}.")
        self.deadline_seconds = deadline_seconds
        self._num_workers = num_workers
        self._queued: deque[Job[Result]] = deque()
        self._running: set[Job[Result]] = set()
        self._unfinished: dict[Hashable, Job[Result]] = {}
        self._changed = Condition()

    def submit(self, key: Hashable, function: Callable[[], Result]) -> Job[Result]:
        """Queue a job, or join the unfinished one of the same key."""
        with self._changed:
            job = self._unfinished.get(key)
            if job is None:
                job = Job(key, function)
                self._unfinished[key] = job
                self._queued.append(job)
                self._start_threads()
            return job

    def wait(self, job: Job[Result]) -> bool:
        """Wait for a job's result; false if it missed its deadline, at once where it already had."""
        with self._changed:
            while job.result is None:
                now = time.monotonic()
                if job.due is not None and now >= job.due:
                    return False
                self._start_threads()  # other jobs may have become overdue and left their place
                # Where every busy job is overdue a place is free, so a queued job never waits without a bound.
                bounds = [other.due - now for other in self._running if other.due is not None and other.due > now]
                self._changed.wait(min(bounds, default=self.deadline_seconds))
            return not job.late

    def _start_threads(self) -> None:
        while (job := self._take()) is not None:
            Thread(target=self._work, args=(job,), name="m1lite-tool", daemon=True).start()

    def _take(self) -> Job[Result] | None:
        """Take the next queued job if a place is free; its time starts now."""
        now = time.monotonic()
        busy = sum(1 for job in self._running if job.due is not None and job.due > now)
        if not self._queued or busy >= self._num_workers:
            return None
        job = self._queued.popleft()
        job.due = now + self.deadline_seconds
        self._running.add(job)
        return job

    def _work(self, first: Job[Result]) -> None:
        job: Job[Result] | None = first
        while job is not None:
            result = job.function()
            with self._changed:
                job.late = job.due is not None and time.monotonic() > job.due
                job.result = result
                self._running.discard(job)
                del self._unfinished[job.key]
                job = self._take()
                self._changed.notify_all()
