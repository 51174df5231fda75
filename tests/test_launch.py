"""Ranks of a small module: its environment, its exit code, its own error, and one Ctrl-C for each."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from m1lite.launch import start_ranks, under_launcher

PROGRAM = """
    import os, signal, sys, time
    from pathlib import Path

    out, mode, rank = Path(sys.argv[1]), sys.argv[2], os.environ["RANK"]
    if mode == "sum":
        import torch
        import torch.distributed as dist
        dist.init_process_group("gloo")
        total = torch.tensor(float(rank) + 1)
        dist.all_reduce(total)
        dist.destroy_process_group()
        (out / rank).write_text(f"{int(total)} {os.environ['OMP_NUM_THREADS']} {os.environ['OMP_WAIT_POLICY']}")
    elif mode == "fail":
        if rank == "1":
            print("the rank's own reason", file=sys.stderr)
            sys.exit(7)
        time.sleep(60)
    elif mode == "wait":
        count = 0
        def interrupted(*_):
            global count
            count += 1
        signal.signal(signal.SIGINT, interrupted)
        (out / f"ready{rank}").touch()
        while not count:
            time.sleep(0.05)
        time.sleep(0.5)
        (out / rank).write_text(str(count))
"""


@pytest.fixture
def program(tmp_path):
    """Give a function that starts two ranks of the program from a process of its own."""
    (tmp_path / "ranks_of_a_test.py").write_text(textwrap.dedent(PROGRAM))
    start = "import sys; from m1lite.launch import start_ranks; "
    start += "sys.exit(start_ranks('ranks_of_a_test', sys.argv[1:], num_ranks=2))"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])

    def run(*arguments: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", start, str(tmp_path), *arguments],
            env=environment | variables,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return run


def test_ranks_share_a_group_and_quiet_threads_but_keep_what_the_user_set(program, tmp_path):
    ranks = program("sum", OMP_NUM_THREADS="2")
    _, stderr = ranks.communicate(timeout=120)
    assert ranks.returncode == 0, stderr
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["3 2 PASSIVE"] * 2


def test_the_exit_code_passes_through_with_one_line_after_the_own_error_of_the_rank(program):
    ranks = program("fail")
    _, stderr = ranks.communicate(timeout=120)
    assert ranks.returncode == 7
    assert stderr.strip().splitlines() == [
        "the rank's own reason",
        "Rank 1 of 2 ended with exit code 7; the others were stopped. Its own message stands above.",
    ]


def test_ctrl_c_reaches_every_rank_once(program, tmp_path):
    ranks = program("wait")
    deadline = time.monotonic() + 120
    while not ((tmp_path / "ready0").exists() and (tmp_path / "ready1").exists()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(ranks.pid, signal.SIGINT)  # what a terminal does: the whole foreground group gets it
    _, stderr = ranks.communicate(timeout=60)
    assert ranks.returncode == 130
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["1", "1"]
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"TORCHELASTIC_RUN_ID": "none"}, True),
        ({"LOCAL_RANK": "1"}, True),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False),
    ],
)
def test_under_launcher(environ, expected):
    assert under_launcher(environ) is expected


def test_a_rank_starts_no_ranks(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(RuntimeError, match="already a rank of a launcher"):
        start_ranks("m1lite.train", [], num_ranks=2)


def test_number_of_ranks_is_checked():
    with pytest.raises(ValueError, match="`num_ranks` is 0; it must be at least 1"):
        start_ranks("m1lite.train", [], num_ranks=0)
