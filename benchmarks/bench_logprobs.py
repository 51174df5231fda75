"""Log-probs over a large vocabulary: memory and time of the chunked route against plain ``log_softmax``.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE pytest benchmarks/bench_logprobs.py

The plain route needs 14 GB for 8,192 tokens of a vocabulary of 151,936. Its peak is measured in a process of its own;
where the machine has too little free memory, its figures are ``nan``. ``BENCH_MEMORY_TOKENS`` changes the size of that
part. The timed part is one process with both routes in turn, of ``BENCH_TOKENS`` and ``BENCH_ROUNDS``; figures are
ratios of medians.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from m1lite.rl.logprobs import hidden_logprobs

VOCABULARY = 151_936
MEMORY_TOKENS = int(os.environ.get("BENCH_MEMORY_TOKENS", "8192"))
TIMED_TOKENS = int(os.environ.get("BENCH_TOKENS", "8192"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
LIMITS = {"frozen": 1.2, "trained": 1.5}
BYTES_PER_LOGIT = 12
"""The plain route holds logits, log-probs and their gradient at once."""


@dataclass(kw_only=True)
class Problem:
    """Hidden states and what to make of them."""

    hidden: Tensor
    head: Tensor
    ids: Tensor
    upstream: Tensor

    @classmethod
    def draw(cls, tokens: int, width: int, trained: bool) -> Problem:
        """Draw states of a head whose logits have a standard deviation of 1."""
        draw = torch.Generator().manual_seed(0)
        return cls(
            hidden=torch.randn(tokens, width, generator=draw).requires_grad_(),
            head=torch.randn(VOCABULARY, width, generator=draw).mul_(width**-0.5).requires_grad_(trained),
            ids=torch.randint(0, VOCABULARY, (tokens,), generator=draw),
            upstream=torch.randn(tokens, generator=draw),
        )


def plain(problem: Problem) -> Tensor:
    """All logits at once."""
    logits = problem.hidden @ problem.head.T
    return logits.log_softmax(-1).gather(-1, problem.ids[:, None])[:, 0]


def chunked(problem: Problem) -> Tensor:
    """The package's route."""
    return hidden_logprobs(problem.hidden, problem.head, problem.ids)[0]


ROUTES: dict[str, Callable[[Problem], Tensor]] = {"plain": plain, "chunked": chunked}


def learn(route: Callable[[Problem], Tensor], problem: Problem) -> None:
    """Go forward and backward once."""
    problem.hidden.grad = problem.head.grad = None
    (route(problem) * problem.upstream).sum().backward()


def free_gb() -> float:
    """Read how much memory a new process could take."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(text.split()[1]) for text in lines if text.startswith("MemAvailable")) / 2**20


def enough_memory(tokens: int) -> bool:
    """Say whether the plain route fits, with some room for others."""
    return free_gb() > tokens * VOCABULARY * BYTES_PER_LOGIT / 2**30 + 2


def status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(text.split()[1]) for text in lines if text.startswith(name))


def peak_mb(route: str, width: int, trained: bool) -> float:
    """Measure a route's peak above its inputs in a process of its own."""
    if route == "plain" and not enough_memory(MEMORY_TOKENS):
        return math.nan
    command = [sys.executable, __file__, route, str(width), str(int(trained))]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root}, timeout=1800
    )
    return float(done.stdout)


@pytest.mark.parametrize("head", list(LIMITS))
@pytest.mark.timeout(0)
def test_peak_memory(benchmark, figure, head):
    """At a width of 128 the peak above the inputs is at most an eighth of the plain route's."""
    peaks = benchmark.pedantic(
        lambda: {route: peak_mb(route, 128, head == "trained") for route in ROUTES}, rounds=1, iterations=1
    )
    figure(f"logprobs_{head}_peak_h128", peaks["chunked"], "MB", "<=", 13_900 / 8)
    figure(f"logprobs_{head}_plain_peak_h128", peaks["plain"], "MB", ">=", 0)
    figure(f"logprobs_{head}_peak_ratio_h128", peaks["chunked"] / peaks["plain"], "ratio", "<=", 1 / 8)
    assert not peaks["chunked"] > peaks["plain"] / 8


@pytest.mark.parametrize("width", [128, 1024])
@pytest.mark.parametrize("head", list(LIMITS))
@pytest.mark.timeout(0)
def test_time(benchmark, figure, head, width):
    """Forward and backward on two threads, both routes in turn in one process."""
    names = [f"logprobs_{head}_{clock}_ratio_h{width}" for clock in ("time", "cpu")]
    if not enough_memory(TIMED_TOKENS):
        for name in names:
            figure(name, math.nan, "ratio", "<=", LIMITS[head])
        pytest.skip(f"{free_gb():.0f} GB are free; the plain route of {TIMED_TOKENS} tokens needs more.")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    problem = Problem.draw(TIMED_TOKENS, width, head == "trained")
    clocks = {"time": time.perf_counter, "cpu": time.process_time}
    seconds: dict[tuple[str, str], list[float]] = {(route, clock): [] for route in ROUTES for clock in clocks}

    def rounds() -> None:
        for _ in range(ROUNDS):
            for route, call in ROUTES.items():
                starts = {clock: read() for clock, read in clocks.items()}
                learn(call, problem)
                for clock, read in clocks.items():
                    seconds[route, clock].append(read() - starts[clock])

    benchmark.pedantic(rounds, rounds=1, iterations=1)
    torch.set_num_threads(before)
    for name, clock in zip(names, clocks, strict=True):
        medians = {route: statistics.median(seconds[route, clock]) for route in ROUTES}
        benchmark.extra_info |= {f"{route}_{clock}_s": value for route, value in medians.items()}
        figure(name, medians["chunked"] / medians["plain"], "ratio", "<=", LIMITS[head])


@pytest.mark.parametrize("width", [128, 1024])
@pytest.mark.parametrize("head", list(LIMITS))
def test_gradients_are_equal(benchmark, figure, head, width):
    """Gradients of 512 tokens, over the largest of the plain route's."""
    problem = Problem.draw(512, width, head == "trained")
    found = {}
    for route, call in ROUTES.items():
        learn(call, problem)
        found[route] = [value.grad.clone() for value in (problem.hidden, problem.head) if value.grad is not None]
    error = max(
        float((ours - theirs).abs().max() / theirs.abs().max())
        for ours, theirs in zip(found["chunked"], found["plain"], strict=True)
    )
    benchmark.pedantic(lambda: learn(chunked, problem), rounds=1, iterations=1)
    figure(f"logprobs_{head}_gradient_error_h{width}", error, "relative", "<=", 1e-5)
    assert error <= 1e-5


def measure(route: str, width: int, trained: bool) -> float:
    """Return this process's peak above its inputs, in MB (10^6 bytes)."""
    torch.set_num_threads(2)
    problem = Problem.draw(MEMORY_TOKENS, width, trained)
    small = Problem.draw(16, 8, trained)
    learn(ROUTES[route], small)  # libraries load what they need
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts from here
    before = status_kb("VmRSS")
    learn(ROUTES[route], problem)
    return (status_kb("VmHWM") - before) * 1024 / 1e6


if __name__ == "__main__":
    print(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"))
