"""Tokens per second of an update on rows packed end to end, against padded rows; and of a forward shared by agents.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE pytest benchmarks/bench_packing.py

Lengths are drawn evenly from a range of 1 to 8. The layouts hold the same rows at one budget of tokens per pass and
take turns in one process of one thread; figures are ratios of the medians of tokens per second of processor time (a
shared machine's wall time says little), forward and backward, padding not counted:

- ``in_order``: padded, rows as they come;
- ``sorted``: padded, rows of like length together, as the update does without packing;
- ``packed``: end to end, attention row by row;
- ``masked``: end to end, attention over the whole sequence under a block-diagonal mask; also in sequences of 1,024.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from m1lite.modules.bases import Base
from m1lite.modules.packing import plan_packs
from m1lite.modules.rows import micro_batches, needed_lengths, take_rows
from m1lite.modules.team import Team
from m1lite.modules.tiny import tiny_base
from m1lite.records import TokenBatch
from m1lite.rl.logprobs import hidden_logprobs

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
LONGEST = 480
"""Tokens of the longest row; the shortest has an eighth."""
NUM_ROWS = {"tiny": 48, "larger": 24}
BUDGET = 4096
AGENTS = ("ada", "bea")


def make_team(size: str, *, packing: bool, attention: str | None = None) -> Team:
    """Make two agents on one base: of width 128 with 2 layers, or of width 512 with 4."""
    model, tokenizer = tiny_base()
    if size == "larger":
        config = Qwen3Config(
            vocab_size=8192,
            hidden_size=512,
            intermediate_size=1536,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=64,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Qwen3ForCausalLM(config).eval()
    bases = {"base": Base(model=model, tokenizer=tokenizer, name="")}
    team = Team(bases, dict.fromkeys(AGENTS, "base"), packing=packing)
    if attention:
        model.set_attn_implementation(attention)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a fresh adapter's second matrix is zero, and so would be half of the gradients
        for agent in team.agents:
            for parameter in team.adapter_parameters(agent).values():
                parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.02)
    return team


def draw_rows(agent: str, number: int, *, seed: int = 0) -> TokenBatch:
    """Draw rows of which the last two thirds were written."""
    draw = random.Random(seed)
    lengths = torch.tensor([draw.randint(LONGEST // 8, LONGEST) for _ in range(number)])[:, None]
    generator = torch.Generator().manual_seed(seed)
    shape = (number, LONGEST)
    place = torch.arange(LONGEST)
    loss = (place < lengths) & (place >= lengths // 3)
    return TokenBatch(
        agent=agent,
        input_ids=torch.randint(6, 100, shape, generator=generator) * (place < lengths),
        attention_mask=place < lengths,
        loss_mask=loss,
        sampled_logprobs=torch.zeros(shape),
        advantages=torch.randn(shape, generator=generator) * loss,
        temperature=1.0,
        policy_version=0,
    )


def in_order(lengths: list[int], budget: int) -> list[list[int]]:
    """Put rows together as they come."""
    step = max(1, budget // max(lengths))
    return [list(range(start, min(start + step, len(lengths)))) for start in range(0, len(lengths), step)]


def learn(
    team: Team, batch: TokenBatch, plan: Callable[[list[int], int], list[list[int]]], budget: int
) -> list[Tensor]:
    """Go forward and backward over all rows; return the gradients."""
    team.zero_grad()
    lengths = needed_lengths(batch)
    for rows in plan(lengths, budget):
        part = take_rows(batch, rows, width=max(lengths[row] for row in rows))
        (team.logprobs(batch.agent, part)[0] * part.advantages).sum().backward()
    return [parameter.grad for parameter in team.adapter_parameters(batch.agent).values()]


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference over the largest value."""
    worst = max(float((ours - theirs).abs().max()) for ours, theirs in zip(found, expected, strict=True))
    return worst / max(float(value.abs().max()) for value in expected)


