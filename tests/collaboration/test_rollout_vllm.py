"""Rollouts with the real engine: the same episodes in any order of arrival and with any size of batch."""

import random
import threading
from dataclasses import asdict, replace

import pytest

from m1lite.agents.agent import Agent
from m1lite.agents.chat import Chat
from m1lite.agents.compact import CompactSpelling
from m1lite.agents.plan import Parsed
from m1lite.collaboration.loop import run
from m1lite.collaboration.topology import RandomDag
from m1lite.engines.base import EngineGroup, Sampling
from m1lite.modules.tiny import load_tokenizer, save_tiny_base
from m1lite.records import Plan, Status, ToolCall, ToolResult
from m1lite.toolbox.base import DirectTools
from m1lite.toolbox.classical import grounding_tool
from tests.collaboration.conftest import NAMES, make_samples

pytestmark = pytest.mark.slow
ENDS = range(5, 130, 12)
"""Ids that end a reply: many, since a random model rarely draws the one."""


class AlwaysCalls(CompactSpelling):
    """Reads calls into any plan, since a random model rarely writes one: as many as it has words, modulo 4."""

    def parse_plan(self, text, tools):
        calls = (ToolCall(tool="grounding_tool", args={}),) * (len(text.split()) % 4)
        return Parsed(value=Plan(steps=calls), status=Status.OK)

    def parse_decision(self, text, tools):
        return Parsed(value=None, status=Status.OK)


class SlowTools:
    """Ends calls from other threads in an order of their own."""

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def submit(self, calls, done):
        delay = self.draw.choice([0.0, 0.002, 0.02])
        threading.Timer(delay, done, [look_up(calls)]).start() if delay else done(look_up(calls))


def look_up(calls):
    return [ToolResult(text=f"red-square {len(sample.id)} 15") for sample, _ in calls]


class Noted:
    """A sampler that counts its steps and the most replies under way."""

    def __init__(self, sampler):
        self.sampler, self.num_steps, self.most = sampler, 0, 0
        self.submit, self.abort, self.draws_together = sampler.submit, sampler.abort, sampler.draws_together

    def step(self, wait=0.0):
        self.num_steps += 1
        self.most = max(self.most, self.sampler.num_unfinished)
        return self.sampler.step(wait)

    @property
    def num_unfinished(self):
        return self.sampler.num_unfinished


def outcome(episode):
    return {**asdict(replace(episode, sample=None)), "sample": episode.sample.id}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    save_tiny_base(folder, seed=3)
    return folder


@pytest.fixture(scope="module")
def make_engine(base):
    vllm = pytest.importorskip("m1lite.engines.vllm")
    made = []

    def make(**options):
        made.append(
            vllm.VllmEngine(
                base, NAMES, eos_token_ids=ENDS, max_model_len=256, kv_cache_bytes=32 << 20, options=options
            )
        )
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def play(base):
    agents = [
        Agent(
            name=name,
            spelling=AlwaysCalls([grounding_tool]),
            chat=Chat(load_tokenizer(base)),
            tools=[grounding_tool],
            sampling=Sampling(max_new_tokens=24),
            max_context=256,
        )
        for name in NAMES
    ]

    def roll_out(sampler, tools, samples=make_samples(4)):  # noqa: B008
        return run(samples, agents, sampler, tools, episodes=2, seed=4, topology=RandomDag(0.5))

    return roll_out


def test_episodes_depend_neither_on_arrival_nor_on_the_size_of_batches(make_engine, play):
    large, small = (EngineGroup(dict.fromkeys(NAMES, make_engine(max_num_seqs=rows))) for rows in (64, 3))
    noted = Noted(large)
    episodes = play(noted, DirectTools(look_up))
    assert noted.most == 4 * 2 * 4
    turns = [turn for episode in episodes for part in episode.trajectories.values() for turn in part.turns]
    assert len({tuple(turn.reply_ids) for turn in turns}) > len(turns) / 2
    assert {len(part.calls) for e in episodes for part in e.trajectories.values()} == {0, 1, 2, 3}
    expected = [outcome(episode) for episode in episodes]
    for sampler, tools in ((large, SlowTools(1)), (small, SlowTools(2))):
        assert [outcome(episode) for episode in play(sampler, tools)] == expected
    last = play(large, DirectTools(look_up), make_samples(4)[3:])
    assert [outcome(episode) for episode in last] == expected[-2:]


def test_a_turn_reads_its_earlier_turns_from_the_prefix_cache(make_engine, play, monkeypatch):
    engine = make_engine(max_num_seqs=64)
    finished, inner = [], engine._llm.llm_engine
    step = inner.step

    def watched():
        outputs = step()
        finished.extend(output for output in outputs if output.finished)
        return outputs

    monkeypatch.setattr(inner, "step", watched)
    play(EngineGroup(dict.fromkeys(NAMES, engine)), DirectTools(look_up))
    block, past = inner.vllm_config.cache_config.block_size, {}
    assert finished
    for output in finished:
        ids, reply = tuple(output.prompt_token_ids), list(output.outputs[0].token_ids)
        # All whole blocks of what the agent has read and written before; the last written id was never computed on.
        known = max((len(row) - 1 for row in past if ids[: len(row)] == row), default=0)
        assert output.num_cached_tokens >= known // block * block
        past[(*ids, *reply)] = True
    assert sum(output.num_cached_tokens for output in finished) > 0.3 * sum(len(o.prompt_token_ids) for o in finished)
