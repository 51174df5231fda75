"""Ends the process where a call into an engine does not come back: native code that hangs cannot be interrupted.

A rank that waited for it in silence would hold up all the others; one that ends lets the launcher stop them, and the
run goes on from its last checkpoint.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT_STATUS = 70
"""Of a process that was ended: the ``EX_SOFTWARE`` of ``sysexits.h``."""


def end_process(message: str) -> None:
    """Say why and where all threads stand, and end the process at once: what hangs would hold up an orderly end."""
    print(message, file=sys.stderr, flush=True)
    faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
    os._exit(EXIT_STATUS)


class Watchdog:
    """Watches one call at a time from a daemon thread, which the first call starts.

    Args:
        name: of the engine, for the message.
        deadline_seconds: so long may a call last; an overdue one is found at most a tenth of this later.
        end: gets the message, which names rank, engine, call and seconds.
    """

    def __init__(self, name: str, deadline_seconds: float, end: Callable[[str], None] = end_process) -> None:
        self.name = name
        self.deadline_seconds = deadline_seconds
        self._end = end
        self._call: tuple[str, float] | None = None
        """What is called, and since when: replaced as a whole, so that the thread needs no lock."""
        self._closed = Event()
        self._thread: Thread | None = None

    @contextmanager
    def watching(self, call: str) -> Iterator[None]:
        """Watch what runs inside; ``call`` names it."""
        if self._thread is None:
            self._thread = Thread(target=self._watch, name="m1lite-watchdog", daemon=True)
            self._thread.start()
        self._call = call, time.monotonic()
        try:
            yield
        finally:
            self._call = None

    def close(self) -> None:
        """Stop watching; the thread ends."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self.deadline_seconds / 10):
            call = self._call
            if call is not None and (seconds := time.monotonic() - call[1]) > self.deadline_seconds:
                self._end(
                    f"EngineError: rank {os.environ.get('RANK', '0')}: the engine of {self.name} has been in {call[0]} "
                    f"for {seconds:.0f} s, more than `deadline_seconds` {self.deadline_seconds:g}. The process ends; "
                    "resume from the last checkpoint, with a longer deadline if the call was only slow."
                )
                return
