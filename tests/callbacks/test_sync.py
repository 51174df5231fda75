import pytest
import torch

from m1lite.callbacks.sync import SyncCallback
from m1lite.engines.scripted import ScriptedEngine


class Spy:
    def __init__(self, engine):
        self.engine, self.loaded = engine, []

    def load_adapter(self, policy, tensors, config, version):
        self.loaded.append((policy, version, tensors))
        self.engine.load_adapter(policy, tensors, config, version)

    def versions(self):
        return self.engine.versions()


def test_engine_and_trainer_agree_on_log_probs_after_every_update(campaign):
    log = campaign(learning_rate=0.05).fit(steps=4)
    for step in log.steps:
        for agent in ("ada", "bea", "cyd"):
            assert step[f"{agent}/sampling/sampling_logp_difference/max"] < 2e-5
    assert log.steps[-1]["ada/kl"] > 1e-3, "the weights must have moved, else the test shows nothing"
    assert log.steps[-1]["perf/sync_s"] > 0


def test_every_adapter_is_published_at_the_start_then_only_those_that_changed(campaign):
    run = campaign()
    spy = Spy(run.engine)
    run.sync.engine = spy
    # cyd learns nothing in this run: its optimiser steps are refused for want of tokens.
    pack = run.rollout._pack
    run.rollout._pack = lambda *args: {name: rows for name, rows in pack(*args).items() if name != "cyd"}
    run.fit(steps=2)
    assert [(policy, version) for policy, version, _ in spy.loaded] == [
        *(("ada", 0), ("bea", 0), ("cyd", 0)),
        *(("ada", 1), ("bea", 1)),
        *(("ada", 2), ("bea", 2)),
    ]
    final = run.team.adapter_tensors("bea")
    assert all(torch.equal(tensor, final[name]) for name, tensor in spy.loaded[-1][2].items())
    assert run.engine.versions() == {"ada": 2, "bea": 2, "cyd": 0}


def test_an_engine_that_lacks_an_agent_is_refused(campaign):
    run = campaign()
    run.sync = SyncCallback(ScriptedEngine(lambda request: [1], policies=["ada", "cyd"]))
    with pytest.raises(ValueError, match=r"does not serve \['bea'\]; it serves \['ada', 'cyd'\]"):
        run.fit(steps=1)
