"""``python -m m1lite.evaluate``: the team of a run plays a split of the run's data; a table and ``metrics.json``."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from m1lite.configuration import ConfigError, entry, find_run

if TYPE_CHECKING:
    from omegaconf import DictConfig

SPLITS = ("train", "val", "test")


def evaluate(config: DictConfig) -> None:
    """Play one episode per question, print the table and write the figures into the run's folder."""
    from m1lite.data.readers.jsonl import DataError
    from m1lite.video.base import VideoError

    try:
        run = find_run(config.run)
        if config.split not in SPLITS:
            raise ConfigError(f"`split` is {config.split!r}; use one of {' '.join(SPLITS)}.")
        if config.temperature < 0:
            raise ConfigError(f"`temperature` is {config.temperature}; it must be at least 0, which is greedy.")
        from m1lite.build import build_data, build_evaluator, load_party
        from m1lite.configuration import run_config
        from m1lite.console import hush_libraries

        hush_libraries()
        samples = list(build_data(run_config(run)).split(config.split))
        found, party = load_party(run, engine=config.get("engine"))
        if config.get("inference") is not None:
            found.inference = config.inference
    except (ConfigError, DataError, VideoError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    from m1lite.console import progress
    from m1lite.ledger import write_whole
    from m1lite.report.metrics import compile_metrics, strict_json
    from m1lite.report.table import closing_table
    from m1lite.stages import cpu_seconds

    evaluator = build_evaluator(found, party, batch_size=config.batch_size)
    wall, cpu = time.perf_counter(), cpu_seconds()
    with progress(config.split, len(samples)) as advance:
        episodes = evaluator.play(party.agents, samples, temperature=config.temperature, on_batch=advance)
    rows = sorted(evaluator.verdicts(episodes), key=lambda row: row.sample_id)  # as a training has them
    tokens = {"read": sum(row.read_tokens for row in rows), "sampled": sum(row.sampled_tokens for row in rows)}
    metrics = {
        **compile_metrics({"marl": rows}, [], num_draws=config.num_draws),
        "seconds": {config.split: time.perf_counter() - wall},
        "cpu_seconds": {config.split: cpu_seconds() - cpu},
        "tokens": {config.split: sum(tokens.values())},
        "token_kinds": {config.split: tokens},
        "temperature": config.temperature,
    }
    file = run / f"evaluation-{config.split}" / "metrics.json"
    write_whole(file, strict_json(metrics))
    print(closing_table(metrics))
    print(
        f"{len(samples)} questions of {config.split} at temperature {config.temperature:g}; the figures are in {file}"
    )
    party.engines.close()


main = entry(evaluate, "evaluate")

if __name__ == "__main__":
    main()
