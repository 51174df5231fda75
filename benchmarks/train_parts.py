"""A run of one or more text agents without tools, small enough to be timed step by step. Used by bench_train.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import AdamW
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from m1lite.agents.agent import AgentState
from m1lite.callbacks.rollout import RolloutCallback
from m1lite.callbacks.sync import SyncCallback
from m1lite.collaboration.loop import run
from m1lite.data.datamodule import StepLoader
from m1lite.engines.base import Engine, EngineGroup, Generation, Request, Sampling
from m1lite.modules.bases import load_base
from m1lite.modules.batch import RolloutBatch
from m1lite.modules.marl import MarlModule
from m1lite.modules.objective import Objective
from m1lite.modules.team import Team
from m1lite.modules.tiny import tiny_tokenizer
from m1lite.records import Answer, Message, MessageKind, Sample, Task, Trajectory, Turn, TurnKind
from m1lite.rewards.compose import WeightedTerm, compose
from m1lite.rl.advantages import group_advantages
from m1lite.toolbox.base import DirectTools

NUM_WORDS = 2042  # and six special tokens
RANK, ALPHA, RATE, BETA = 16, 32, 1e-4, 0.04
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(kw_only=True, frozen=True)
class Setting:
    """What a step is made of; the same for every library."""

    hidden_size: int = 256
    num_layers: int = 4
    questions: int = 8
    episodes: int = 8
    """G, of each question."""
    prompt_tokens: int = 64
    reply_tokens: int = 64

    @property
    def max_context(self) -> int:
        """Tokens of a prompt and its reply."""
        return self.prompt_tokens + self.reply_tokens


def write_model(directory: Path, setting: Setting) -> str:
    """Write a Qwen3 of random weights with a word-level tokenizer."""
    tokenizer = tiny_tokenizer([f"w{number}" for number in range(NUM_WORDS)])
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=setting.hidden_size,
        intermediate_size=3 * setting.hidden_size,
        num_hidden_layers=setting.num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=setting.hidden_size // 4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def write_prompts(count: int, setting: Setting, *, seed: int = 0) -> list[str]:
    """Draw prompts of words."""
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.randint(NUM_WORDS, (count, setting.prompt_tokens), generator=draw).tolist()
    return [" ".join(f"w{number}" for number in row) for row in numbers]


def share_of_even(ids: Sequence[int]) -> float:
    """Reward a reply by its share of even ids."""
    return sum(token % 2 == 0 for token in ids) / max(1, len(ids))


class Writer:
    """An agent that answers a prompt in one turn, without a plan."""

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerFast, reply_tokens: int) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.sampling = Sampling(temperature=1.0, max_new_tokens=reply_tokens)

    def start(self, sample: Sample) -> AgentState:
        """Begin an episode."""
        return AgentState(sample=sample, trajectory=Trajectory(agent=self.name))

    def ask(self, state: AgentState, kind: TurnKind, round: int, own: Any, peers: Any, seed: int) -> Request | None:
        """Ask for the answer only."""
        if kind is not TurnKind.ANSWER:
            return None
        ids = self.tokenizer(state.sample.question).input_ids
        state.asked = Turn(
            kind=kind, round=round, prompt_ids=ids, reply_ids=[], logprobs=[], policy_version=0, seed=seed, text=""
        )
        return Request(policy=self.name, prompt_ids=ids, sampling=self.sampling, seed=seed)

    def read(self, state: AgentState, generation: Generation) -> Message:
        """Keep the reply."""
        turn = state.asked
        assert turn is not None
        turn.reply_ids, turn.logprobs = list(generation.token_ids), list(generation.logprobs)
        turn.policy_version = generation.policy_version
        turn.text = self.tokenizer.decode(turn.reply_ids)
        state.trajectory.turns.append(turn)
        state.trajectory.answer = Answer(text=turn.text)
        return Message(author=self.name, round=turn.round, kind=MessageKind.ANSWER, text=turn.text)


class Clock(pl.Callback):
    """Notes when steps end, in processor time (a shared machine's wall time says little), and what they took apart."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        """Processor seconds of this process, all threads."""
        self.parts: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note the time."""
        self.tick()
        self.parts.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("perf/")})

    def tick(self) -> None:
        """End a step."""
        self.ends.append(time.process_time())

    @property
    def seconds(self) -> list[float]:
        """Of every step but the first."""
        return [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)]


def train(
    model: str,
    make_engine: Callable[..., Engine],
    *,
    setting: Setting,
    agents: int = 1,
    steps: int,
    packing: bool = True,
    micro_batch_tokens: int = 16384,
) -> Clock:
    """Train a team of writers on one base; each question is played ``setting.episodes`` times by every agent.

    Args:
        model: directory of the base.
        make_engine: model and policies to the engine.
        setting: sizes; ``setting.questions`` per step.
        agents: of the team.
        steps: to train.
        packing: of the team.
        micro_batch_tokens: of the update.
    """
    base = load_base(model)
    names = [f"agent{number}" for number in range(agents)]
    engine = make_engine(model, names, max_model_len=setting.max_context)
    group = EngineGroup(dict.fromkeys(names, engine))
    team = Team(
        {"base": base},
        dict.fromkeys(names, "base"),
        rank=RANK,
        alpha=ALPHA,
        target_modules=list(LAYERS),
        packing=packing,
    )
    module = MarlModule(
        team,
        optimizer=partial(AdamW, lr=RATE, weight_decay=0.0),
        objective=Objective(beta=BETA),
        micro_batch_tokens=micro_batch_tokens,
    )
    terms: Mapping[str, WeightedTerm] = {"even": WeightedTerm(term=even)}
    play = partial(run, sampler=group, tools=DirectTools(lambda calls: []), episodes=setting.episodes)
    rollout = RolloutCallback(
        [Writer(name, base.tokenizer, setting.reply_tokens) for name in names],
        play,
        partial(compose, terms=terms),
        advantage=partial(group_advantages, scale="std"),
    )
    prompts = write_prompts(setting.questions * 4, setting)
    samples = [
        Sample(id=f"q{n}", video="none", duration=1.0, task=Task.CHOICE, question=text, answer=Answer(text="w0"))
        for n, text in enumerate(prompts)
    ]
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[rollout, SyncCallback(group), clock],
    )
    try:
        trainer.fit(module, StepLoader(samples, setting.questions, RolloutBatch, seed=0))
    finally:
        group.close()
    return clock


def even(sample: Sample, episode: Any, trajectory: Trajectory) -> float:
    """Reward term of :func:`share_of_even`."""
    return share_of_even(trajectory.turns[-1].reply_ids)
