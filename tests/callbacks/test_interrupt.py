"""What ends a fit is told by name, with the file that continues it; a lost Ctrl-C is not lost."""

import os
import signal
import time
from contextlib import suppress

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from m1lite.callbacks.checkpoint import LastCheckpoint
from m1lite.callbacks.interrupt import InterruptCallback, stops_are_told_apart


class StopAt(pl.Callback):
    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step:
            raise self.error


def test_ctrl_c_says_which_file_continues_the_run(campaign, tmp_path):
    said = []
    files = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=1)
    with pytest.raises(SystemExit):
        campaign().fit(
            files, StopAt(2, KeyboardInterrupt()), InterruptCallback(said.append), steps=4, enable_checkpointing=True
        )
    assert said == [f"Interrupted at step 2; the last checkpoint is {tmp_path / 'step=2.ckpt'}."]
    assert (tmp_path / "step=2.ckpt").is_file()


def test_an_error_before_the_first_checkpoint_is_said_too(campaign):
    said = []
    with pytest.raises(OSError, match="disk"):
        campaign().fit(StopAt(0, OSError("disk")), InterruptCallback(said.append), steps=1)
    assert said == ["Stopped by OSError at step 0; no checkpoint has been written yet."]


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, "Interrupted at step 1; the last checkpoint is {path}."),
        (SIGTERMException(), SystemExit, "Stopped by SIGTERM at step 1; the last checkpoint is {path}."),
        (OSError("disk"), OSError, "Stopped by OSError at step 1; the last checkpoint is {path}."),
    ],
)
def test_what_stopped_a_fit_can_be_told_by_what_it_raises(campaign, tmp_path, error, raised, said):
    lines, path, run = [], tmp_path / "last.ckpt", campaign()
    callbacks = [LastCheckpoint(path, every_n_steps=1), StopAt(1, error), InterruptCallback(lines.append)]
    trainer = run.trainer(*callbacks, steps=2, enable_checkpointing=True)
    with pytest.raises(raised) as ended, stops_are_told_apart(trainer):
        trainer.fit(run.module, run.loader)
    assert getattr(ended.value, "code", 143) == 143
    assert lines == [said.format(path=path)]


class LoseCtrlC(pl.Callback):
    """Gets a Ctrl-C where Python drops what it raises."""

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)


def test_a_ctrl_c_that_was_lost_ends_the_fit_at_the_next_step(campaign):
    lines, run, before = [], campaign(), signal.getsignal(signal.SIGINT)
    trainer = run.trainer(LoseCtrlC(), InterruptCallback(lines.append), steps=3)
    with pytest.raises(KeyboardInterrupt), stops_are_told_apart(trainer):
        trainer.fit(run.module, run.loader)
    assert lines == ["Interrupted at step 1; no checkpoint has been written yet."]
    assert signal.getsignal(signal.SIGINT) is before
