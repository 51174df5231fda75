"""Do LoRA agents learn as well as full copies in equal seconds? One finished run's bases, four kinds of agents.

    python -m benchmarks.study_lora outputs/2026-01-31/12-00-00 --seconds 90 --seed 0

Every variant starts on the cold-started bases of the run, learns for the same wall seconds from the same questions with
the same seeds, in this one process, and then plays the run's validation split. LoRA agents are what ``m1lite.train``
trains, full copies what it trains where every agent has ``full: true``; rewards, credit, comparison and update are the
run's own. Nothing is tuned here: learning rates are given (``--lr``).
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

# Set before torch and vLLM load. Threads that spin while they wait cost 10 to 30 times next to a busy neighbour.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightning.pytorch as pl
from omegaconf import DictConfig, open_dict
from typing_extensions import override

from m1lite.assembly import PolicyWeights
from m1lite.build import build_data, build_learning, build_party
from m1lite.callbacks.sync import SyncCallback
from m1lite.collaboration.loop import run
from m1lite.configuration import ConfigError, run_config
from m1lite.console import hush_libraries, say
from m1lite.evaluation import Evaluator, Verdict
from m1lite.metrics.bootstrap import Estimate, bootstrap_difference, bootstrap_mean
from m1lite.modules.bases import load_base
from m1lite.modules.team import Team
from m1lite.rewards.scoring import score_answers
from m1lite.stages import Learning, Party, cpu_seconds

RANKS = {"lora8": 8, "lora16": 16, "lora32": 32, "lora128": 128}
"""LoRA variants; 128 is the full rank of every linear layer of the tiny bases."""
VARIANTS = (*RANKS, "full")
RATES = {"lora8": 2e-3, "lora16": 2e-3, "lora32": 2e-3, "lora128": 2e-3, "full.qwen3": 1e-3, "full.qwen2": 4e-4}
"""Learning rates: of a LoRA variant, and of the full copies of each base."""
TEMPERATURES = {"sampled": 1.0, "greedy": 0.0}
TARGET = -0.05
"""LoRA minus full copies, in points of the team score, may be no lower."""
HEADER = (
    *("variant", "learning rate", "steps", "trainable weights", "rollout s/step", "update s/step", "sync s/step"),
    *("wall s", "CPU s", "sampled before", "sampled after", "greedy before", "greedy after", "parse after"),
    "engine gap",
)

Played = Mapping[str, Sequence[Verdict]]
"""Verdicts on the validation split, at each of ``TEMPERATURES``."""


class Stopwatch(pl.Callback):
    """Notes what each step took, and ends a fit that has used its CPU seconds; comes after the callbacks that it times.

    Args:
        max_cpu_seconds: of the fit; None is no limit.
    """

    def __init__(self, max_cpu_seconds: float | None = None) -> None:
        self.max_cpu_seconds = max_cpu_seconds
        self.steps: dict[str, list[float]] = {"rollout": [], "update": [], "sync": []}
        self.wall = self.cpu = 0.0
        self.engine_gap = 0.0
        """Largest difference of a token's log-prob between trainer and engine: tells whether both held one policy."""

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.wall, self.cpu = -time.perf_counter(), -cpu_seconds()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        found = trainer.callback_metrics
        for name, seconds in self.steps.items():
            seconds.append(float(found[f"perf/{name}_s"]))
        gaps = [float(value) for name, value in found.items() if name.endswith("/sampling_logp_difference/max")]
        self.engine_gap = max([self.engine_gap, *gaps])
        if self.max_cpu_seconds is not None and self.cpu + cpu_seconds() >= self.max_cpu_seconds:
            trainer.should_stop = True

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.wall, self.cpu = self.wall + time.perf_counter(), self.cpu + cpu_seconds()

    def mean(self, name: str) -> float:
        """Return the seconds that a step spent on ``name``."""
        return sum(self.steps[name]) / max(1, len(self.steps[name]))


@dataclass(kw_only=True)
class Result:
    """One variant, trained and played."""

    rate: str
    weights: int
    """Trainable weights of the whole team."""
    clock: Stopwatch
    after: Played


