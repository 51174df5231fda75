"""Calls that do not come back, in a process of their own."""

import subprocess
import sys
import time
from threading import Event

import pytest

from m1lite.engines.watchdog import EXIT_STATUS, Watchdog

HANGS = """
import ctypes, os
from m1lite.engines.base import Request, Sampling
from m1lite.engines.scripted import ScriptedEngine
from m1lite.engines.supervised import SupervisedEngine

class Hanging(ScriptedEngine):
    def step(self, wait=0.0):
        ctypes.CDLL(None).pause()  # native code, without the interpreter's lock

    def load_adapter(self, policy, tensors, config, version):
        ctypes.CDLL(None).pause()

engine = SupervisedEngine(
    lambda: Hanging(lambda request: [1], policies=("ada",)), name="ada on tiny", deadline_seconds=0.2
)
engine.submit(Request(policy="ada", prompt_ids=[1], sampling=Sampling(), seed=0))
{call}
print("came back")
"""


@pytest.mark.parametrize(
    ("call", "named"),
    [("engine.step()", "its step 1"), ("engine.load_adapter('ada', {}, {}, 3)", "the load of version 3 of 'ada'")],
)
def test_a_call_that_never_returns_ends_the_process_with_rank_engine_and_call(call, named):
    ended = subprocess.run(
        [sys.executable, "-c", HANGS.replace("{call}", call)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"RANK": "1", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert ended.returncode == EXIT_STATUS, ended.stderr
    assert f"rank 1: the engine of ada on tiny has been in {named} for " in ended.stderr
    assert "more than `deadline_seconds` 0.2" in ended.stderr
    assert "supervised.py" in ended.stderr, "where the threads stand"
    assert "came back" not in ended.stdout


def test_calls_in_time_are_left_alone_also_when_they_last_longer_together():
    told, seen = [], Event()

    def end(message):
        told.append(message)
        seen.set()

    dog = Watchdog("ada on tiny", 0.5, end)
    for _ in range(8):
        with dog.watching("a step"):
            time.sleep(0.1)
    time.sleep(0.7)  # nothing is called
    assert told == []
    with pytest.raises(ValueError, match="refused"), dog.watching("a step"):
        raise ValueError("refused")
    time.sleep(0.7)
    assert told == []
    with dog.watching("a slow step"):
        assert seen.wait(10)
    assert "in a slow step" in told[0]


def test_a_closed_watchdog_has_no_thread():
    dog = Watchdog("ada on tiny", 0.05, pytest.fail)
    with dog.watching("a step"):
        pass
    thread = dog._thread
    dog.close()
    thread.join(10)
    assert not thread.is_alive()
