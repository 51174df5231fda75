import os
import runpy
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist

from m1lite.modules.ranks import check_same_on_ranks, check_world, mean_over_ranks, num_ranks, reduce_over_ranks
from m1lite.modules.strategy import TeamStrategy

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("rank_worker.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([*LAUNCH, str(WORKER), str(folder)], env=environment, check=True, timeout=240)
    union = runpy.run_path(str(WORKER))["fit"]([0, 1], devices=1)
    return [*(torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)), union]


def test_ranks_end_with_the_same_bits(runs):
    first, second, _ = runs
    for agent, tensors in first["tensors"].items():
        assert all(torch.equal(tensors[name], second["tensors"][agent][name]) for name in tensors)
    assert first["versions"] == second["versions"] == {"ada": 3, "bea": 2, "cyd": 3}
    assert first["steps"] == second["steps"] == 3


def test_two_ranks_with_uneven_rows_equal_one_process_on_the_union(runs):
    first, _, union = runs
    assert union["versions"] == first["versions"]
    for agent, tensors in union["tensors"].items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(first["tensors"][agent][name], tensor, atol=1e-6, rtol=0)


def test_logged_values_are_those_of_the_union_on_every_rank(runs):
    first, second, union = runs
    for step, values in enumerate(union["log"]):
        assert first["log"][step] == second["log"][step]
        assert first["log"][step] == pytest.approx(values, rel=1e-4, abs=1e-6)


def test_a_wrapped_team_ends_with_different_weights_without_a_word_or_stops(tmp_path):
    """What the strategy is for: under ``DistributedDataParallel`` the same update goes wrong."""
    worker = WORKER.with_name("naive_ddp_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([*LAUNCH, str(worker), str(tmp_path)], env=environment, check=True, timeout=240)
    first, second = (torch.load(tmp_path / f"naive{rank}.pt") for rank in (0, 1))
    same = {
        agent: all(torch.equal(values[name], second["tensors"][agent][name]) for name in values)
        for agent, values in first["tensors"].items()
    }
    assert same == {"ada": True, "bea": False}, "bea's adapter was off when the module was wrapped"
    # With every adapter trainable from the start, the one whose turn it is not stops the run.
    for run in (first, second):
        assert "finished reduction in the prior iteration" in run["error"]


def test_a_team_that_differs_between_ranks_is_refused_on_all(runs):
    for run in runs[:2]:
        assert "teams (bases and adapters) differ between rank 0" in run["refused"]


@pytest.fixture
def lonely_group(tmp_path):
    if dist.is_initialized():  # an engine in this process has left one, which engines that still run need
        yield
        return
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("lonely_group")
def test_a_group_of_another_size_than_the_trainers_is_refused():
    check_world(1)
    with pytest.raises(RuntimeError, match="has 1 rank\\(s\\), but the trainer expects 2"):
        check_world(2)

    class Trainer:
        world_size = 2

    with pytest.raises(RuntimeError, match="the trainer expects 2"):
        TeamStrategy().setup(Trainer())


def test_strategy_never_wraps():
    module = pl.LightningModule()
    strategy = TeamStrategy(accelerator=None, parallel_devices=[torch.device("cpu")])
    strategy.model = module
    strategy.configure_ddp()
    assert strategy.model is module


def test_one_process_needs_no_group():
    assert num_ranks() == 1
    values = torch.tensor([1.0, 2.0])
    assert reduce_over_ranks(values, "max") is values
    check_same_on_ranks("teams", "a")
    assert mean_over_ranks({"a": 1.0, "b": float("nan")}, weight=3) == {"a": 1.0}
