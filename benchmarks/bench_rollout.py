"""What the collaboration loop costs beside the engine: tokens per second of rollouts, and where the rest goes.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE pytest benchmarks/bench_rollout.py

A tiny Qwen3 in vLLM on one thread, in process. Four agents with a LoRA adapter each play 32 episodes of 4 turns (a
plan, two communications, an answer) of up to 64 tokens; calls are read into their replies, whatever these say. Pairs
take turns in one process; figures are medians of the pairs' ratios:

- ``raw``: the same prompts, lengths, seeds and adapters in ``LLM.generate``, one batch for each turn number, against a
  rollout whose tools are free: all results are in the toolbox's cache;
- ``slow tools``: every call takes 50 ms, and none is in the cache;
- ``base``: the same engine and requests without adapters;
- ``own``: processor time of the loop's thread outside of vLLM's ``step`` and ``add_request``, with and without the
  tokenizer's part;
- ``records``: resident memory over 200 rollouts whose episodes are dropped, and the size of 1,000 that are kept.

Only the row with slow tools is in wall time; the others are in processor time, which a shared machine disturbs less.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

from m1lite.agents.agent import Agent
from m1lite.agents.chat import Chat
from m1lite.agents.compact import CompactSpelling
from m1lite.agents.plan import Parsed
from m1lite.collaboration.loop import run
from m1lite.engines.base import EngineGroup, Generation, Request, Sampling
from m1lite.modules.tiny import save_tiny_base, tiny_base
from m1lite.records import Answer, Episode, Plan, Sample, Span, Status, Task, ToolCall, ToolResult
from m1lite.toolbox.base import Toolbox, ToolContext, tool

pytest.importorskip("vllm")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
AGENTS = ("ada", "bea", "cyd", "dov")
NUM_EPISODES = 32
LONGEST = 64
"""Tokens of a reply."""
ENDS = (7, 40, 80)
"""Ids that end a reply: of 135, so that a random model writes about 40 tokens."""
SLOW_SECONDS = 0.05


class Calls(CompactSpelling):
    """Reads two calls into any plan, with arguments of their own, and keeps it."""

    def parse_plan(self, text: str, tools: Sequence[Any]) -> Parsed[Plan]:
        """Read two calls."""
        numbers = [2 * crc32(text.encode()), 2 * crc32(text.encode()) + 1]
        return Parsed(
            value=Plan(steps=tuple(ToolCall(tool="look", args={"number": n}) for n in numbers)), status=Status.OK
        )

    def parse_decision(self, text: str, tools: Sequence[Any]) -> Parsed[Plan | None]:
        """Read keep."""
        return Parsed(value=None, status=Status.OK)


def look(context: ToolContext, *, number: int) -> ToolResult:
    """Look.

    Args:
        context: the video.
        number: anything.
    """
    return ToolResult(text="red-square 9 15")


def look_slowly(context: ToolContext, *, number: int) -> ToolResult:
    """Look.

    Args:
        context: the video.
        number: anything.
    """
    time.sleep(SLOW_SECONDS)
    return ToolResult(text="red-square 9 15")


def toolbox(seconds: float, *, workers: int = NUM_EPISODES * len(AGENTS)) -> Toolbox:
    """Make a toolbox of one tool; its cache is empty."""
    one = replace(tool(look_slowly if seconds else look), name="look")
    return Toolbox([one], look=lambda video, times: [[] for _ in times], workers=workers)


class Whole(EngineGroup):
    """Takes replies that were cut for whole ones, so that a random model's episodes all have the same turns."""

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Go on; the reason for an end is always that it ended."""
        return [(ticket, replace(reply, finish_reason="stop")) for ticket, reply in super().step(wait)]


class Bench:
    """One engine, and the team on it."""

    def __init__(self, folder: Path) -> None:
        from m1lite.engines.vllm import VllmEngine

        save_tiny_base(folder, seed=1)
        model, tokenizer = tiny_base(seed=1)
        self.engine = VllmEngine(folder, AGENTS, eos_token_ids=ENDS, max_model_len=1024, kv_cache_bytes=512 << 20)
        self.group = Whole(dict.fromkeys(AGENTS, self.engine))
        self.adapters = {name: make_adapter(model, seed) for seed, name in enumerate(AGENTS)}
        for name, (tensors, config) in self.adapters.items():
            self.engine.load_adapter(name, tensors, config, 1)
        example = tool(look)
        self.agents = [
            Agent(
                name=name,
                spelling=Calls([example]),
                chat=Chat(tokenizer),
                tools=[example],
                sampling=Sampling(max_new_tokens=LONGEST),
            )
            for name in AGENTS
        ]

    def play(self, tools: Toolbox, *, seed: int, episodes: int = NUM_EPISODES) -> list[Episode]:
        """Roll out one question; prefixes of earlier rollouts are forgotten."""
        self.engine._llm.reset_prefix_cache()
        truth = Answer(spans=(Span(start=9, end=15),))
        sample = Sample(
            id=f"q{seed}", video="v", duration=47, task=Task.GROUNDING, question="when red-square", answer=truth
        )
        return run([sample], self.agents, self.group, tools, episodes=episodes, seed=seed)

    def raw(self, turns: Sequence[Sequence[tuple[Request, int]]]) -> list[list[int]]:
        """Draw the same replies with ``LLM.generate``, one batch per turn number."""
        from vllm.inputs import tokens_input

        llm = self.engine._llm
        llm.reset_prefix_cache()
        drawn: list[list[int]] = []
        for batch in turns:
            params = []
            for request, length in batch:
                one = self.engine._params(request)
                one.max_tokens = length
                params.append(one)
            outputs = llm.generate(
                [tokens_input(list(request.prompt_ids)) for request, _ in batch],
                params,
                lora_request=[self.engine._adapters.get(request.policy) for request, _ in batch],
                use_tqdm=False,
            )
            drawn += [list(output.outputs[0].token_ids) for output in outputs]
        return drawn


def turns_of(episodes: Sequence[Episode], sampling: Sampling) -> list[list[tuple[Request, int]]]:
    """Give what was asked and how long the replies were by turn number, agents as neighbours."""
    batches: list[list[tuple[Request, int]]] = []
    for name in AGENTS:
        for episode in episodes:
            context: list[int] = []
            for number, turn in enumerate(episode.trajectories[name].turns):
                context += turn.prompt_ids
                request = Request(policy=name, prompt_ids=context.copy(), sampling=sampling, seed=turn.seed)
                context += turn.reply_ids
                if number == len(batches):
                    batches.append([])
                batches[number].append((request, len(turn.reply_ids)))
    return batches


def make_adapter(model: torch.nn.Module, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Make a random adapter of rank 16 on all linear layers, small beside the base."""
    import copy

    peft = get_peft_model(copy.deepcopy(model), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.01, generator=generator)
    return get_peft_model_state_dict(peft), peft.peft_config["default"].to_dict()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench") / "base")
    bench.play(toolbox(0.0), seed=0)
    yield bench
    bench.engine.close()


