"""``python -m m1lite.train``: trains a team of video agents from nothing to a report.

Starts one process per device where the trainer wants several; a process that a launcher started is a rank itself.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

# Set before torch and vLLM load. Threads that spin while they wait cost 10 to 30 times next to a busy neighbour.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from m1lite.configuration import ConfigError, entry, resumed
from m1lite.launch import start_ranks, under_launcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig


def train(config: DictConfig) -> None:
    """Run all stages, in as many processes as the trainer has devices."""
    job = HydraConfig.get()
    config = resumed(config, job.overrides.task)
    if config.get("chain"):
        _train_chain(config, job.overrides.task)
    devices = config.trainer.devices
    if devices > 1 and not under_launcher():
        arguments = [*job.overrides.task, f"hydra.run.dir={job.runtime.output_dir}", "hydra.job.chdir=false"]
        code = start_ranks("m1lite.train", arguments, num_ranks=devices, on_cpu=config.trainer.accelerator == "cpu")
        if code:
            sys.exit(code)
        return
    # Heavy packages only now: a wrong command line is answered at once.
    from m1lite.build import build_stages, join_ranks
    from m1lite.console import hush_libraries
    from m1lite.data.readers.jsonl import DataError
    from m1lite.ledger import write_whole
    from m1lite.modules.ranks import this_rank
    from m1lite.video.reader import VideoError

    hush_libraries()
    join_ranks(config.trainer.accelerator)
    directory = Path(config.output_dir)
    if this_rank() == 0:
        write_whole(directory / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    go_on = f"Continue with: python -m m1lite.train resume={directory}"
    try:
        build_stages(config).run()
    except KeyboardInterrupt:
        _stop(f"Interrupted. {go_on}", code=128 + signal.SIGINT)
    except SystemExit as ended:
        if ended.code == 128 + signal.SIGTERM:
            _stop(f"Stopped by SIGTERM. {go_on}", code=ended.code)
        raise
    except (ConfigError, DataError, VideoError) as error:
        _stop(str(error), code=2)


def _train_chain(config: DictConfig, overrides: Sequence[str]) -> NoReturn:
    """Run the trainings that ``chain`` names, each in processes of its own."""
    from m1lite.chain import run_chain
    from m1lite.ledger import write_whole

    if under_launcher():
        _stop("`chain` starts its runs itself; call it without a launcher and set `trainer.devices=...`.", code=2)
    directory = Path(config.output_dir)
    write_whole(directory / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    try:
        sys.exit(run_chain(list(config.chain), overrides, directory))
    except ConfigError as error:
        _stop(str(error), code=2)


def _stop(message: str, *, code: int) -> NoReturn:
    """End this process; of several ranks the first one says why."""
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr, flush=True)
    sys.exit(code)


main = entry(train)

if __name__ == "__main__":
    main()
