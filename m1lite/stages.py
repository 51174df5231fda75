"""The stages of a run, in order: world, untrained team, cold start, SFT team, MARL, trained team, controls, report.

Every rank runs all of it; what a rank does alone (its share of an evaluation, its bases) is put together at the end of
the stage. What a stage found is written at once, so that a run that is continued does not do it again.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m1lite.assembly import PolicyWeights
from m1lite.baselines import ORACLE_TOOLS, blind_result, oracle, task_means
from m1lite.callbacks.interrupt import InterruptCallback, stops_are_told_apart
from m1lite.callbacks.meters import MeterCallback
from m1lite.callbacks.probe import Probe
from m1lite.callbacks.record import RecordCallback
from m1lite.callbacks.rollout import RolloutCallback
from m1lite.callbacks.sleep import SleepCallback
from m1lite.callbacks.sync import SyncCallback
from m1lite.callbacks.tokens import TrainedTokens, counted
from m1lite.callbacks.trace import TraceCallback
from m1lite.collaboration.loop import run
from m1lite.collaboration.timeline import TimedSampler, TimedTools, Timeline
from m1lite.collaboration.topology import Topology, complete, hidden
from m1lite.console import progress, say
from m1lite.evaluation import Evaluator, OtherVideos, Verdict
from m1lite.ledger import Ledger, write_whole
from m1lite.modules.adapters import read_adapter, save_adapters
from m1lite.modules.bases import base_tensors, load_base
from m1lite.modules.ranks import barrier, gather_rows, num_ranks, this_rank
from m1lite.modules.strategy import TeamStrategy
from m1lite.records import Task
from m1lite.report.metrics import compile_metrics, strict_json
from m1lite.report.table import closing_table

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from m1lite.agents.agent import Agent
    from m1lite.assembly import Member
    from m1lite.base_training import BaseTraining
    from m1lite.callbacks.rollout import Play
    from m1lite.collaboration.scheduler import Tools
    from m1lite.data.datamodule import SampleDataModule
    from m1lite.engines.base import EngineGroup
    from m1lite.modules.bases import Base
    from m1lite.modules.marl import MarlModule
    from m1lite.modules.team import Team
    from m1lite.records import Episode, Sample
    from m1lite.rewards.compose import Breakdown
    from m1lite.toolbox.base import Toolbox


@dataclass(kw_only=True)
class Party:
    """The team and what it works with."""

    members: Mapping[str, Member]
    bases: Mapping[str, Base]
    agents: Sequence[Agent]
    engines: EngineGroup
    toolbox: Toolbox


@dataclass(kw_only=True)
class Learning:
    """How the team learns together."""

    make_team: Callable[..., Team]
    """Bases and members to the team of adapters."""
    make_module: Callable[[Team], MarlModule]
    make_trainer: Callable[..., pl.Trainer]
    """Callbacks, logger and strategy to the trainer."""
    make_callbacks: Callable[[Path], list[pl.Callback]]
    """Output folder to further callbacks, the checkpoint's among them."""
    make_logger: Callable[[Path], Any]
    reward: Callable[[Sequence[Episode]], list[dict[str, Breakdown]]]
    advantage: Callable[..., Any]
    credit: Callable[..., Any]
    play: Mapping[str, Any]
    """Arguments of ``collaboration.loop.run``: topology, episodes, limits."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of ``RolloutCallback``: what is learnt from, a penalty, a refill."""
    rollouts: type[RolloutCallback] = RolloutCallback
    """When a step's questions are played."""
    trace: Path | None = None
    """File for a trace of one step."""

    def rollout(self, agents: Sequence[Agent], play: Play, *, seed: int, validation: Play | None) -> RolloutCallback:
        """Make the callback that plays, rewards and compares as this team learns; its arguments are described there."""
        return self.rollouts(
            agents,
            play,
            self.reward,
            advantage=self.advantage,
            credit=self.credit,
            **self.rules,
            seed=seed,
            validation=validation,
        )


