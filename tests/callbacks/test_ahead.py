"""Rollouts one step ahead: played while the update runs, with weights one version old, and never while these change."""

import threading
import time

import pytest
import torch

from m1lite.callbacks.ahead import AheadRolloutCallback
from m1lite.modules.batch import RolloutBatch

AGENTS = ("ada", "bea", "cyd")


class Loader:
    """A loader that gives one batch after another, and no other."""

    def __len__(self):
        return 2

    def __iter__(self):
        return iter([RolloutBatch([]), RolloutBatch([])])


def versions(batch):
    return {agent: batch.tokens[agent].policy_version for agent in AGENTS}


def test_every_rollout_but_the_first_is_one_version_old(campaign):
    run = campaign(ahead=True)
    log = run.fit(steps=4)
    assert [versions(batch) for batch in log.batches] == [dict.fromkeys(AGENTS, version) for version in (0, 0, 1, 2)]
    assert run.module.versions == dict.fromkeys(AGENTS, 4)
    assert run.engine.versions() == dict.fromkeys(AGENTS, 4)
    for step in log.steps:
        assert step["perf/rollout_s"] > 0
        assert step["perf/rollout_wait_s"] >= 0
        assert all(step[f"{agent}/sampling/effective_sample_size"] <= 1 for agent in AGENTS)


def test_the_questions_and_seeds_are_those_of_the_steps(campaign):
    """The first rollout is the same as without running ahead, the others differ by the weights alone."""
    plain, ahead = campaign(), campaign(ahead=True)
    before, after = plain.fit(steps=3).batches, ahead.fit(steps=3).batches
    assert [[sample.id for sample in batch.samples] for batch in after] == [
        [sample.id for sample in batch.samples] for batch in before
    ]
    assert [[episode.seed for episode in batch.episodes] for batch in after] == [
        [episode.seed for episode in batch.episodes] for batch in before
    ]
    assert torch.equal(before[0].tokens["ada"].input_ids, after[0].tokens["ada"].input_ids)


def test_it_plays_while_the_update_runs_and_not_while_weights_are_published(campaign):
    run = campaign(ahead=True, validation=True)
    events = []

    def watched(name, function):
        def call(*args, **kwargs):
            events.append((time.perf_counter(), f"{name} begins", threading.current_thread().name))
            result = function(*args, **kwargs)
            events.append((time.perf_counter(), f"{name} ends", threading.current_thread().name))
            return result

        return call

    run.rollout.play = watched("play", run.rollout.play)
    run.module.training_step = watched("update", run.module.training_step)
    run.engine.load_adapter = watched("publish", run.engine.load_adapter)
    run.fit(steps=3, val_check_interval=1)
    order = [name for _, name, _ in sorted(events)]
    playing = 0
    for name in order:
        playing += {"play begins": 1, "play ends": -1}.get(name, 0)
        assert not (playing and name.startswith("publish")), order
    begun = [moment for moment, name, _ in events if name == "play begins"]
    updates = [moment for moment, name, _ in events if name == "update begins"]
    assert begun[1] < updates[0] < begun[2] < updates[1]
    threads = [thread for _, name, thread in events if name == "play begins"]
    assert threads[0] == "MainThread"
    assert all(thread.startswith("m1lite-rollout") for thread in threads[1:])


def test_a_run_that_is_continued_plays_its_first_step_with_the_weights_it_has(campaign, tmp_path):
    first = campaign(ahead=True)
    trainer = first.trainer(steps=2)
    trainer.fit(first.module, first.loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = campaign(ahead=True)
    log = second.fit(steps=4, ckpt_path=str(tmp_path / "last.ckpt"))
    assert [versions(batch)["ada"] for batch in log.batches] == [2, 2]
    assert [[sample.id for sample in batch.samples] for batch in log.batches] == [
        [sample.id for sample in first.loader.batch(step).samples] for step in (2, 3)
    ]


def test_a_fault_in_the_thread_stops_the_fit_with_its_own_words(campaign):
    run = campaign(ahead=True)
    play, calls = run.rollout.play, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("the tools are gone")
        return play(*args, **kwargs)

    run.rollout.play = failing
    with pytest.raises(RuntimeError, match="the tools are gone"):
        run.fit(steps=4)
    assert run.rollout._thread is None


def test_a_module_that_takes_fresh_rollouts_only_is_refused(campaign):
    run = campaign()
    run.rollout = AheadRolloutCallback(run.agents, run.rollout.play, run.reward)
    with pytest.raises(ValueError, match="`async_level` of the module is 0, but rollouts are played one step ahead"):
        run.fit(steps=1)


def test_a_loader_that_cannot_look_ahead_is_refused(campaign):
    run = campaign(ahead=True)
    run.loader = Loader()
    with pytest.raises(ValueError, match=r"The training loader is a Loader without `batch\(step\)`"):
        run.fit(steps=2)
