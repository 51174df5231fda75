"""One rank of a two-process fit; test_ranks.py starts it with the output folder, and runs `fit` for the union."""

import sys
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch.optim import AdamW

sys.path.insert(0, str(Path(__file__).parents[2]))

from m1lite.modules.batch import RolloutBatch
from m1lite.modules.marl import MarlModule
from m1lite.modules.objective import Objective
from m1lite.modules.rows import take_rows
from m1lite.modules.strategy import TeamStrategy
from tests.small_team import make_batch, make_team

ROWS = {"ada": ([0], [1, 2, 3, 4]), "bea": ([0, 1, 2, 3, 4], []), "cyd": ([], [0, 1, 2])}
"""Rows of each agent on rank 0 and rank 1: uneven, and each rank lacks an agent."""
STEPS = 3


class Share:
    """The batches of one rank, or of both together."""

    def __init__(self, ranks):
        self.ranks = ranks

    def __len__(self):
        return STEPS

    def __iter__(self):
        for step in range(STEPS):
            batch = RolloutBatch([])
            batch.tokens = {}
            for agent, shares in ROWS.items():
                rows = [row for rank in self.ranks for row in shares[rank]]
                # In the second step nobody has anything of bea, so she must not step on any rank.
                if rows and not (agent == "bea" and step == 1):
                    version = step - (agent == "bea" and step > 1)
                    made = make_batch(agent, rows=5, seed=10 * step + len(agent) + ord(agent[0]), version=version)
                    batch.tokens[agent] = take_rows(made, rows, width=24)
            yield batch


def make_module():
    return MarlModule(
        make_team(stir=0.05, full=["cyd"]),
        optimizer=partial(AdamW, lr=0.01),
        objective=Objective(beta=0.1),
        update_epochs=2,
        micro_batch_tokens=60,
    )


class Log(pl.Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append({k: v.item() for k, v in trainer.callback_metrics.items() if not k.startswith("perf")})


def fit(ranks, **kwargs):
    torch.set_num_threads(1)
    module, log = make_module(), Log()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[log],
        **kwargs,
    )
    trainer.fit(module, Share(ranks))
    tensors = {agent: module.team.adapter_tensors(agent) for agent in module.team.agents}
    return {"tensors": tensors, "log": log.steps, "versions": module.versions, "steps": trainer.global_step}


if __name__ == "__main__":
    dist.init_process_group("gloo")  # before anything that an engine would do
    rank = dist.get_rank()
    found = fit([rank], devices=2, strategy=TeamStrategy(process_group_backend="gloo"), use_distributed_sampler=False)
    # A team that differs on one rank must be found before it trains.
    module = make_module()
    if rank == 1:
        with torch.no_grad():
            next(iter(module.team.adapter_parameters("bea").values())).add_(1e-6)
    runner = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        devices=2,
        strategy=TeamStrategy(process_group_backend="gloo"),
        use_distributed_sampler=False,
    )
    try:
        runner.fit(module, Share([rank]))
    except RuntimeError as error:
        found["refused"] = str(error)
    torch.save(found, Path(sys.argv[1]) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
