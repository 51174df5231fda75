import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from m1lite.callbacks.probe import Probe
from m1lite.callbacks.sync import LogprobMismatchError, SyncCallback, SyncError
from m1lite.engines.base import EngineError, EngineGroup
from m1lite.engines.hf import HfEngine
from m1lite.engines.scripted import ScriptedEngine
from m1lite.modules.bases import base_tensors, stored_tiny_base
from m1lite.modules.ranks import AbsentRankError, meet
from m1lite.modules.tiny import tiny_base
from tests.small_team import MEMBERS, make_team


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


def test_a_probe_is_logged_and_takes_the_agents_in_turn(campaign):
    run = campaign(learning_rate=0.05)
    probed = []

    class Watched(Probe):
        def __call__(self, team, agents):
            probed.append(list(agents))
            return super().__call__(team, agents)

    run.sync = SyncCallback(run.engine, Watched(run.engine.generate))
    log = run.fit(steps=4)
    assert probed[0] == ["ada", "bea", "cyd"]
    assert sorted(agents[0] for agents in probed[1:4]) == ["ada", "bea", "cyd"]
    assert probed[4] == probed[1]
    for step in log.steps:
        assert step["sync/logprob_error"] < 1e-4
    assert max(step["sync/logprob_shift"] for step in log.steps) > 1e-2


def test_an_engine_that_keeps_old_weights_stops_the_run_by_name(campaign):
    run = campaign(learning_rate=0.05)

    class Deaf(Spy):
        """Serves the weights of the start under every version."""

        def load_adapter(self, policy, tensors, config, version):
            super().load_adapter(policy, tensors, config, version)
            first = next(tensors for name, _, tensors in self.loaded if name == policy)
            self.engine.load_adapter(policy, first, config, version)

    run.sync = SyncCallback(Deaf(run.engine), Probe(run.engine.generate))
    with pytest.raises(
        LogprobMismatchError,
        match=r"Rank 0, step (\d): the engine serves '(ada|bea|cyd)' at version \1 with .* nats from the",
    ):
        run.fit(steps=8)


def test_an_engine_on_another_base_is_refused_at_the_start(campaign):
    run = campaign()
    other, _ = tiny_base("qwen2", hidden_size=32, num_layers=2, seed=77)
    stranger = HfEngine(other, ["cyd"])
    run.engine = EngineGroup({**run.engine.engines, "cyd": stranger})
    run.sync = SyncCallback(run.engine, Probe(run.engine.generate))
    digest = run.team.base_hashes()["qwen2"]
    with pytest.raises(
        LogprobMismatchError, match=f"step 0: .*'cyd' at version 0 .*another base than 'qwen2' .{digest}"
    ):
        run.fit(steps=1)


def test_an_engine_that_refuses_weights_is_named_with_rank_step_policy_and_version(campaign):
    run = campaign()

    class Full(Spy):
        def load_adapter(self, policy, tensors, config, version):
            if (policy, version) == ("bea", 1):
                raise EngineError("no room on the replica http://somewhere:8000")
            super().load_adapter(policy, tensors, config, version)

    run.sync.engine = Full(run.engine)
    with pytest.raises(SyncError, match=r"Rank 0, step 1: the weights of 'bea' at version 1 .* http://somewhere:8000"):
        run.fit(steps=2)


class Whole:
    """Engines that take whole models too, as the program's do; notes whether tensors came as copies."""

    def __init__(self, engines, team):
        self.engines, self.team, self.copied = engines, team, 0

    def load_adapter(self, policy, tensors, config, version):
        if config:
            self.engines.load_adapter(policy, tensors, config, version)
            return
        own = {tensor.data_ptr() for _, tensor in base_tensors(self.team.copies[policy])}
        self.copied += sum(tensor.nbytes for tensor in tensors.values() if tensor.data_ptr() not in own)
        self.engines.engine_of(policy).load_base(tensors.items(), version)

    def versions(self):
        return self.engines.versions()


