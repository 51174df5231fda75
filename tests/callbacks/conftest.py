"""A whole small run on real parts: two tiny bases, transformers engines, the loop, rewards and the trainer."""

from functools import partial

import lightning.pytorch as pl
import pytest
from torch.optim import AdamW

from m1lite.agents.agent import Agent
from m1lite.agents.chat import Chat
from m1lite.agents.compact import CompactSpelling
from m1lite.callbacks.ahead import AheadRolloutCallback
from m1lite.callbacks.rollout import RolloutCallback
from m1lite.callbacks.sync import SyncCallback
from m1lite.collaboration.loop import run
from m1lite.collaboration.topology import RandomDag, complete
from m1lite.data.datamodule import StepLoader
from m1lite.engines.base import EngineGroup, Sampling
from m1lite.engines.hf import HfEngine
from m1lite.modules.batch import RolloutBatch
from m1lite.modules.marl import MarlModule
from m1lite.modules.objective import Objective
from m1lite.records import Answer, Sample, Span, Task, ToolResult
from m1lite.rewards.compose import WeightedTerm, compose
from m1lite.rewards.terms import Format
from m1lite.rl.advantages import group_advantages
from m1lite.rl.mismatch import importance_weights
from m1lite.toolbox.base import DirectTools
from m1lite.toolbox.classical import CLASSICAL_TOOLS
from tests.small_team import MEMBERS, make_bases, make_team


def reply_length(sample, episode, trajectory):
    """A reward that random policies differ in."""
    return float(sum(len(turn.reply_ids) for turn in trajectory.turns) % 5)


def samples(count):
    asked = {"video": "none.mp4", "duration": 40.0, "task": Task.GROUNDING, "question": "when red-square"}
    return [
        Sample(id=f"q{number}", answer=Answer(spans=(Span(start=number, end=number + 5),)), **asked)
        for number in range(count)
    ]


class Campaign:
    """The parts of a run, made anew from the same seeds."""

    def __init__(self, *, learning_rate=0.02, episodes=3, validation=False, update_epochs=1, ahead=False):
        bases = make_bases()
        engines = {
            name: HfEngine(base.model, [agent for agent, owner in MEMBERS.items() if owner == name])
            for name, base in bases.items()
        }
        self.engine = EngineGroup({agent: engines[owner] for agent, owner in MEMBERS.items()})
        self.team = make_team(bases=bases)
        self.agents = [
            Agent(
                name=agent,
                spelling=CompactSpelling(CLASSICAL_TOOLS),
                chat=Chat(bases[owner].tokenizer),
                tools=CLASSICAL_TOOLS[:4],
                sampling=Sampling(temperature=1.0, max_new_tokens=5),
            )
            for agent, owner in MEMBERS.items()
        ]
        optimizer = partial(AdamW, lr=learning_rate)
        correction = partial(importance_weights, level="token", high=2.0) if ahead else None
        self.module = MarlModule(
            self.team,
            optimizer=optimizer,
            objective=Objective(beta=0.05, correction=correction),
            update_epochs=update_epochs,
            async_level=int(ahead),
        )
        self.reward = partial(
            compose,
            terms={"format": WeightedTerm(term=Format()), "length": WeightedTerm(term=reply_length, weight=0.5)},
        )
        play = partial(run, sampler=self.engine, tools=DirectTools(self.run_tools), max_rounds=1)
        self.rollout = (AheadRolloutCallback if ahead else RolloutCallback)(
            self.agents,
            partial(play, episodes=episodes, topology=RandomDag(0.5)),
            self.reward,
            advantage=partial(group_advantages, scale="std"),
            seed=7,
            validation=partial(play, episodes=1, topology=complete) if validation else None,
        )
        self.sync = SyncCallback(self.engine)
        self.loader = StepLoader(samples(6), 2, RolloutBatch, seed=3)

    @staticmethod
    def run_tools(calls):
        return [ToolResult(text="red-square 4 9") for _ in calls]

    def trainer(self, *callbacks, steps, **kwargs):
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": steps,
            "max_epochs": -1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "callbacks": [self.rollout, self.sync, *callbacks],
        }
        return pl.Trainer(**{**defaults, **kwargs})

    def fit(self, *callbacks, steps, ckpt_path=None, **kwargs):
        """Train and return the logged values and the batches of every step."""
        log = Log()
        trainer = self.trainer(*callbacks, log, steps=steps, **kwargs)
        trainer.fit(self.module, self.loader, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
        return log


class Log(pl.Callback):
    def __init__(self):
        self.steps, self.batches = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.steps.append({name: value.item() for name, value in trainer.callback_metrics.items()})
        self.batches.append(batch)


@pytest.fixture
def campaign():
    return Campaign


@pytest.fixture
def questions():
    return samples


@pytest.fixture(autouse=True)
def in_one_thread(one_thread):
    """Every test of this folder."""