def medians(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Run all calls in turn and return each one's median processor seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.process_time()
            call()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


@pytest.mark.parametrize("size", list(NUM_ROWS))
@pytest.mark.timeout(0)
def test_packed_rows(benchmark, figure, size):
    """Rows end to end against padded rows: the same gradients in less time."""
    batch = draw_rows("ada", NUM_ROWS[size])
    padded, packed = make_team(size, packing=False), make_team(size, packing=True)
    masked = make_team(size, packing=True, attention="sdpa")
    layouts: dict[str, Callable[[], list[Tensor]]] = {
        "in_order": partial(learn, padded, batch, in_order, BUDGET),
        "sorted": partial(learn, padded, batch, micro_batches, BUDGET),
        "packed": partial(learn, packed, batch, plan_packs, BUDGET),
        "masked": partial(learn, masked, batch, plan_packs, BUDGET),
        "masked_1024": partial(learn, masked, batch, plan_packs, 1024),
    }
    expected = [gradient.clone() for gradient in layouts["in_order"]()]
    errors = {name: error(call(), expected) for name, call in layouts.items()}
    seconds = benchmark.pedantic(lambda: medians(layouts), rounds=1, iterations=1)
    lengths = needed_lengths(batch)
    benchmark.extra_info |= {f"{name}_tokens_per_s": sum(lengths) / value for name, value in seconds.items()}
    figure(f"packing_{size}_vs_padded", seconds["in_order"] / seconds["packed"], "ratio", ">=", 1.5)
    figure(f"packing_{size}_vs_sorted", seconds["sorted"] / seconds["packed"], "ratio", ">=", 1)
    figure(f"packing_{size}_sorted_vs_padded", seconds["in_order"] / seconds["sorted"], "ratio", ">=", 1)
    for name in ("masked", "masked_1024"):
        figure(f"packing_{size}_{name}_vs_padded", seconds["in_order"] / seconds[name], "ratio", ">=", 0)
    figure(f"packing_{size}_gradient_error", max(errors.values()), "relative", "<=", 1e-5)
    assert max(errors.values()) <= 1e-5


def separate(team: Team, batches: Mapping[str, TokenBatch], plan: Callable[..., list[list[int]]]) -> list[Tensor]:
    """Score and learn agent by agent."""
    return [gradient.clone() for batch in batches.values() for gradient in learn(team, batch, plan, BUDGET)]


def shared(team: Team, batches: Mapping[str, TokenBatch], plan: Callable[..., list[list[int]]]) -> list[Tensor]:
    """Score and learn rows of all agents in one pass, each row under its own adapter."""
    team.zero_grad()
    names = [agent for agent, batch in batches.items() for _ in batch.input_ids]
    ids, mask, advantages = (
        torch.cat([getattr(batch, field) for batch in batches.values()])
        for field in ("input_ids", "loss_mask", "advantages")
    )
    lengths = [length for batch in batches.values() for length in needed_lengths(batch)]
    model: Any = team.models["base"]
    bare = model.get_base_model()
    for rows in plan(lengths, BUDGET):
        width = max(lengths[row] for row in rows)
        part, loss = ids[rows, :width], mask[rows, :width]
        with model.base_model._enable_peft_forward_hooks(adapter_names=[names[row] for row in rows]):
            states = bare.base_model(input_ids=part[:, :-1], use_cache=False).last_hidden_state[loss[:, 1:]]
        scores, _ = hidden_logprobs(states, bare.get_output_embeddings().weight, part[loss], entropies=True)
        (scores * advantages[rows, :width][loss]).sum().backward()
    return [p.grad.clone() for agent in batches for p in team.adapter_parameters(agent).values()]


@pytest.mark.parametrize("num_rows", [4, 48])
@pytest.mark.timeout(0)
def test_agents_share_a_forward(benchmark, figure, num_rows):
    """Two agents of one base in one pass (PEFT's ``adapter_names``) against one pass each."""
    team = make_team("tiny", packing=False)
    batches = {agent: draw_rows(agent, num_rows, seed=seed) for seed, agent in enumerate(AGENTS)}
    expected = separate(team, batches, micro_batches)
    difference = error(shared(team, batches, micro_batches), expected)
    calls = {
        "separate": partial(separate, team, batches, micro_batches),
        "shared": partial(shared, team, batches, micro_batches),
    }
    seconds = benchmark.pedantic(lambda: medians(calls), rounds=1, iterations=1)
    figure(f"shared_forward_speedup_{num_rows}_rows", seconds["separate"] / seconds["shared"], "ratio", ">=", 1)
    figure(f"shared_forward_gradient_error_{num_rows}_rows", difference, "relative", "<=", 1e-6)
