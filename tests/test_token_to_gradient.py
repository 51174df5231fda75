"""From the engine's token ids to a gradient: the whole way against a reference that uses nothing of the package."""

import importlib.util
import statistics
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM

from m1lite.agents.agent import Agent
from m1lite.agents.chat import Chat, pack
from m1lite.agents.compact import CompactSpelling
from m1lite.agents.plan import Parsed
from m1lite.collaboration import loop
from m1lite.engines.base import BatchSampler, Sampling
from m1lite.engines.hf import HfEngine
from m1lite.modules.bases import load_base
from m1lite.modules.objective import Objective
from m1lite.modules.team import Team
from m1lite.modules.tiny import save_tiny_base
from m1lite.modules.update import AgentUpdate
from m1lite.records import Answer, Plan, Sample, Status, Task, ToolCall, ToolResult
from m1lite.rewards.compose import WeightedTerm, compose
from m1lite.rl.advantages import group_advantages, per_agent, reward_tensor
from m1lite.rl.credit import own
from m1lite.rl.losses import clipped_surrogate
from m1lite.toolbox.base import DirectTools
from m1lite.toolbox.classical import grounding_tool

AGENTS = ("ada", "bea")
ENDS = range(5, 130, 4)
"""Ids that end a reply: many, since a random model rarely draws the one."""
RANK, ALPHA, TEMPERATURE, CLIP, BETA, NUM_EPISODES = 4, 8, 0.8, 0.1, 0.04, 3


def reference(folder, adapters, moved, calls):
    """Rebuild the loss and its gradients from what the engine was asked and what it replied.

    Args:
        folder: the base model.
        adapters: agent to LoRA tensors that the replies were sampled under, by PEFT's names.
        moved: agent to the LoRA tensors that are updated.
        calls: (agent, prompt ids, reply ids, log-probs) in the order of the engine's work.

    Returns:
        Agent to (mean loss, gradient per tensor), and the largest distance of the engine's log-probs from ours.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()

    def score(ids, lora):
        weights = dict(model.named_parameters())
        for name in lora:
            if name.endswith("lora_A.weight"):
                layer = name.removeprefix("base_model.model.").replace(".lora_A", "")
                change = lora[name.replace("lora_A", "lora_B")] @ lora[name]
                weights[layer] = weights[layer] + ALPHA / RANK * change
        logits = torch.func.functional_call(model, weights, (torch.tensor([ids]),)).logits[0] / TEMPERATURE
        return [None] + [logits[t - 1].log_softmax(-1)[ids[t]] for t in range(1, len(ids))]

    rows = []  # agent, its first prompt, all ids, {place: the engine's log-prob}
    for agent, prompt, reply, logprobs in calls:
        row = next((r for r in rows if r[0] == agent and r[3] and prompt[: len(r[2])] == r[2]), None)
        if row is None:
            row = [agent, prompt, [], {}]
            rows.append(row)
        row[2] = prompt + reply
        row[3].update(zip(range(len(prompt), len(row[2])), logprobs, strict=True))
    results, gap = {}, 0.0
    for agent in adapters:
        lora = {name: tensor.double().requires_grad_() for name, tensor in moved[agent].items()}
        loss, count = torch.zeros((), dtype=torch.float64), 0
        for _, first, ids, sampled in (own_rows := [row for row in rows if row[0] == agent]):
            group = [sum(r[2][t] for t in r[3]) % 7 / 7 for r in own_rows if r[1] == first]
            reward = sum(ids[t] for t in sampled) % 7 / 7
            advantage = (reward - statistics.mean(group)) / (statistics.stdev(group) + 1e-4)
            old = score(ids, {name: tensor.double() for name, tensor in adapters[agent].items()})
            new, frozen = score(ids, lora), score(ids, {})
            for t, logprob in sampled.items():
                gap = max(gap, abs(old[t].item() - logprob))
                ratio, away = (new[t] - old[t].detach()).exp(), frozen[t].detach() - new[t]
                gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
                loss, count = loss - gain + BETA * (away.exp() - away - 1), count + 1
        loss = loss / count
        results[agent] = loss.item(), dict(zip(lora, torch.autograd.grad(loss, list(lora.values())), strict=True))
    return results, gap


class Recorded:
    """Notes what an engine was asked and what it replied."""

    def __init__(self, engine):
        self.engine = engine
        self.calls = []

    def __call__(self, requests):
        replies = self.engine.generate(requests)
        for request, reply in zip(requests, replies, strict=True):
            self.calls.append((request.policy, list(request.prompt_ids), list(reply.token_ids), list(reply.logprobs)))
        return replies


class AlwaysCalls(CompactSpelling):
    """Reads a call into any plan, since a random model rarely writes one, and keeps it."""

    def parse_plan(self, text, tools):
        return Parsed(value=Plan(steps=(ToolCall(tool="grounding_tool", args={}),) * 2), status=Status.OK)

    def parse_decision(self, text, tools):
        return Parsed(value=None, status=Status.OK)


def make_engine(kind, folder):
    if kind == "hf":
        return HfEngine(folder, AGENTS, eos_token_ids=ENDS)
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    from m1lite.engines.vllm import VllmEngine

    return VllmEngine(folder, AGENTS, eos_token_ids=ENDS, max_adapters=2, max_model_len=256, kv_cache_bytes=64 << 20)


def stir(team, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for agent in AGENTS:
            for parameter in team.adapter_parameters(agent).values():
                parameter += scale * torch.randn(parameter.shape, generator=generator)


def roll_out(team, engine):
    """Let two agents answer two questions three times, with a tool's text in between."""
    recorded = Recorded(engine)
    tokenizer = next(iter(team.tokenizers.values()))
    tools = [grounding_tool]
    sampling = Sampling(temperature=TEMPERATURE, max_new_tokens=5)
    agents = [
        Agent(
            name=name,
            spelling=AlwaysCalls(tools),
            chat=Chat(tokenizer),
            tools=tools,
            sampling=sampling,
            max_context=256,
        )
        for name in AGENTS
    ]
    samples = [
        Sample(id=word, video="v.mp4", duration=47, task=Task.CHOICE, question=f"next {word}", answer=Answer(text=word))
        for word in ("red-square", "blue-circle")
    ]
    results = lambda calls: [ToolResult(text="red-square 9 15") for _ in calls]  # noqa: E731
    return loop.run(
        samples, agents, BatchSampler(recorded), DirectTools(results), episodes=NUM_EPISODES, seed=3
    ), recorded.calls


