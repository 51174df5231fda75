"""Starting one module as several ranks on this machine, through torch's elastic launcher.

A process that already runs under a launcher (torchrun, SLURM) is a rank itself and starts nothing. Ranks print their
own errors; here is only said which rank ended first. Every rank has a session of its own: one Ctrl-C reaches each once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

CPU_DEFAULTS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""One core per rank, and threads that sleep while they wait: spinning next to a busy neighbour costs 10 to 30 times."""


def under_launcher(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether this process is already one rank that torchrun or SLURM started.

    Example:
        >>> under_launcher({"LOCAL_RANK": "0"}), under_launcher({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"})
        (True, False)
    """
    environ = os.environ if environ is None else environ
    if "LOCAL_RANK" in environ or "TORCHELASTIC_RUN_ID" in environ:
        return True
    # A job of one task, such as an interactive shell on a cluster, carries SLURM's variables too and is nobody's rank.
    return "SLURM_PROCID" in environ and int(environ.get("SLURM_NTASKS", "1")) > 1


def start_ranks(module: str, arguments: Sequence[str], *, num_ranks: int, on_cpu: bool = True) -> int:
    """Run ``python -m module *arguments`` as ``num_ranks`` ranks and wait for all of them.

    Args:
        module: dotted name of the module to run, for example ``"m1lite.train"``.
        arguments: its command line, the same for every rank; give every rank the same output folder.
        num_ranks: processes to start, at least 1.
        on_cpu: set ``CPU_DEFAULTS`` for the ranks, except where the user has set a variable.

    Returns:
        The exit code to leave with: 0, that of the first failed rank (128 + n after signal n), or 130 after Ctrl-C.

    Raises:
        ValueError: if ``num_ranks`` is below 1.
        RuntimeError: if this process is itself a rank.
    """
    if num_ranks < 1:
        raise ValueError(f"`num_ranks` is {num_ranks}; it must be at least 1.")
    if under_launcher():
        raise RuntimeError("This process is already a rank of a launcher; it must not start ranks of its own.")
    # Imported here: a process that stays alone never pays for the launcher.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    launcher = parse_args(["--standalone", f"--nproc-per-node={num_ranks}", "-m", module, *arguments])
    with _environment(CPU_DEFAULTS if on_cpu else {}), _quiet():
        try:
            run(launcher)
        except ChildFailedError as failed:
            return _report(failed, num_ranks)
        except SignalException as stopped:
            return 128 + stopped.sigval
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
    return 0


def _report(failed: ChildFailedError, num_ranks: int) -> int:
    """Say in one line which rank ended first and return its exit code."""
    rank, failure = failed.get_first_failure()
    code = failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    if code != 128 + signal.SIGINT:
        how = f"exit code {code}" if failure.exitcode >= 0 else f"signal {signal.Signals(-failure.exitcode).name}"
        rest = "; the others were stopped" if num_ranks > 1 else ""
        print(f"Rank {rank} of {num_ranks} ended with {how}{rest}. Its own message stands above.", file=sys.stderr)
    return code


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that are not set yet, for the time of the block."""
    added = [key for key in defaults if key not in os.environ]
    os.environ.update({key: defaults[key] for key in added})
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the launcher's own report, which repeats every rank's traceback."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
