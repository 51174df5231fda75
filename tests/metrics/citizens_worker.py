"""One of two processes that evaluate every class of citizens.py together; started by test_citizens.py."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from tests.metrics.citizens import CITIZENS

SHARES = {"one without samples": ((5, 2), ()), "both with samples": ((5,), (3, 1))}
"""Sizes of the batches of the first and of the second process."""


def batches(citizen, rank, sizes):
    """Draw the batches of one process; every process can draw those of the others."""
    generator = torch.Generator().manual_seed(7 + rank)
    return [citizen.draw(size, generator) for size in sizes]


def evaluate(citizen, rank, sizes):
    """Compute over both processes, then once more with a further sample, which the states must have survived."""
    metric = citizen.make()
    for batch in batches(citizen, rank, sizes):
        metric.update(**batch)
    first = metric.compute()
    for batch in batches(citizen, 10 + rank, (1,)):
        metric.update(**batch)
    return [{name: value.item() for name, value in found.items()} for found in (first, metric.compute())]


def main(rank, port, folder):
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2, timeout=timedelta(seconds=600))
    found = {}
    for citizen in CITIZENS:
        for share, sizes in SHARES.items():
            try:
                found[f"{citizen} {share}"] = evaluate(citizen, rank, sizes[rank])
            except Exception as error:  # the other classes are still of interest
                found[f"{citizen} {share}"] = repr(error)
            dist.barrier()
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
