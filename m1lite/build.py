"""From a composed configuration to the objects of a run. The only place that knows the configuration's layout.

Objects take plain arguments; nothing below this file sees the configuration.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from m1lite.assembly import Member, PolicyWeights, make_engines
from m1lite.callbacks.ahead import AheadRolloutCallback
from m1lite.callbacks.rollout import RolloutCallback
from m1lite.collaboration.loop import run
from m1lite.configuration import ConfigError, conf_dir, run_config
from m1lite.console import say
from m1lite.data.drawn import DrawnScenes
from m1lite.engines.model_classes import sees
from m1lite.engines.supervised import Supervised
from m1lite.evaluation import Evaluator
from m1lite.modules.adapters import read_adapter
from m1lite.modules.bases import load_base
from m1lite.modules.ranks import this_rank
from m1lite.modules.team import Team
from m1lite.rewards.scoring import score_answers
from m1lite.stages import EvaluationPlan, Learning, Party, Stages, cpu_seconds
from m1lite.toolbox.base import Toolbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from m1lite.data.datamodule import SampleDataModule
    from m1lite.engines.supervised import MakeEngine
    from m1lite.modules.bases import Base
    from m1lite.modules.marl import MarlModule
    from m1lite.records import Sample


_LEARNING = ("advantage", "credit", "objective")
"""Parts of ``rl`` that have a place of their own; the objective is the module's."""


def join_ranks(accelerator: str) -> None:
    """Create the process group of a launcher's ranks, before any engine is built; alone, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo" if accelerator == "cpu" else "cpu:gloo,cuda:nccl")


def build_data(config: DictConfig) -> SampleDataModule:
    """Make the data module; the synthetic world is rendered where its videos are missing."""
    return instantiate(config.data)


def build_party(config: DictConfig, bases: Mapping[str, Base] | None = None) -> Party:
    """Make the agents, their tools and their engines.

    Args:
        config: composed.
        bases: instead of the configuration's own, such as those that a run has trained.
    """
    team = config.team
    toolbox = instantiate(config.toolbox)
    members = {
        str(name): Member(
            base=member.base, tools=list(member.tools), role=member.get("role", ""), full=member.get("full", False)
        )
        for name, member in team.agents.items()
    }
    found = {str(name): instantiate(base) for name, base in team.bases.items()} if bases is None else dict(bases)
    agents = instantiate(team.players)(members, found, toolbox)
    faults: Any = OmegaConf.select(config, "rollout.faults", default={})  # runs of before have none
    make = Supervised(make=_engine_maker(config, found, toolbox), **faults)
    engines = make_engines(members, found, make, max_context=team.max_context)
    return Party(members=members, bases=found, agents=agents, engines=engines, toolbox=toolbox)


def _engine_maker(config: DictConfig, bases: Mapping[str, Base], toolbox: Toolbox) -> MakeEngine:
    """Make what builds engines; where a base sees, they decode through the tools' cache of frames."""
    make = instantiate(config.engine)
    if not any(sees(base.model.config) for base in bases.values()):
        return make
    if "frames" not in signature(make).parameters:
        raise ConfigError(f"`engine` {config.engine['_target_']} shows no frames; use engine=vllm or engine=hf.")
    return partial(make, frames=toolbox.frames)


def load_party(run: str | Path, *, engine: DictConfig | None = None) -> tuple[DictConfig, Party]:
    """Make the team that a run has trained, ready to play.

    Args:
        run: the run's folder.
        engine: instead of the run's own engine; a run with vLLM falls back on transformers where vLLM is missing.

    Returns:
        The run's configuration with the engine in use, and the team.

    Raises:
        ConfigError: if the folder holds no run, or one without trained adapters.
    """
    config = run_config(run)
    folder = Path(run).resolve()
    missing = [name for name in config.team.agents if not (folder / "adapters" / str(name)).is_dir()]
    if missing:
        remedy = f"finish it with `python -m m1lite.train resume={run}`"
        raise ConfigError(f"The run {run} has no trained adapter of {', '.join(map(str, missing))}; {remedy}.")
    config.engine = _usable(config.engine) if engine is None else engine
    bases = {}
    for name, base in config.team.bases.items():  # tokenizers and names: the engines load the weights themselves
        stored = folder / "bases" / str(name)
        trained = (stored / "config.json").is_file()
        bases[str(name)] = load_base(str(stored), weights=False) if trained else instantiate(base, weights=False)
    party = build_party(config, bases)
    for agent in party.agents:
        tensors, adapter = read_adapter(folder / "adapters" / agent.name)
        PolicyWeights(party.engines).load_adapter(agent.name, tensors, adapter, version=1)
    return config, party


