"""The check before an update passes rollouts as they are, and stops at planted faults before anything is trained."""

import lightning.pytorch as pl
import pytest

from m1lite.callbacks.turn_check import TurnCheck
from m1lite.engines.features import StaleFeaturesError
from m1lite.modules.agreement import TurnMismatchError, turn_gaps


class Fault(pl.Callback):
    """Changes what the engine reported of one turn, at one step."""

    def __init__(self, step):
        self.step, self.named = step, None

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        tokens = batch.tokens["bea"]
        turn = turn_gaps(tokens, tokens.sampled_logprobs)[1]
        self.named = f"Turn {turn.turn} of {tokens.names[turn.row]} of agent 'bea'"
        if trainer.global_step == self.step:
            tokens.sampled_logprobs[turn.row, turn.start : turn.start + turn.length] += 0.5


def test_rollouts_as_they_are_pass_and_are_logged(campaign):
    log = campaign().fit(TurnCheck(1e-4), steps=2)
    for step in log.steps:
        assert all(0 < step[f"{agent}/sampling/turn_gap/max"] < 1e-4 for agent in ("ada", "bea", "cyd"))


def test_a_turn_that_differs_stops_the_run_before_the_update(campaign):
    run, fault = campaign(), Fault(step=1)
    with pytest.raises(TurnMismatchError) as stopped:
        run.fit(fault, TurnCheck(1e-3), steps=3)
    assert str(stopped.value).startswith(fault.named)
    assert run.module.versions == dict.fromkeys(("ada", "bea", "cyd"), 1)
    campaign().fit(Fault(step=1), TurnCheck(1e-3, every_n_steps=2), steps=2)  # not looked at


def test_stale_features_stop_the_run(campaign):
    class Stale:
        def check_fresh(self):
            raise StaleFeaturesError("the frame at 2 s of 'v.mp4'")

    run = campaign()
    run.team.features["qwen3"] = Stale()
    with pytest.raises(StaleFeaturesError, match="the frame at 2 s"):
        run.fit(TurnCheck(1e-3), steps=1)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="`tolerance` is 0; it must be above 0"):
        TurnCheck(0)
    with pytest.raises(ValueError, match="`every_n_steps` is 0"):
        TurnCheck(0.1, every_n_steps=0)