@dataclass(kw_only=True)
class Study:
    """What all variants share.

    Args:
        folder: of the finished run.
        seconds: of training, the same for every variant: on the wall, or of the processor with ``count_cpu``.
        seed: of the order of the questions, the rollouts, the first adapters and the evaluations.
        rates: learning rates, named as in ``RATES``.
        num_questions: of the validation split that are played; None plays all.
        num_draws: of the bootstrap over videos.
        count_cpu: count CPU seconds, which neighbours on the machine disturb less.
    """

    folder: Path
    seconds: float
    seed: int = 0
    rates: Mapping[str, float] = field(default_factory=lambda: dict(RATES))
    num_questions: int | None = None
    num_draws: int = 10_000
    count_cpu: bool = False

    def __post_init__(self) -> None:
        self.config = run_config(self.folder)
        self.base_of = {str(name): str(member.base) for name, member in self.config.team.agents.items()}
        for name in set(self.base_of.values()):
            if not (self.folder / "bases" / name / "config.json").is_file():
                raise ConfigError(f"{self.folder} holds no cold-started base bases/{name}; name a run that has them.")
        data = copy.deepcopy(self.config)
        data.data.seed = self.seed
        self.data = build_data(data)
        self.samples = list(self.data.split("val"))[: self.num_questions]
        self.before: Played = {}

    def run(self, variant: str) -> Result:
        """Train and play one variant; the first one also plays the bases as they are."""
        config = configured(self.config, variant, self.rates)
        bases = {name: load_base(str(self.folder / "bases" / name)) for name in set(self.base_of.values())}
        party = build_party(config, bases)
        try:
            # Equal weights whatever the variant, so played once; the others only warm their engines up.
            self.before = self.before or self._play(party, config, self.samples)
            self._play(party, config, self.samples[:4])
            learning = build_learning(config)
            team = learning.make_team(bases, self.base_of, seed=self.seed)
            clock = self._train(party, learning, team)
            return Result(
                rate=" / ".join(f"{rate:g}" for rate in dict.fromkeys(rates_of(variant, self.base_of, self.rates))),
                weights=sum(
                    value.numel() for agent in team.agents for value in team.adapter_parameters(agent).values()
                ),
                clock=clock,
                after=self._play(party, config, self.samples),
            )
        finally:
            party.engines.close()

    def _train(self, party: Party, learning: Learning, team: Team) -> Stopwatch:
        play = partial(run, sampler=party.engines, tools=party.toolbox, **learning.play)
        clock = Stopwatch(self.seconds if self.count_cpu else None)
        trainer = learning.make_trainer(
            callbacks=[
                learning.rollout(party.agents, play, seed=self.seed, validation=None),
                SyncCallback(PolicyWeights(party.engines)),
                clock,
            ],
            devices=1,
            max_steps=-1,
            max_epochs=-1,
            max_time=None if self.count_cpu else timedelta(seconds=self.seconds),
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(learning.make_module(team), datamodule=self.data)
        return clock

    def _play(self, party: Party, config: DictConfig, samples: Sequence[Any]) -> Played:
        play = build_learning(config).play
        evaluator = Evaluator(
            sampler=party.engines,
            tools=party.toolbox,
            score=score_answers,
            **{name: play[name] for name in ("aggregate", "max_rounds", "max_calls")},
            batch_size=config.evaluation.batch_size,
            seed=self.seed,
        )
        return {
            name: evaluator.verdicts(evaluator.play(party.agents, samples, temperature=temperature))
            for name, temperature in TEMPERATURES.items()
        }

    def row(self, variant: str, result: Result) -> list[str]:
        """Write a variant's figures, in the order of ``HEADER``."""
        clock = result.clock
        replies = [share for verdict in result.after["sampled"] for share in verdict.parsed.values()]
        scores = [
            shown(score(played[name], self.num_draws))
            for name in TEMPERATURES
            for played in (self.before, result.after)
        ]
        return [
            *(variant, result.rate, str(len(clock.steps["update"])), f"{result.weights:,}"),
            *(f"{clock.mean(name):.3f}" for name in clock.steps),
            *(f"{clock.wall:.1f}", f"{clock.cpu:.1f}", *scores, f"{sum(replies) / len(replies):.3f}"),
            f"{clock.engine_gap:.1e}",
        ]


def configured(config: DictConfig, variant: str, rates: Mapping[str, float]) -> DictConfig:
    """Give the run's configuration, changed to what a variant is.

    Args:
        config: of the run.
        variant: one of ``VARIANTS``.
        rates: named as in ``RATES``.
    """
    base_of = {str(name): str(member.base) for name, member in config.team.agents.items()}
    config = copy.deepcopy(config)
    engine: dict[str, int] = {}
    if variant in RANKS:
        # The run's own ratio, so that a variant differs by its rank alone.
        scale = config.team.adapters.alpha / config.team.adapters.rank
        config.team.adapters.rank = RANKS[variant]
        config.team.adapters.alpha = round(scale * RANKS[variant])
        engine = {"max_lora_rank": RANKS[variant]}
    else:
        engine = {"max_adapters": 0}
        for member in config.team.agents.values():
            with open_dict(member):
                member.full = True
    if config.engine._target_.endswith("VllmEngine"):
        config.engine.update(engine)
    # A rate that falls would need a number of steps, and here seconds are given.
    config.marl.schedule = {"_target_": "m1lite.modules.schedules.constant", "_partial_": True}
    chosen = zip(base_of, rates_of(variant, base_of, rates), strict=True)
    config.marl.optimizer = {name: {**config.marl.optimizer, "lr": rate} for name, rate in chosen}
    return config


def rates_of(variant: str, base_of: Mapping[str, str], rates: Mapping[str, float]) -> list[float]:
    """Give every agent's learning rate.

    Raises:
        ConfigError: if one is not given.
    """
    names = [variant if variant in RANKS else f"{variant}.{base}" for base in base_of.values()]
    for name in names:
        if name not in rates:
            raise ConfigError(f"There is no learning rate for {name!r}; give one with --lr {name}=1e-3.")
    return [rates[name] for name in names]


def score(verdicts: Sequence[Verdict], num_draws: int) -> Estimate:
    """Estimate the team's score, tasks weighted equally."""
    values, videos, tasks = zip(*((row.team, row.video, row.task) for row in verdicts), strict=True)
    return bootstrap_mean(values, videos, tasks=tasks, num_draws=num_draws)


def difference(first: Sequence[Verdict], second: Sequence[Verdict], num_draws: int) -> Estimate:
    """Estimate how much better the first team did on the same questions."""
    assert [row.sample_id for row in first] == [row.sample_id for row in second]
    values, videos, tasks = zip(*((row.team, row.video, row.task) for row in first), strict=True)
    return bootstrap_difference(values, [row.team for row in second], videos, tasks=tasks, num_draws=num_draws)


def shown(estimate: Estimate) -> str:
    """Write a score with its 95 % interval."""
    return f"{estimate.mean:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def comparisons(results: Mapping[str, Result], num_draws: int) -> tuple[list[str], list[str]]:
    """Compare every LoRA variant with the full copies.

    Returns:
        Lines with intervals for people, and one line per figure for programs.
    """
    lines, figures = [], []
    for variant in RANKS:
        for name in TEMPERATURES:
            value = "nan"
            if variant in results and "full" in results:
                found = difference(results[variant].after[name], results["full"].after[name], num_draws)
                value = f"{found.mean:.4f}"
                lines.append(f"{variant} minus full, {name}: {shown(found)}")
            figures.append(f"figure {variant}_minus_full_{name} {value} score target >= {TARGET}")
    return lines, figures


def markdown(study: Study, rows: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    """Write a study as a section of a report."""
    table = [HEADER, ["---"] * len(HEADER), *rows]
    kind = "CPU seconds" if study.count_cpu else "wall seconds"
    return "\n".join(
        [
            f"## Seed {study.seed}: {study.seconds:g} {kind} of training, {len(study.samples)} validation questions",
            "",
            *("| " + " | ".join(row) + " |" for row in table),
            "",
            "Team scores (2m - 1, tasks weighted equally) with 95 % intervals over videos; sampled is temperature 1.",
            "Before training all variants are the same team, which was played once.",
            "Engine gap: largest difference of a token's log-prob between trainer and engine.",
            "",
            *(f"- {line}" for line in lines),
            "",
        ]
    )


def read_rates(pairs: Sequence[str]) -> dict[str, float]:
    """Read ``NAME=RATE`` pairs over the defaults.

    Raises:
        ConfigError: if a pair cannot be read.
    """
    rates = dict(RATES)
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            rates[name] = float(value)
        except ValueError:
            raise ConfigError(f"`--lr {pair}` cannot be read; write --lr lora8=2e-3 or --lr full.qwen3=1e-3.") from None
    return rates


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_lora", description=str(__doc__).split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run, such as outputs/2026-01-31/12-00-00")
    parser.add_argument("--seconds", type=float, default=90, help="of training for each variant")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="which seconds are equal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--lr", action="append", default=[], metavar="NAME=RATE", help=f"instead of {RATES}")
    parser.add_argument("--questions", type=int, help="validation questions to play, all by default")
    parser.add_argument("--draws", type=int, default=10_000, help="of the bootstrap")
    parser.add_argument("--output", type=Path, help="a Markdown file; the table is added at its end")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    hush_libraries()
    try:
        study = Study(
            folder=given.run,
            seconds=given.seconds,
            seed=given.seed,
            rates=read_rates(given.lr),
            num_questions=given.questions,
            num_draws=given.draws,
            count_cpu=given.clock == "cpu",
        )
        for variant in given.variants:  # a missing rate is better known now than after the other variants
            rates_of(variant, study.base_of, study.rates)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    say(" | ".join(HEADER))
    results, rows = {}, []
    for variant in given.variants:
        results[variant] = study.run(variant)
        rows.append(study.row(variant, results[variant]))
        say(" | ".join(rows[-1]))
    lines, figures = comparisons(results, study.num_draws)
    for line in [*lines, *figures]:
        say(line)
    if given.output is not None:
        new = not given.output.exists()
        given.output.parent.mkdir(parents=True, exist_ok=True)
        with given.output.open("a", encoding="utf-8") as file:
            file.write("# LoRA agents against full copies at equal seconds\n\n" if new else "\n")
            file.write(markdown(study, rows, lines))


if __name__ == "__main__":
    main()