def _usable(engine: DictConfig) -> DictConfig:
    if "vllm" not in engine["_target_"] or find_spec("vllm") is not None:
        return engine
    say("vLLM is not installed; the team plays on transformers, which is slower.")
    other: Any = OmegaConf.load(conf_dir() / "engine" / "hf.yaml")
    other.dtype = engine.get("dtype", other.dtype)
    return other


def build_evaluator(config: DictConfig, party: Party, *, batch_size: int = 64) -> Evaluator:
    """Make what plays a team outside of a training, with the run's rules of collaboration."""
    rules = config.collaboration
    return Evaluator(
        sampler=party.engines,
        tools=party.toolbox,
        score=score_answers,
        aggregate=instantiate(rules.aggregate),
        max_rounds=rules.max_rounds,
        max_calls=rules.max_calls,
        batch_size=batch_size,
        run_team=run if config.get("inference") is None else instantiate(config.inference),
        seed=config.seed,
    )


def build_stages(config: DictConfig) -> Stages:
    """Make everything that a training needs: the world first, then agents and engines."""
    spent: dict[str, tuple[float, float]] = {}
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    plan = EvaluationPlan(**resolved["evaluation"])
    with _timed("world", plan, spent):
        data = build_data(config)
        for split in ("train", "val", "test"):
            data.split(split)  # what is broken in the data is said before engines start
    with _timed("engines", plan, spent):
        party = build_party(config)
    cold_start = None
    if config.get("sft") is not None:
        cold_start = instantiate(config.sft.cold_start)
        if "drawn_scenes" in config.sft:  # of teams that read: drills by scripts, demonstrations on the world's videos
            world: Any = data.source
            cold_start = cold_start(questions=world.every_question, drills=_drills(config, party.toolbox))
    return Stages(
        party,
        data,
        cold_start=cold_start,
        learning=build_learning(config),
        evaluation=plan,
        score=score_answers,
        directory=Path(config.output_dir),
        seed=config.seed,
        config=resolved,
        spent=spent,
    )


def _drills(config: DictConfig, toolbox: Toolbox) -> tuple[list[Sample], Toolbox]:
    """Make the reading drills' questions, and the same tools with scripts for eyes."""
    scenes: DrawnScenes = instantiate(config.sft.drawn_scenes)
    tools = [toolbox[name] for name in toolbox.names]
    return scenes.samples, Toolbox(tools, look=scenes.look)


@contextmanager
def _timed(name: str, plan: EvaluationPlan, spent: dict[str, tuple[float, float]]) -> Iterator[None]:
    line = say if this_rank() == 0 else lambda line: None
    line(f"[{name}] budget {plan.budget_seconds.get(name, 0):.0f} s")
    wall, cpu = time.perf_counter(), cpu_seconds()
    yield
    spent[name] = (time.perf_counter() - wall, cpu_seconds() - cpu)
    line(f"  {name} took {spent[name][0]:.0f} s")


def _rollouts(async_level: int) -> type[RolloutCallback]:
    """Choose when a step's questions are played: before its update, or during that of the step before."""
    if async_level not in (0, 1):
        raise ValueError(f"`rollout.async_level` is {async_level}; it is 0, or 1 for rollouts one step ahead.")
    return AheadRolloutCallback if async_level else RolloutCallback


def build_learning(config: DictConfig) -> Learning:
    """Make what a team learns by: rewards, comparison, credit, update and trainer."""
    adapters: Any = OmegaConf.to_container(config.team.adapters, resolve=True)
    full = [str(name) for name, member in config.team.agents.items() if member.get("full", False)]

    def make_module(team: Team) -> MarlModule:
        return instantiate(config.marl)(team)

    def make_logger(directory: Path) -> Any:
        return instantiate(config.logger) if config.get("logger") is not None else False

    return Learning(
        make_team=partial(Team, full=full, seed=config.seed, **adapters),
        make_module=make_module,
        make_trainer=instantiate(config.trainer, _convert_="all"),
        make_callbacks=lambda directory: list(instantiate(config.callbacks).values()),
        make_logger=make_logger,
        reward=instantiate(config.rewards),
        advantage=instantiate(config.rl.advantage),
        credit=instantiate(config.rl.credit),
        rollouts=_rollouts(config.rollout.async_level),
        trace=None if config.rollout.trace is None else Path(config.rollout.trace),
        rules={str(name): instantiate(node) for name, node in config.rl.items() if name not in _LEARNING},
        # One by one: in a mapping, Hydra would turn a dataclass such as the topology into a configuration again.
        play={
            str(name): instantiate(value) if isinstance(value, DictConfig) else value
            for name, value in config.collaboration.items()
        },
    )