@dataclass(kw_only=True)
class EvaluationPlan:
    """What is measured around the training."""

    untrained_samples: int = 64
    """Test questions that the untrained team plays, 0 for none; its replies run to the limit, which takes long."""
    controls: bool = True
    """Play the trained team with peers hidden, and with another video's results."""
    more_sft: bool = False
    """Continue the cold start for as long as MARL took, as the fair alternative to it."""
    batch_size: int = 128
    """Questions that a rank plays together."""
    num_draws: int = 10_000
    """Of the bootstrap over videos."""
    budget_seconds: Mapping[str, float] = field(default_factory=dict)
    """Stage to the seconds that are planned for it; printed when the stage begins."""


class Stages:
    """Runs a training from nothing to its report.

    Args:
        party: the team and what it works with.
        data: the questions.
        cold_start: teaches random bases; None for bases that can speak.
        learning: the reinforcement learning.
        evaluation: what is measured.
        score: scores answers in [0, 1].
        directory: everything is written under it.
        seed: of the run.
        config: the resolved configuration, for the record.
        spent: seconds and CPU seconds of what was done before, by name.
    """

    def __init__(
        self,
        party: Party,
        data: SampleDataModule,
        *,
        cold_start: BaseTraining | None,
        learning: Learning,
        evaluation: EvaluationPlan,
        score: Callable[..., list[float]],
        directory: Path,
        seed: int,
        config: Mapping[str, Any],
        spent: Mapping[str, tuple[float, float]],
    ) -> None:
        self.party, self.data, self.cold_start = party, data, cold_start
        self.learning, self.plan, self.score = learning, evaluation, score
        self.directory, self.seed, self.config = directory, seed, config
        self.say = say if this_rank() == 0 else lambda line: None
        self.ledger = Ledger.read(directory / "ledger.json")
        self.ledger.spend({name: (wall, sum(gather_rows([cpu]))) for name, (wall, cpu) in spent.items()})
        self.tokens: Counter[str] = Counter()
        """What this rank has read, sampled and trained on in the current stage."""
        self.evaluator = Evaluator(
            sampler=party.engines,
            tools=party.toolbox,
            score=score,
            aggregate=learning.play["aggregate"],
            max_rounds=learning.play["max_rounds"],
            max_calls=learning.play["max_calls"],
            batch_size=evaluation.batch_size,
            seed=seed,
        )

    def run(self) -> dict[str, Any]:
        """Run all stages and return the figures of ``metrics.json``."""
        test = list(self.data.split("test"))
        if self.cold_start is not None:
            with self._stage("untrained"):
                self._evaluate("untrained", test[: self.plan.untrained_samples])
            with self._stage("cold_start"):
                self._cold_start(self.cold_start, self.directory / "bases", seconds=None)
        with self._stage("sft"):
            self._evaluate("sft", test)
            self._evaluate("sft_greedy", test, temperature=0.0)
        with self._stage("marl_training"):
            self._train()
        with self._stage("marl"):
            self._evaluate("marl", test)
            self._evaluate("marl_greedy", test, temperature=0.0)
        if self.plan.controls:
            with self._stage("controls"):
                self._controls(test)
        if self.plan.more_sft and self.cold_start is not None:
            with self._stage("more_sft"):
                self._more_sft(self.cold_start, test)
        return self._report(test)

    def _cold_start(self, cold_start: BaseTraining, directory: Path, *, seconds: float | None) -> None:
        """Train the bases, or take those that an earlier run of this folder left, and hand them to the engines."""
        party = self.party
        members = {name: member.base for name, member in party.members.items()}
        if all((directory / name / "config.json").is_file() for name in party.bases):
            bases = {name: load_base(str(directory / name)) for name in party.bases}
            for name, base in party.bases.items():
                base.model.load_state_dict(bases[name].model.state_dict())
                base.name = bases[name].name
        else:
            rows, validation = cold_start.rows(party.agents, party.toolbox)
            self.say(f"  {len(rows)} rows to learn from, {len(validation)} to validate on")
            curves = cold_start.train(
                party.bases,
                members,
                rows,
                validation,
                directory,
                seconds=seconds,
                logger=self.learning.make_logger(self.directory) if this_rank() == 0 else False,
                show_progress=this_rank() == 0,
                tokens=self.tokens,
            )
            if seconds is None:
                self.ledger.cold_start = curves
            for name, curve in curves.items():
                points = "  ".join(f"{point['seconds']:.0f} s {point['sft/val_exact']:.2f}" for point in curve)
                end = "flat" if cold_start.schedule.is_flat(curve) else "still falling"
                self.say(f"  {name}: validation rows answered wholly right: {points}; their loss is {end}")
        for name, base in party.bases.items():
            served = [party.engines.engine_of(agent) for agent, owner in members.items() if owner == name]
            for engine in {id(engine): engine for engine in served}.values():
                engine.load_base(base_tensors(base.model), version=0)

    def _train(self) -> None:
        """Train the team; where a checkpoint lies in the folder, continue from it."""
        party, learning = self.party, self.learning
        members = {name: member.base for name, member in party.members.items()}
        team = learning.make_team(party.bases, members, frames=party.toolbox.frames)
        timeline = Timeline()
        sampler, tools = TimedSampler(party.engines, timeline), TimedTools(party.toolbox, timeline)
        play = partial(counted(run, self.tokens), sampler=sampler, tools=tools)
        validation = {**learning.play, "topology": complete, "episodes": 1}
        trainer = learning.make_trainer(
            callbacks=[
                MeterCallback(party.engines, party.toolbox.frames),  # before what it measures
                *([TraceCallback(timeline, learning.trace)] if learning.trace is not None else []),
                learning.rollout(
                    party.agents,
                    partial(play, **learning.play),
                    seed=self.seed,
                    validation=partial(play, **validation),
                ),
                *([] if learning.rollouts.beside_updates else [SleepCallback(party.engines)]),
                SyncCallback(PolicyWeights(party.engines), Probe(party.engines.generate)),
                RecordCallback(self.directory),
                TrainedTokens(self.tokens),
                InterruptCallback(self.say),
                *learning.make_callbacks(self.directory),
            ],
            logger=learning.make_logger(self.directory),
            strategy=TeamStrategy() if num_ranks() > 1 else "auto",
            enable_progress_bar=this_rank() == 0,
        )
        last = self.directory / "checkpoints" / "last.ckpt"
        module = learning.make_module(team)
        with stops_are_told_apart(trainer):
            trainer.fit(
                module, datamodule=self.data, ckpt_path=str(last) if last.is_file() else None, weights_only=True
            )
        if this_rank() == 0:
            save_adapters(team, self.directory / "adapters")
        barrier()

    def _controls(self, test: Sequence[Sample]) -> None:
        val = list(self.data.split("val"))
        self._evaluate("marl_hidden_val", val, topology=hidden)
        self._evaluate("marl_hidden", test, topology=hidden)
        for name, samples in (("marl_other_video_val", val), ("marl_other_video", list(test))):
            self._evaluate(name, samples, tools=OtherVideos(samples, self.party.toolbox))

    def _more_sft(self, cold_start: BaseTraining, test: Sequence[Sample]) -> None:
        """Continue the cold start on the same kind of rows for the seconds that MARL took, and evaluate that team."""
        party = self.party
        adapters = self.directory / "adapters"
        party.bases = {name: load_base(str(self.directory / "bases" / name)) for name in party.bases}
        self._cold_start(cold_start, self.directory / "bases-more-sft", seconds=self.ledger.seconds["marl_training"])
        for agent in party.agents:  # an adapter of zeros leaves the base as it is
            if party.members[agent.name].full:
                continue
            tensors, config = read_adapter(adapters / agent.name)
            zeros = {name: tensor.zero_() for name, tensor in tensors.items()}
            party.engines.load_adapter(agent.name, zeros, config, version=0)
        self._evaluate("more_sft", test)

    def _evaluate(
        self,
        name: str,
        samples: Sequence[Sample],
        *,
        temperature: float = 1.0,
        topology: Topology = complete,
        tools: Tools | None = None,
    ) -> None:
        """Play this rank's share, or read what an earlier run of this folder found."""
        if not samples:
            return
        path = self.directory / "verdicts" / f"{name}.jsonl"
        if path.is_file():
            self.ledger.keep(name, [Verdict(**json.loads(line)) for line in path.read_text("utf-8").splitlines()])
            return
        started = time.perf_counter()
        share = samples[this_rank() :: num_ranks()]
        with progress(name, len(share), show=this_rank() == 0) as advance:
            episodes = self.evaluator.play(
                self.party.agents,
                share,
                temperature=temperature,
                topology=topology,
                tools=tools,
                on_batch=advance,
            )
        own = self.evaluator.verdicts(episodes)
        for row in own:
            self.tokens.update(read=row.read_tokens, sampled=row.sampled_tokens)
        rows = sorted(gather_rows(own), key=lambda row: row.sample_id)
        self.ledger.keep(name, rows)
        seconds = time.perf_counter() - started
        mean = sum(row.team for row in rows) / len(rows)
        parsed = sum(sum(row.parsed.values()) / len(row.parsed) for row in rows) / len(rows)
        self.say(f"  {name}: {len(rows)} questions in {seconds:.0f} s, team score {mean:+.3f}, {parsed:.1%} parse")
        if this_rank() == 0:
            write_whole(path, "".join(json.dumps(asdict(row)) + "\n" for row in rows))

    def _report(self, test: Sequence[Sample]) -> dict[str, Any]:
        """Put the figures together, write ``metrics.json`` and print the closing table."""
        train, val = self.data.split("train"), self.data.split("val")
        blind = [row for task in Task if (row := blind_result(task, train, val, test, self.score)) is not None]
        ceiling = None
        told = set(self.party.toolbox.names) >= ORACLE_TOOLS
        if told and all(sample.tags.get("source") == "world" for sample in test):
            ceiling = task_means(test, self.score(test, oracle(test, self.party.toolbox.run, seed=self.seed)))
        ledger = self.ledger
        metrics = {
            **compile_metrics(ledger.verdicts, blind, num_draws=self.plan.num_draws),
            "ceiling": ceiling,
            "seconds": ledger.seconds,
            "cpu_seconds": ledger.cpu_seconds,
            "tokens": {name: sum(kinds.values()) for name, kinds in ledger.tokens.items()},
            "token_kinds": ledger.tokens,
            "cold_start": ledger.cold_start,
            "seed": self.seed,
            "config": self.config,
        }
        if this_rank() == 0:
            write_whole(self.directory / "verdicts" / "blind.json", strict_json([asdict(row) for row in blind]))
            write_whole(self.directory / "metrics.json", strict_json(metrics))
            self.say(closing_table(metrics))
            self.say(f"Everything is in {self.directory}")
        return metrics

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        planned = self.plan.budget_seconds.get(name)
        self.say(f"[{name}]" + (f" budget {planned:.0f} s" if planned else ""))
        wall, cpu = time.perf_counter(), cpu_seconds()
        self.tokens.clear()
        try:
            yield
        except BaseException:
            # The other ranks are not asked: they may be stuck in what failed here.
            tokens = {kind: count * num_ranks() for kind, count in self.tokens.items()}
            self._spend(name, time.perf_counter() - wall, (cpu_seconds() - cpu) * num_ranks(), tokens)
            raise
        seconds, shares = time.perf_counter() - wall, gather_rows([(cpu_seconds() - cpu, self.tokens)])
        used = sum(share for share, _ in shares)
        self._spend(name, seconds, used, sum((share for _, share in shares), Counter()))
        self.say(f"  {name} took {seconds:.0f} s, {used:.0f} CPU seconds")

    def _spend(self, name: str, seconds: float, cpu: float, tokens: Mapping[str, int]) -> None:
        self.ledger.spend({name: (seconds, cpu)})
        self.ledger.count(name, tokens)
        if this_rank() == 0:
            self.ledger.write(self.directory / "ledger.json")


def cpu_seconds() -> float:
    """Return the processor time that this process and its children have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
