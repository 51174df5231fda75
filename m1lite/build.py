"""From a composed configuration to the objects of a run. The only place that knows the configuration's layout.

Objects take plain arguments; nothing below this file sees the configuration.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from m1lite.assembly import Member, make_agents, make_engines
from m1lite.modules.team import Team
from m1lite.rewards.scoring import score_answers
from m1lite.stages import EvaluationPlan, Learning, Party, Stages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from m1lite.data.datamodule import SampleDataModule
    from m1lite.modules.bases import Base
    from m1lite.modules.marl import MarlModule


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
        str(name): Member(base=member.base, tools=list(member.tools), role=member.get("role", ""))
        for name, member in team.agents.items()
    }
    found = {str(name): instantiate(base) for name, base in team.bases.items()} if bases is None else dict(bases)
    agents = make_agents(
        members,
        found,
        toolbox,
        spelling=instantiate(team.spelling),
        sampling=instantiate(team.sampling),
        max_context=team.max_context,
    )
    engines = make_engines(members, found, instantiate(config.engine), max_context=team.max_context)
    return Party(members=members, bases=found, agents=agents, engines=engines, toolbox=toolbox)


def build_stages(config: DictConfig) -> Stages:
    """Make everything that a training needs."""
    directory = Path(config.output_dir)
    data = build_data(config)
    cold_start = None
    if config.get("sft") is not None:
        cold_start = instantiate(config.sft)(questions=data.source.every_question)
    return Stages(
        build_party(config),
        data,
        cold_start=cold_start,
        learning=_learning(config),
        evaluation=EvaluationPlan(**OmegaConf.to_container(config.evaluation, resolve=True)),
        score=score_answers,
        directory=directory,
        seed=config.seed,
        config=OmegaConf.to_container(config, resolve=True),
    )


def _learning(config: DictConfig) -> Learning:
    adapters: Any = OmegaConf.to_container(config.team.adapters, resolve=True)

    def make_module(team: Team) -> MarlModule:
        return instantiate(config.marl)(team)

    def make_logger(directory: Path) -> Any:
        return instantiate(config.logger) if config.get("logger") is not None else False

    return Learning(
        make_team=partial(Team, seed=config.seed, **adapters),
        make_module=make_module,
        make_trainer=instantiate(config.trainer, _convert_="all"),
        make_callbacks=lambda directory: list(instantiate(config.callbacks).values()),
        make_logger=make_logger,
        reward=instantiate(config.rewards),
        advantage=instantiate(config.rl.advantage),
        credit=instantiate(config.rl.credit),
        # One by one: in a mapping, Hydra would turn a dataclass such as the topology into a configuration again.
        play={
            str(name): instantiate(value) if isinstance(value, DictConfig) else value
            for name, value in config.collaboration.items()
        },
    )