def sampled(episodes: Sequence[Episode]) -> int:
    """Count sampled tokens."""
    return sum(len(t.reply_ids) for episode in episodes for part in episode.trajectories.values() for t in part.turns)


def timed(clock: Callable[[], float], work: Callable[[], Any]) -> tuple[float, Any]:
    """Give the seconds of a call and what it returned."""
    gc.collect()
    begun = clock()
    found = work()
    return clock() - begun, found


def clocks() -> tuple[float, float]:
    """Read processor time and wall time."""
    return time.process_time(), time.perf_counter()


def test_rollout_against_raw_generation(bench: Bench, figure: Callable[..., None]) -> None:
    known = toolbox(0.0)
    episodes = bench.play(known, seed=1)
    turns = turns_of(episodes, bench.agents[0].sampling)
    replies = sorted(t.reply_ids for e in episodes for part in e.trajectories.values() for t in part.turns)
    assert [len(batch) for batch in turns] == [NUM_EPISODES * len(AGENTS)] * 4
    assert sorted(bench.raw(turns)) == replies
    ratios = []
    for number in range(2 * ROUNDS):
        spent = {}
        for rolled in (True, False) if number % 2 else (False, True):  # whoever is first has no advantage
            gc.collect()
            before = clocks()
            found = bench.play(known, seed=1) if rolled else bench.raw(turns)
            spent[rolled] = [after - begun for after, begun in zip(clocks(), before, strict=True)]
            assert len(found) in (NUM_EPISODES, len(replies))
        ratios.append([bare / own for bare, own in zip(spent[False], spent[True], strict=True)])
        print("rollout {:.2f} cpu s, {:.2f} s; raw {:.2f} cpu s, {:.2f} s".format(*spent[True], *spent[False]))
    processor, wall = (statistics.median(column) for column in zip(*ratios, strict=True))
    figure("rollout_vs_raw_vllm", processor, "ratio", ">=", 0.90)
    figure("rollout_vs_raw_vllm_wall", wall, "ratio", ">=", 0.90)


def test_tools_run_beside_generation(bench: Bench, figure: Callable[..., None]) -> None:
    ratios = []
    known = toolbox(0.0)
    bench.play(known, seed=1)
    for number in range(2 * ROUNDS):
        spent, found = {}, {}
        for slow in (True, False) if number % 2 else (False, True):
            tools = toolbox(SLOW_SECONDS) if slow else known
            spent[slow], found[slow] = timed(time.perf_counter, partial(bench.play, tools, seed=1))
        assert sampled(found[True]) == sampled(found[False])
        ratios.append(spent[False] / spent[True])
        print(f"tools free {spent[False]:.2f} s, of 50 ms {spent[True]:.2f} s")
    figure("rollout_slow_tools_vs_free", statistics.median(ratios), "ratio", ">=", 0.90)


