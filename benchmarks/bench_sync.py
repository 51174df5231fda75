"""What a sync costs: its share of a step of the demo's training, its parts, and the memory of a whole model's sync.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE pytest benchmarks/bench_sync.py

The share is taken from a run of the program with the demo's team, engines and batches (``python -m m1lite.train``, four
agents on two bases, vLLM, two ranks) after a short cold start: the median over its steps of ``perf/sync_s`` over the
sum of rollout, update and sync, with the probe in it. ``BENCH_STEPS`` steps are made, the first two are left out.

The parts are medians in this process: four adapters published, one agent probed, and all four. The memory is the peak
of this process while a whole model of ``BENCH_WIDTH`` goes to its engine, over what it was before, in sizes of it.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from m1lite.callbacks.probe import Probe
from m1lite.engines.base import EngineGroup
from m1lite.engines.vllm import VllmEngine
from m1lite.modules.bases import base_tensors, stored_tiny_base
from m1lite.modules.team import Team

STEPS = int(os.environ.get("BENCH_STEPS", "14"))
WIDTH = int(os.environ.get("BENCH_WIDTH", "1024"))
ROUNDS = 15
PHASES = ("perf/rollout_s", "perf/update_s", "perf/sync_s")
MEMBERS = {"ada": "qwen3", "bea": "qwen3", "cyd": "qwen2", "dov": "qwen2"}
SETTINGS = (
    "logger=csv sft.cold_start.schedule.seconds=60 world.num_train=48 world.num_val=4 world.num_test=4 "
    f"evaluation.untrained_samples=0 evaluation.controls=false trainer.max_steps={STEPS} trainer.val_check_interval=5"
)


def steps_of(folder: Path) -> list[dict[str, float]]:
    """Read the seconds of every step from a run's tables."""
    found = []
    for table in sorted(folder.glob("csv/*/metrics.csv")):
        with table.open() as file:
            by_step: dict[str, dict[str, float]] = {}
            for row in csv.DictReader(file):
                values = {name: float(row[name]) for name in PHASES if row.get(name)}
                by_step.setdefault(row["step"], {}).update(values)
        found += [values for values in by_step.values() if len(values) == len(PHASES)]
    return found


@pytest.mark.timeout(1800)
def test_share_of_a_step(benchmark: Any, figure: Callable[..., None], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "m1lite.train", *SETTINGS.split(), f"hydra.run.dir={tmp_path / 'run'}"]
    command.append(f"cache_dir={tmp_path / 'cache'}")
    benchmark.pedantic(lambda: subprocess.run(command, cwd=tmp_path, check=True), rounds=1)
    steps = steps_of(tmp_path / "run")[2:]
    shares = [step["perf/sync_s"] / sum(step.values()) for step in steps]
    for name in PHASES:
        figure(name.removeprefix("perf/"), statistics.median(step[name] for step in steps), "s", ">=", 0)
    figure("sync_share_of_step", statistics.median(shares), "ratio", "<=", 0.02)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Team, EngineGroup]]:
    """The demo's team and engines."""
    bases: dict[str, Any] = {name: stored_tiny_base(str(tmp_path / name), name) for name in ("qwen3", "qwen2")}
    engines = {
        name: VllmEngine(
            tmp_path / name, [agent for agent, owner in MEMBERS.items() if owner == name], max_model_len=384
        )
        for name in bases
    }
    group = EngineGroup({agent: engines[owner] for agent, owner in MEMBERS.items()})
    yield Team(bases, MEMBERS, rank=16), group
    group.close()


def test_parts(benchmark: Any, figure: Callable[..., None], parts: tuple[Team, EngineGroup]) -> None:
    team, engines = parts
    probe = Probe(engines.generate)
    seconds: dict[str, list[float]] = {"publish_4": [], "probe_1": [], "probe_4": []}

    def one_round(version: int) -> None:
        for agent in team.agents:
            for parameter in team.adapter_parameters(agent).values():
                parameter.data.add_(0.01 * torch.randn(parameter.shape))
        times = [time.perf_counter()]
        for agent in team.agents:
            engines.load_adapter(agent, team.adapter_tensors(agent), team.adapter_config(agent), version)
        times.append(time.perf_counter())
        found = probe(team, [team.agents[version % 4]])
        times.append(time.perf_counter())
        found += probe(team, team.agents)
        times.append(time.perf_counter())
        assert all(row.agrees for row in found)
        for name, start, end in zip(seconds, times, times[1:], strict=False):
            seconds[name].append(end - start)

    benchmark.pedantic(lambda: [one_round(version) for version in range(ROUNDS)], rounds=1)
    for name, values in seconds.items():
        figure(f"sync_{name}", 1000 * statistics.median(values[2:]), "ms", ">=", 0)


def test_memory_of_a_whole_model(benchmark: Any, figure: Callable[..., None], tmp_path: Path) -> None:
    base = stored_tiny_base(str(tmp_path / "base"), "qwen3", hidden_size=WIDTH, num_layers=8)
    size = sum(tensor.nbytes for tensor in base.model.parameters())
    engine = VllmEngine(tmp_path / "base", ["ada"], max_adapters=0, max_model_len=128, kv_cache_bytes=16 << 20)
    try:
        engine.load_base(base_tensors(base.model), 0)  # what the first sync allocates for good
        seconds, peaks = [], []

        def sync() -> None:
            with peak_of_memory() as extra:
                started = time.perf_counter()
                engine.load_base(base_tensors(base.model), 1)
                seconds.append(time.perf_counter() - started)
            peaks.append(extra[0])

        benchmark.pedantic(sync, rounds=5)
        figure("sync_whole_seconds_per_gb", statistics.median(seconds) / size * 1e9, "s", ">=", 0)
        figure("sync_whole_extra_memory", statistics.median(peaks) / size, "ratio", "<=", 0.25)
    finally:
        engine.close()


@contextmanager
def peak_of_memory() -> Iterator[list[float]]:
    """Give a list that holds the growth of this process's resident memory at its peak, bytes, after the block."""
    extra, over, before = [0.0], threading.Event(), resident()

    def watch() -> None:
        while not over.wait(0.002):
            extra[0] = max(extra[0], resident() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield extra
    finally:
        over.set()
        thread.join()


def resident() -> float:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
