"""One rank of an update with adapters that take turns inside ``DistributedDataParallel``; test_ranks.py starts it.

This is what the team's own strategy avoids: the module is wrapped once, and an adapter is switched on where it is used.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))

from m1lite.modules.rows import take_rows
from tests.small_team import make_batch, make_team

ROWS = {"ada": ([0], [1, 2, 3, 4]), "bea": ([0, 1, 2], [3, 4])}
"""Rows of each agent on rank 0 and rank 1: both ranks have some of both, for a rank without any would wait for ever."""


class Scores(torch.nn.Module):
    """Summed weighted log-probs of an agent's tokens."""

    def __init__(self, every_adapter_trains):
        super().__init__()
        self.team = make_team({"ada": "qwen3", "bea": "qwen3"}, stir=0.05)
        if not every_adapter_trains:  # as PEFT leaves it
            self.team.models["qwen3"].set_adapter("ada")

    def forward(self, agent, batch):
        model = self.team.models["qwen3"]
        model.base_model.set_adapter(agent)
        return (self.team._score(model.get_base_model(), agent, batch)[0] * batch.advantages).sum()


def update(rank, *, every_adapter_trains):
    """Let both agents take one step on the rank's rows, and return the adapters."""
    module = Scores(every_adapter_trains)
    wrapped = DistributedDataParallel(module)
    for agent in ("ada", "bea"):
        wrapped(agent, take_rows(make_batch(agent, rows=5), ROWS[agent][rank], width=24)).backward()
        for parameter in module.team.adapter_parameters(agent).values():
            parameter.data -= 0.1 * parameter.grad
    return {agent: module.team.adapter_tensors(agent) for agent in ("ada", "bea")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = {"tensors": update(rank, every_adapter_trains=False), "error": ""}
    try:
        update(rank, every_adapter_trains=True)
    except RuntimeError as error:
        found["error"] = str(error)
    torch.save(found, Path(sys.argv[1]) / f"naive{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
