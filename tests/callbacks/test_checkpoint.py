import lightning.pytorch as pl
import pytest
import torch

from m1lite.callbacks.checkpoint import LastCheckpoint
from m1lite.engines.base import EngineError


class StopAfter(pl.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == self.step


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("every", "stop", "expected"),
    [(2, None, 3), (100, None, 3), (2, 1, 1)],
    ids=["last step after a saved one", "only the last step", "asked to stop"],
)
def test_the_step_that_ends_a_fit_is_saved(campaign, tmp_path, every, stop, expected):
    path = tmp_path / "checkpoints" / "last.ckpt"
    run = campaign()
    callbacks = [LastCheckpoint(path, every_n_steps=every), *([StopAfter(stop)] if stop else [])]
    run.fit(*callbacks, steps=3, enable_checkpointing=True)
    assert step_of(path) == expected
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_fit_that_ended_goes_on_where_it_was(campaign, tmp_path):
    path = tmp_path / "last.ckpt"
    expected = campaign().fit(steps=4)
    campaign().fit(LastCheckpoint(path), steps=3, enable_checkpointing=True)
    found = campaign().fit(steps=4, ckpt_path=path)
    assert [{k: v for k, v in step.items() if "perf" not in k} for step in found.steps] == [
        {k: v for k, v in expected.steps[3].items() if "perf" not in k}
    ]


def test_an_engine_that_fails_for_good_leaves_the_steps_before_it_on_disk(campaign, tmp_path):
    path = tmp_path / "last.ckpt"
    expected = campaign().fit(steps=3)
    run = campaign()
    part = run.engine._parts[0]
    step = part.step

    def failing(wait=0.0):
        if run.module.trainer.global_step == 2:
            raise EngineError("The engine of ada failed 4 times")
        return step(wait)

    part.step = failing
    with pytest.raises(EngineError, match="Rank 0, rollout of step 2: The engine of ada failed 4 times"):
        run.fit(LastCheckpoint(path, every_n_steps=5), steps=3, enable_checkpointing=True)
    assert step_of(path) == 2
    found = campaign().fit(steps=3, ckpt_path=path)
    assert [{k: v for k, v in step.items() if "perf" not in k} for step in found.steps] == [
        {k: v for k, v in expected.steps[2].items() if "perf" not in k}
    ]


def test_an_interval_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`every_n_steps` is 0; it must be at least 1"):
        LastCheckpoint(tmp_path / "last.ckpt", every_n_steps=0)