def test_adapters_against_the_base(bench: Bench, figure: Callable[..., None]) -> None:
    generator = torch.Generator().manual_seed(0)
    requests = [
        Request(
            policy=AGENTS[row % 4],
            prompt_ids=torch.randint(6, 130, (61 - row % 7,), generator=generator).tolist(),
            sampling=Sampling(max_new_tokens=LONGEST),
            seed=row,
        )
        for row in range(128)
    ]
    ratios = []
    for _ in range(ROUNDS):
        speeds = []
        for plain in (False, True):
            adapters = bench.engine._adapters
            if plain:
                bench.engine._adapters = {}
            bench.engine._llm.reset_prefix_cache()
            seconds, replies = timed(time.process_time, lambda: bench.engine.generate(requests))
            bench.engine._adapters = adapters
            speeds.append(sum(len(reply.token_ids) for reply in replies) / seconds)
        ratios.append(speeds[0] / speeds[1])
        print(f"4 adapters {speeds[0]:.0f} tokens/cpu s, base {speeds[1]:.0f}")
    figure("lora_vs_base", statistics.median(ratios), "ratio", ">=", 0.6)


@contextmanager
def inside(llm: Any, clock: Callable[[], float]) -> Iterator[list[float]]:
    """Collect the seconds that a thread spends in vLLM."""
    engine, spent = llm.llm_engine, [0.0]

    def watched(name: str) -> None:
        original = getattr(engine, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            begun = clock()
            try:
                return original(*args, **kwargs)
            finally:
                spent[0] += clock() - begun

        setattr(engine, name, call)

    for name in ("step", "add_request"):
        watched(name)
    try:
        yield spent
    finally:
        for name in ("step", "add_request"):
            delattr(engine, name)


class TimedTokenizer:
    """Collects the seconds that a tokenizer takes."""

    def __init__(self, tokenizer: Any, clock: Callable[[], float]) -> None:
        self._tokenizer, self._clock, self.spent = tokenizer, clock, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Encode."""
        return self._time(self._tokenizer, *args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Decode."""
        return self._time(self._tokenizer.decode, *args, **kwargs)

    def _time(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        begun = self._clock()
        try:
            return work(*args, **kwargs)
        finally:
            self.spent += self._clock() - begun


def test_own_python(bench: Bench, figure: Callable[..., None]) -> None:
    shares: list[tuple[float, float]] = []
    chats = {id(agent.chat): agent.chat for agent in bench.agents}.values()
    tokenizer = TimedTokenizer(bench.agents[0].chat.tokenizer, time.thread_time)
    plain = [chat.tokenizer for chat in chats]
    for chat in chats:
        chat.tokenizer = tokenizer
    for seed in range(1, ROUNDS + 1):
        tokenizer.spent = 0.0
        with inside(bench.engine._llm, time.thread_time) as spent:
            seconds, _ = timed(time.thread_time, partial(bench.play, toolbox(0.0), seed=seed))
        shares.append((1 - spent[0] / seconds, 1 - (spent[0] + tokenizer.spent) / seconds))
        print(f"rollout {seconds:.3f} cpu s, of it in vLLM {spent[0]:.3f}, in the tokenizer {tokenizer.spent:.3f}")
    for chat, own in zip(chats, plain, strict=True):
        chat.tokenizer = own
    outside_vllm, own_share = (statistics.median(column) for column in zip(*shares, strict=True))
    figure("outside_vllm_share", outside_vllm, "share", ">=", 0)
    figure("own_python_share", own_share, "share", "<=", 0.05)


def resident_mb() -> float:
    """Read this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def test_memory_of_records(bench: Bench, figure: Callable[..., None]) -> None:
    tools, levels = toolbox(0.0), []
    bench.play(tools, seed=1000)
    whole, short = bench.agents, Sampling(max_new_tokens=4)
    bench.agents = [replace(agent, sampling=short) for agent in whole]
    for step in range(200):
        bench.play(tools, seed=1000 + step % 10, episodes=8)
        gc.collect()
        levels.append(resident_mb())
    bench.agents = whole
    print("resident MB after rollouts 1, 50, 100, 150, 200:", *(f"{levels[at]:.1f}" for at in (0, 49, 99, 149, 199)))
    figure("growth_over_150_rollouts", levels[-1] - levels[49], "MB", "<=", 5)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = bench.play(tools, seed=2000, episodes=50)
    tokens = sampled(kept)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    del kept
    gc.collect()
    freed, left = held - tracemalloc.get_traced_memory()[0], tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(
        f"50 episodes of {tokens} tokens: {freed / 2**20:.2f} MB, of the rest of the rollout {left / 2**20:.2f} MB stay"
    )
    figure("records_per_1000_episodes", freed * 20 / 2**20, "MB", "<=", 200)
