"""Injected faults: the replies and versions are those of an engine without any, or the run stops with the reason."""

import logging
from dataclasses import replace

import pytest
import torch

from m1lite.engines.base import EngineError, Request, Sampling
from m1lite.engines.scripted import ScriptedEngine
from m1lite.engines.supervised import Supervised, SupervisedEngine

POLICIES = ("ada", "bea")
TENSORS = {"lora_A": torch.ones(2, 3)}


class Fragile(ScriptedEngine):
    """Finishes one reply a step, until a step that is planned to fail; some plans fail at other places."""

    def __init__(self, built, plan):
        super().__init__(lambda request: [request.seed % 100, len(request.prompt_ids)], policies=POLICIES)
        self.fault, self.num_steps, self.loaded, self.closed = plan(len(built)), 0, {}, False
        built.append(self)
        if self.fault == "build":
            raise MemoryError("no room for the cache")

    def step(self, wait=0.0):
        self.num_steps += 1
        if self.num_steps == self.fault:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        if self.fault == "silent":
            return []
        held, self._queue._queued = self._queue._queued, {}
        first = next(iter(held), None)
        if first is None:
            return []
        self._queue._queued = {first: held.pop(first)}
        drawn = super().step()
        self._queue._queued = held
        return drawn

    def load_adapter(self, policy, tensors, config, version):
        super().load_adapter(policy, tensors, config, version)
        self.loaded[policy] = {name: tensor.clone() for name, tensor in tensors.items()}, dict(config)

    def load_base(self, weights, version):
        super().load_base(weights, version)
        self.loaded["base"] = {name: tensor.clone() for name, tensor in weights}

    def close(self):
        self.closed = True
        if self.fault == "silent":
            raise RuntimeError("closing fails too")


def supervised(plan, **options):
    built = []
    return SupervisedEngine(lambda: Fragile(built, plan), name="ada, bea on tiny", **options), built


def requests(count=6):
    return [
        Request(policy=POLICIES[n % 2], prompt_ids=[1] * (n + 1), sampling=Sampling(), seed=7 * n) for n in range(count)
    ]


def expected(count=6):
    return [[7 * n, n + 1] for n in range(count)]


@pytest.mark.parametrize(
    ("plan", "num_built"),
    [
        (lambda number: 3 if number == 0 else None, 2),
        (lambda number: [3, "build", 2][number] if number < 3 else None, 4),
        (lambda number: 2, 6),  # every engine draws one reply and fails: three times in a row is too much, see below
    ],
    ids=["a failing step", "a failing step, a failing build, a failing step", "again and again, with room for it"],
)
def test_what_was_under_way_is_drawn_again(plan, num_built, caplog):
    engine, built = supervised(plan, max_faults=10)
    tickets = [engine.submit(request) for request in requests()]
    drawn = {}
    with caplog.at_level(logging.WARNING):
        while engine.num_unfinished:
            drawn.update(engine.step())
    assert [drawn[ticket].token_ids for ticket in tickets] == expected()
    assert len(built) == num_built
    assert engine.num_faults == num_built - 1
    assert all(part.closed for part in built[:-1] if part.fault != "build")
    assert "The engine of ada, bea on tiny failed at its step" in caplog.text


def test_a_new_engine_gets_the_weights_back_as_they_were_published():
    engine, built = supervised(lambda number: 1 if number == 0 else None)
    tensors, base = {"lora_A": torch.ones(2, 3)}, {"w": torch.zeros(4)}
    engine.load_adapter("ada", tensors, {"r": 2}, 3)
    engine.load_base(base.items(), 5)
    tensors["lora_A"].fill_(9)  # the trainer goes on
    base["w"].fill_(9)
    assert [reply.token_ids for reply in engine.generate(requests())] == expected()
    assert len(built) == 2
    assert engine.versions() == {"ada": 3, "bea": 5}
    (tensors, config), weights = built[1].loaded["ada"], built[1].loaded["base"]
    assert config == {"r": 2}
    assert torch.equal(tensors["lora_A"], torch.ones(2, 3))
    assert torch.equal(weights["w"], torch.zeros(4))