@pytest.mark.slow
def test_a_whole_model_reaches_vllm_without_a_copy_and_is_served_as_the_trainer_has_it(tmp_path):
    """Tied head and fused matrices included; beside it an agent with an adapter, and each agent with a probe."""
    pytest.importorskip("vllm")
    from m1lite.engines.vllm import VllmEngine

    bases = {"qwen3": stored_tiny_base(str(tmp_path / "base"), "qwen3")}
    options = {"max_model_len": 128, "kv_cache_bytes": 16 << 20}
    engines = EngineGroup({agent: VllmEngine(tmp_path / "base", [agent], **options) for agent in ("ada", "bea")})
    try:
        team = make_team({"ada": "qwen3", "bea": "qwen3"}, bases=bases, full=["bea"])
        assert team.copies["bea"].config.tie_word_embeddings
        sync = SyncCallback(Whole(engines, team), probe := Probe(engines.generate))

        class Module:
            versions = dict.fromkeys(team.agents, 0)

            def log_dict(self, values, batch_size):
                self.values = values

        class Trainer:
            global_step = 0

        module, trainer = Module(), Trainer()
        module.team = team
        sync.on_fit_start(trainer, module)
        for version in (1, 2, 3):
            before = dict(probe._last)
            with torch.no_grad():
                for agent in team.agents:
                    for parameter in team.adapter_parameters(agent).values():
                        parameter.add_(0.05 * torch.randn(parameter.shape))
            module.versions = dict.fromkeys(team.agents, version)
            sync.on_train_batch_end(trainer, module, None, None, 0)
            assert module.values["sync/logprob_error"] < 1e-4
            assert module.values["sync/logprob_shift"] > 0.05
            assert sum(probe._last[agent] != before[agent] for agent in team.agents) == 1
        assert sync.engine.copied == 0
        assert all(row.error < 1e-4 for row in probe(team, team.agents))
    finally:
        engines.close()


@pytest.mark.slow
def test_keys_and_values_of_old_weights_are_found(tmp_path, monkeypatch):
    """The probe's prompt is longer than a block of the prefix cache, which a sync that forgets it would find again."""
    pytest.importorskip("vllm")
    from m1lite.engines import _vllm_compat as compat
    from m1lite.engines.vllm import VllmEngine

    bases = {"qwen3": stored_tiny_base(str(tmp_path / "base"), "qwen3")}
    engine = VllmEngine(tmp_path / "base", ["ada"], max_model_len=128, kv_cache_bytes=16 << 20)
    try:
        team = make_team({"ada": "qwen3"}, bases=bases, full=["ada"])
        probe = Probe(engine.generate)
        (found,) = probe(team, ["ada"])
        assert found.agrees
        with torch.no_grad():
            for parameter in team.adapter_parameters("ada").values():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        monkeypatch.setattr(compat, "reset_caches", lambda llm: None)
        engine.load_base(base_tensors(team.copies["ada"]), 1)
        (found,) = probe(team, ["ada"])
        assert found.error > 0.01
        assert not found.agrees
        monkeypatch.undo()
        engine.load_base(base_tensors(team.copies["ada"]), 2)
        assert probe(team, ["ada"])[0].error < 1e-4
    finally:
        engine.close()


def absent(rank, store, folder):
    """Rank 1 stays away from the second meeting; then an engine of rank 1 fails in a sync of both."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    assert meet("a rollout", [rank, -rank, 5.0], seconds=30) == [1.0, 0.0, 5.0]

    class Broken:
        def load_adapter(self, policy, tensors, config, version):
            if rank == 1:
                raise EngineError("the engine is gone")

        def versions(self):
            return dict.fromkeys(MEMBERS, 0)

    class Module:
        team, versions = make_team(), dict.fromkeys(MEMBERS, 0)

    class Trainer:
        global_step = 7

    try:
        SyncCallback(Broken()).on_fit_start(Trainer(), Module())
    except SyncError as error:
        (folder / f"failed{rank}").write_text(str(error))
    if rank == 0:
        try:
            meet("the sync after step 8", [0.0], seconds=0.5)
        except AbsentRankError as error:
            (folder / "absent").write_text(str(error))
    else:
        while not (folder / "absent").is_file():
            time.sleep(0.05)
    dist.destroy_process_group()


def test_one_rank_s_failure_stops_all_and_an_absent_rank_is_named(tmp_path):
    mp.start_processes(absent, args=(f"file://{tmp_path / 'meet'}", tmp_path), nprocs=2, start_method="spawn")
    said = "Rank 1, step 7: the weights of 'ada' at version 0 did not reach their engine. the engine is gone"
    assert (tmp_path / "failed0").read_text() == (tmp_path / "failed1").read_text() == said
    message = (tmp_path / "absent").read_text()
    assert message.startswith("Rank 0 waited 0.5 s for all 2 ranks to meet for the sync after step 8; the cause stands")
    assert "1" in message.split("absent.")[1]
