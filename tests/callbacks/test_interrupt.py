import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from m1lite.callbacks.interrupt import InterruptCallback


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