def test_silence_is_a_fault(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("m1lite.engines.supervised.time.monotonic", lambda: now[0])
    engine, built = supervised(lambda number: "silent" if number == 0 else None, deadline_seconds=60)
    ticket = engine.submit(requests()[0])
    for _ in range(3):
        now[0] += 20
        assert engine.step() == []
    assert len(built) == 1, "60 s are allowed"
    now[0] += 1
    assert engine.step() == []
    assert len(built) == 2
    assert [(told, reply.token_ids) for told, reply in engine.step()] == [(ticket, [0, 1])]


def test_too_many_faults_stop_with_the_engine_the_step_and_the_last_fault():
    engine, built = supervised(lambda number: 1, max_faults=3)
    message = (
        r"of ada, bea on tiny failed 4 times while 6 replies.*`max_faults` is 3.*"
        r"step 4: OutOfMemoryError\('tried to allocate 9 GiB'\)"
    )
    with pytest.raises(EngineError, match=message):
        engine.generate(requests())
    assert len(built) == 4
    assert all(part.closed for part in built)
    assert engine.num_unfinished == 0
    with pytest.raises(EngineError, match="failed 4 times"):
        engine.generate(requests())


def test_an_engine_that_cannot_be_built_again_stops_and_is_built_at_the_next_use():
    engine, built = supervised(lambda number: {0: 1, 1: "build", 2: "build"}.get(number), max_faults=2)
    engine.load_adapter("ada", TENSORS, {}, 4)
    with pytest.raises(EngineError, match=r"failed 3 times .* MemoryError\('no room for the cache'\)"):
        engine.generate(requests())
    assert engine.num_unfinished == 0
    assert [reply.token_ids for reply in engine.generate(requests())] == expected()
    assert engine.versions()["ada"] == 4
    assert len(built) == 4


def test_faults_of_different_rollouts_do_not_add_up():
    engine, built = supervised(lambda number: 3, max_faults=1)  # each engine serves two replies and fails
    for _ in range(5):
        assert [reply.token_ids for reply in engine.generate(requests(2))] == expected(2)
    assert len(built) > 3


def test_a_refused_request_is_no_fault():
    engine, built = supervised(lambda number: None)
    with pytest.raises(EngineError, match="No policy 'eve'"):
        engine.generate([*requests(), replace(requests()[0], policy="eve")])
    assert (engine.num_unfinished, len(built)) == (0, 1)


def test_a_closed_engine_stays_closed():
    engine, built = supervised(lambda number: None)
    engine.close()
    engine.close()
    assert built[0].closed
    with pytest.raises(EngineError, match="is closed"):
        engine.generate(requests())


def test_limits_are_checked():
    for limits, message in (({"deadline_seconds": 0}, "`deadline_seconds` is 0"), ({"max_faults": -1}, "is -1")):
        with pytest.raises(ValueError, match=message):
            supervised(lambda number: None, **limits)


@pytest.mark.slow
def test_a_vllm_engine_whose_steps_fail_is_built_anew_and_draws_the_same(base_directory, trainer, make_requests):
    vllm = pytest.importorskip("m1lite.engines.vllm")
    make = Supervised(make=lambda *args, **options: vllm.VllmEngine(*args, kv_cache_bytes=16 << 20, **options))
    engine = make(str(base_directory), ["ada", "bea", "cyd", "dov"], max_model_len=256)
    try:
        trainer.publish(engine, "ada", 1)
        trainer.publish(engine, "bea", 2)
        requests = make_requests(24, max_new_tokens=12)
        before = engine.generate(requests)
        first = engine._engine
        step, calls = first._llm.llm_engine.step, []

        def failing():
            calls.append(1)
            if len(calls) == 7:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return step()

        first._llm.llm_engine.step = failing
        assert engine.generate(requests) == before
        assert (len(calls), engine.num_faults) == (7, 1)
        assert engine._engine is not first
        assert engine.versions() == {"ada": 1, "bea": 2, "cyd": 0, "dov": 0}
        assert trainer.gap(requests, before) < 1e-4
    finally:
        engine.close()
