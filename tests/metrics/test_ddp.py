"""The metric classes over two processes, one of them without any sample."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from m1lite.metrics import MultipleChoiceAccuracy, TemporalIoU

SPANS = torch.tensor([[0.0, 4.0], [1.0, 3.0], [2.0, 9.0]])
TRUE_SPANS = torch.tensor([[0.0, 5.0], [2.0, 3.0], [2.0, 9.0]])


def work(rank, port, folder):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        spans, choices = TemporalIoU(), MultipleChoiceAccuracy()
        if rank == 0:
            spans.update(SPANS, TRUE_SPANS)
            choices.update([1, None, 2, 0], torch.tensor([1, 1, 0, 0]))
        found = {**spans.compute(), **choices.compute()}
        text = json.dumps({name: value.item() for name, value in found.items()})
        (folder / f"{rank}.json").write_text(text)
    finally:
        dist.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Fresh processes: a forked one would inherit the group that an engine in this process may have left behind.
    commands = [[sys.executable, __file__, str(rank), str(port), str(tmp_path)] for rank in range(2)]
    ranks = [subprocess.Popen(command) for command in commands]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert results[0] == results[1]
    assert results[0]["miou"] == pytest.approx((0.8 + 0.5 + 1.0) / 3)
    assert results[0]["accuracy"] == 0.5
    assert results[0]["answered"] == 0.75


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