def lucky(sample, episode, trajectory):
    """A reward of the sampled ids alone."""
    return sum(token for turn in trajectory.turns for token in turn.reply_ids) % 7 / 7


def learn(team, episodes, move):
    """Take the package's way: reward, credit, advantages, rows, loss, gradient."""
    breakdowns = compose(episodes, terms={"lucky": WeightedTerm(term=lucky)})
    rewards = torch.stack([reward_tensor([row[name].total for row in breakdowns]) for name in AGENTS], dim=1)
    group = torch.tensor([0] * NUM_EPISODES + [1] * NUM_EPISODES)
    credited = own(rewards, torch.zeros(len(episodes)))
    advantages = per_agent(credited, group, partial(group_advantages, scale="std"))
    objective = Objective(partial(clipped_surrogate, clip_low=CLIP, clip_high=CLIP), beta=BETA)
    updates = {}
    for column, name in enumerate(AGENTS):
        rows = [episode.trajectories[name] for episode in episodes]
        batch = pack(rows, advantages[:, column].tolist(), pad_id=team.pad_id(name), temperature=TEMPERATURE)
        updates[name] = AgentUpdate(
            team, name, batch, objective=objective, micro_batch_tokens=150, backward=torch.Tensor.backward
        )
        updates[name].anchor()
    move()
    found = {}
    for name, update in updates.items():
        sums = update.accumulate(range(len(episodes)), anchored=True)
        gradients = {key: tensor.grad / sums["tokens"] for key, tensor in team.adapter_parameters(name).items()}
        found[name] = sums, gradients
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hf", "vllm"])
def test_token_ids_become_the_right_gradient(tmp_path, kind):
    save_tiny_base(tmp_path / "base", seed=5)
    team = Team({"tiny": load_base(str(tmp_path / "base"))}, dict.fromkeys(AGENTS, "tiny"), rank=RANK, alpha=ALPHA)
    stir(team, 0.2, seed=1)
    engine = make_engine(kind, tmp_path / "base")
    try:
        for name in AGENTS:
            engine.load_adapter(name, team.adapter_tensors(name), team.adapter_config(name), 1)
        episodes, calls = roll_out(team, engine)
    finally:
        engine.close()
    adapters = {name: team.adapter_tensors(name) for name in AGENTS}
    found = learn(team, episodes, move=lambda: stir(team, 0.05, seed=2))  # a step later: the ratio is live
    moved = {name: team.adapter_tensors(name) for name in AGENTS}
    expected, gap = reference(tmp_path / "base", adapters, moved, calls)

    assert gap < 1e-3
    assert any(part.results for episode in episodes for part in episode.trajectories.values())
    turns = [turn for episode in episodes for part in episode.trajectories.values() for turn in part.turns]
    assert len(calls) == len(turns)
    assert {Status.OK, Status.TRUNCATED} <= {
        turn.status for turn in turns
    }  # replies that end, and replies that are cut
    for name in AGENTS:
        sums, gradients = found[name]
        loss, true_gradients = expected[name]
        count = sum(len(reply) for agent, _, reply, _ in calls if agent == name)
        assert sums["tokens"].item() == count
        assert 0 < sums["clip_ratio/region_mean"].item() < count
        assert (sums["loss"] / count).item() == pytest.approx(loss, abs=1e-5)
        assert set(gradients) == set(true_gradients)
        largest = max(gradient.abs().max().item() for gradient in true_gradients.values())
        assert largest > 1e-4
        for key, gradient in gradients.items():
            torch.testing.assert_close(gradient.double(), true_gradients[key], atol=1e-4 * largest, rtol=1e-3)
