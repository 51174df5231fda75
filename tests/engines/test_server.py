"""Rollout servers: what a real one does beyond the contract, and failures planted in a stub that speaks its HTTP."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from m1lite.engines.base import EngineError
from m1lite.engines.fleet import NoReplicaError
from m1lite.engines.server import ServerEngine, VersionMismatchError

POLICIES = ("ada", "bea", "cyd", "dov")
TOLERANCE = 1e-4


# ---- a stub of vLLM's server ----------------------------------------------------------------------


class Stub(ThreadingHTTPServer):
    """Answers as vLLM 0.32 does; a reply of ``n`` tokens follows from the seed and the adapter's name."""

    daemon_threads = True

    def __init__(self, base, **options):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = str(base)
        self.version, self.max_model_len, self.likeliest = "0.32.0", 256, -3.0
        self.lora, self.updating, self.scale_out, self.processed = True, True, True, True
        self.rank = 16
        self.garbage = None
        self.hanging = threading.Event()
        self.sick = False
        self.adapters, self.asked, self.seen_adapters = {}, [], []
        self.__dict__.update(options)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def stop(self):
        self.hanging.clear()
        self.shutdown()
        self.server_close()

    def reply(self, body):
        params, name = body["sampling_params"], body["model"]
        if name not in (self.model, *self.adapters):
            return 404, said(f"The model `{name}` does not exist. Valid aliases: <path>")
        if "logprobs" in params and params["logprobs"] == 2:  # asked at the start
            best = self.likeliest - (1.0 if self.processed and params["temperature"] == 2.0 else 0.0)
            return 200, completion([9], [best])
        count = min(params["max_tokens"], 5)
        draw = torch.Generator().manual_seed(params["seed"])
        ids = torch.randint(6, 100, (count,), generator=draw).tolist()
        return 200, completion(ids, [-0.5] * count)


def said(message):
    return {"error": {"message": message}}


def completion(ids, logprobs):
    content = [
        {"token_id": token, "logprob": logprob, "top_logprobs": [{"token_id": token, "logprob": logprob}]}
        for token, logprob in zip(ids, logprobs, strict=True)
    ]
    return {"choices": [{"token_ids": ids, "finish_reason": "length", "logprobs": {"content": content}}]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        stub = self.server
        if self.path == "/health":
            while stub.hanging.is_set():
                time.sleep(0.01)
            self.answer(503 if stub.sick else 200, b"")
        elif self.path == "/version":
            self.answer(200, {"version": stub.version})
        else:
            cards = [{"id": stub.model, "root": stub.model, "max_model_len": stub.max_model_len}]
            self.answer(200, {"data": cards + [{"id": name, "root": "/"} for name in stub.adapters]})

    def do_POST(self):
        stub = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/inference/v1/generate":
            stub.asked.append(body)
            if not stub.scale_out:
                return self.answer(403, said("Scale-out endpoints are disabled."))
            while stub.hanging.is_set():
                time.sleep(0.01)
            if stub.garbage is not None and body["sampling_params"]["logprobs"] == 0:
                return self.answer(200, stub.garbage)
            return self.answer(*stub.reply(body))
        name = body["lora_name"]
        if not stub.updating:
            return self.answer(404, {"detail": "Not Found"})
        if self.path == "/v1/unload_lora_adapter":
            found = stub.adapters.pop(name, None)
            return self.answer(200, b"ok") if found else self.answer(404, said(f"'{name}' cannot be found."))
        return self.answer(*self.loaded(name, body["lora_path"]))

    def loaded(self, name, path):
        stub = self.server
        if not stub.lora:
            return 500, said("Worker failed with error 'LoRA is not enabled. Use --enable-lora to enable LoRA.'")
        if name in stub.adapters:
            return 400, said(f"The lora adapter '{name}' has already been loaded.")
        try:
            with open(f"{path}/adapter_config.json") as file:
                config = json.load(file)
        except FileNotFoundError:
            return 404, said(f"Loading lora {name} failed: No adapter found for {path}")
        if config["r"] > stub.rank:
            return 500, said(f"LoRA rank {config['r']} is greater than max_lora_rank {stub.rank}.")
        stub.adapters[name] = path
        stub.seen_adapters.append(name)
        return 200, b"Success"


@pytest.fixture
def stub(base_directory):
    """Give a function that starts a stub."""
    started = []

    def start(**options):
        started.append(Stub(base_directory, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def connect(base_directory):
    """Give a function that makes an engine of some servers."""
    engines = []

    def make(*servers, policies=POLICIES, **options):
        settings = {"max_model_len": 256, "start_seconds": 10.0, "health_seconds": 5.0, "deadline_seconds": 20.0}
        urls = [server if isinstance(server, str) else server.url for server in servers]
        engines.append(ServerEngine(base_directory, policies, urls=urls, **settings | options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


# ---- several replicas -----------------------------------------------------------------------------


def test_replicas_share_the_requests_and_give_the_same_replies(stub, connect, make_requests):
    one, two = stub(), stub()
    requests = make_requests(40)
    alone = connect(one).generate(requests)
    both = connect(one, two)
    one.asked.clear(), two.asked.clear()
    assert both.generate(requests) == alone
    assert min(len(one.asked), len(two.asked)) >= 10
    assert one.asked[0]["sampling_params"] | {"seed": 0} == {
        **{"logprobs": 0, "detokenize": False, "ignore_eos": True, "stop_token_ids": [5]},
        **{"temperature": 1.0, "max_tokens": 6, "seed": 0},
    }


def test_a_dead_replica_s_requests_are_drawn_on_another(stub, connect, make_requests):
    one, two = stub(), stub()
    requests = make_requests(30)
    engine = connect(one, two)
    before = engine.generate(requests)
    two.hanging.set()
    tickets = [engine.submit(request) for request in requests]
    drawn = dict(engine.step(0.2))
    two.sick = True
    threading.Thread(target=two.stop).start()  # while it holds its share
    while engine.num_unfinished:
        drawn.update(engine.step(1.0))
    assert [drawn[ticket] for ticket in tickets] == before


def test_a_hanging_replica_is_found_by_its_health_and_its_requests_drawn_on_another(stub, connect, make_requests):
    one, two = stub(), stub()
    requests = make_requests(12)
    engine = connect(one, two, health_seconds=0.3, deadline_seconds=60.0)
    before = engine.generate(requests)
    two.hanging.set()
    started = time.monotonic()
    assert engine.generate(requests) == before
    assert time.monotonic() - started < 30.0
    assert f"{two.url} did not answer GET /health within 0.3 s" in str(list(engine._fleet.lost.values()))


def test_a_reply_has_a_deadline_that_names_the_server(stub, connect, make_requests):
    one = stub()
    engine = connect(one, deadline_seconds=0.3)
    one.hanging.set()
    with pytest.raises(NoReplicaError, match=f"with 3 replies awaited: {one.url} did not answer .* within 0.3 s"):
        engine.generate(make_requests(3))
    with pytest.raises(NoReplicaError, match="No rollout server is left"):
        engine.submit(make_requests(1)[0])
    assert engine.num_unfinished == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>",
        {"choices": []},
        completion([7, 8], [-0.1, float("nan")]),
        {"choices": [{**completion([7, 8], [-0.1, -0.2])["choices"][0], "token_ids": [7]}]},
    ],
    ids=["no JSON", "no choice", "no number", "fewer ids than log-probs"],
)
def test_garbage_is_no_reply(stub, connect, make_requests, garbage):
    one, two = stub(), stub(garbage=garbage)
    requests = make_requests(6)
    alone = connect(one).generate(requests)
    engine = connect(one, two)
    assert engine.generate(requests) == alone
    assert f"{two.url} answered POST /inference/v1/generate with something else" in str(engine._fleet.lost.values())


def test_a_lost_replica_comes_back_with_all_adapters_at_a_push(stub, connect, trainer, make_requests):
    one, two = stub(), stub()
    engine = connect(one, two, health_seconds=0.3)
    trainer.publish(engine, "ada", 1)
    two.hanging.set()
    engine.generate(make_requests(4))
    assert [replica.url for replica in engine._fleet.lost] == [two.url]
    two.adapters.clear()  # as after a restart
    two.hanging.clear()
    due = time.monotonic() + 20
    version = 1
    while engine._fleet.lost and time.monotonic() < due:
        version += 1
        trainer.publish(engine, "ada", version)
        time.sleep(0.05)
    assert set(engine._names.values()) <= two.adapters.keys()
    trainer.publish(engine, "bea", version)
    assert sorted(one.adapters)[-1] == sorted(two.adapters)[-1]


def test_a_server_that_was_restarted_draws_nothing_without_its_adapters(stub, connect, trainer, make_requests):
    one, two = stub(), stub()
    engine = connect(one, two)
    trainer.publish(engine, "ada", 1)
    two.adapters.clear()
    replies = engine.generate(make_requests(6, policies=["ada"]))
    assert {reply.policy_version for reply in replies} == {1}
    assert "does not exist" in str(engine._fleet.lost.values())
    assert "restarted" in str(engine._fleet.lost.values())


def test_dropped_requests_are_dropped_on_the_servers_too(stub, connect, make_requests):
    one = stub()
    engine = connect(one)
    one.hanging.set()
    for request in make_requests(3):
        engine.submit(request)
    engine.step(0.1)
    engine.abort()
    one.hanging.clear()
    assert engine.step(0.2) == []
    requests = make_requests(5)
    assert [reply.token_ids for reply in engine.generate(requests)] == [
        reply.token_ids for reply in connect(stub()).generate(requests)
    ]
    assert engine._fleet.lost == {}


def test_pictures_are_refused_by_name(stub, connect, make_requests):
    (request,) = make_requests(1)
    with pytest.raises(EngineError, match="Policy 'ada' is shown 1 pictures, which rollout servers do not take yet"):
        connect(stub()).submit(replace(request, media=(object(),)))


# ---- adapters -------------------------------------------------------------------------------------


def test_adapters_have_versioned_names_and_only_the_last_two_stay(stub, connect, trainer, tmp_path):
    one = stub()
    engine = connect(one, policies=["ada"], adapter_directory=tmp_path)
    for version in range(1, 6):
        with torch.no_grad():
            for name, parameter in trainer.models["ada"].named_parameters():
                parameter.add_(1e-3 if "lora_" in name else 0.0)
        trainer.publish(engine, "ada", version)
        assert engine.versions() == {"ada": version}
    assert [name.split("-")[0] for name in one.seen_adapters] == [f"ada@{version}" for version in range(1, 6)]
    assert [name.split("-")[0] for name in one.adapters] == ["ada@4", "ada@5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(one.adapters)
    engine.close()
    assert (one.adapters, list(tmp_path.iterdir())) == ({}, [])


def test_two_trainers_push_the_same_version_once(stub, connect, trainer, tmp_path):
    one = stub()
    first, second = (connect(one, policies=["ada"], adapter_directory=tmp_path) for _ in range(2))
    for version in (1, 2, 3):
        trainer.publish(first, "ada", version)
        trainer.publish(second, "ada", version)
    assert len(one.seen_adapters) == 3


def test_replicas_with_other_adapters_are_refused_after_a_push(stub, connect, trainer):
    one, two = stub(), stub()
    engine = connect(one, two)
    trainer.publish(engine, "ada", 1)
    two.adapters.clear()
    with pytest.raises(VersionMismatchError, match=rf"{two.url} serves \['bea@1.*lacks \['ada@1-\w+', 'nobody@0"):
        trainer.publish(engine, "bea", 1)


def test_an_adapter_that_a_server_refuses_leaves_the_old_one(stub, connect, trainer):
    one, two = stub(), stub(rank=8)
    engine = connect(one, two)
    trainer.publish(engine, "ada", 1)
    trainer.models["ada"] = trainer.adapted(3, r=12)
    with pytest.raises(EngineError, match=r"policy 'ada' at version 2: .*rank 12 is greater than max_lora_rank 8"):
        trainer.publish(engine, "ada", 2)
    assert engine.versions()["ada"] == 1
    assert one.adapters.keys() == two.adapters.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda name, tensor: (name.replace("q_proj", "query"), tensor),
            "'base_model.*query.*has no place in the model",
        ),
        (lambda name, tensor: (name, tensor[:, :-1] if "A" in name else tensor), r"has shape \(8, \d+\) for a weight"),
        (lambda name, tensor: (name, torch.cat([tensor] * 2) if "A" in name else tensor), "has rank 16, .* says .8."),
    ],
    ids=["target", "size", "rank"],
)
def test_an_adapter_of_another_base_or_rank_is_refused_by_name(stub, connect, trainer, change, message):
    one = stub()
    engine = connect(one)
    tensors, config = trainer.adapter("ada")
    with pytest.raises(EngineError, match=message):
        engine.load_adapter("ada", dict(change(*item) for item in tensors.items()), config, 1)
    halves = {name: tensor for name, tensor in tensors.items() if "q_proj.lora_A" not in name}
    with pytest.raises(EngineError, match="is not whole: 2 modules lack `lora_A` or `lora_B`"):
        engine.load_adapter("ada", halves, config, 1)
    assert one.seen_adapters == []


def test_weights_wait_until_no_reply_is_under_way(stub, connect, trainer, make_requests):
    one = stub()
    engine = connect(one)
    one.hanging.set()
    engine.submit(make_requests(1)[0])
    with pytest.raises(EngineError, match="1 replies are under way; load weights between rollouts"):
        trainer.publish(engine, "ada", 1)


def test_only_the_base_that_the_servers_have_is_accepted(stub, connect, trainer):
    engine = connect(stub())
    weights = {name: tensor.clone() for name, tensor in trainer.base.state_dict().items()}
    engine.load_base(weights.items(), 3)
    assert set(engine.versions().values()) == {3}
    weights["model.norm.weight"] += 0.5
    with pytest.raises(EngineError, match=r"differ from those at .*first in 'model.norm.weight'.*start the servers on"):
        engine.load_base(weights.items(), 4)


def test_folders_go_with_the_process_that_wrote_them(tmp_path, trainer):
    code = (
        "import torch; from m1lite.engines.adapter_folders import AdapterFolders; "
        "own, given = AdapterFolders(), AdapterFolders('given'); "
        "paths = [folders.write('ada@1', {'a': torch.ones(2)}, {'r': 1}) for folders in (own, given)]; "
        "assert all(path.is_dir() for path in paths); print(own.directory)"
    )
    (tmp_path / "given" / "of another").mkdir(parents=True)
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not Path(printed.stdout.strip()).exists()
    assert [path.name for path in (tmp_path / "given").iterdir()] == ["of another"]


# ---- the start ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": False}, "was started without LoRA; add `--enable-lora"),
        ({"updating": False}, "takes no adapters while it runs; .* VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        ({"scale_out": False}, "start it with `--enable-scale-out`"),
        ({"processed": False}, r"\(-3.0000 at 1, -3.0000 at 2\); start it with `--logprobs-mode processed_logprobs`"),
        ({"max_model_len": 128}, "has a context of 128 tokens, 256 are needed; start it with `--max-model-len 256`"),
        ({"model": "Qwen/Qwen3-8B"}, r"No rollout server serves the base .*\['Qwen/Qwen3-8B'\]}; start one with"),
        ({"sick": True}, r"No healthy rollout server within 2 s \(`start_seconds`\): .*status 503"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_with_the_remedy(stub, connect, options, message):
    with pytest.raises(EngineError, match=message):
        connect(stub(**options), start_seconds=2.0 if "sick" in options else 10.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "0.31.0"}, r"different versions: .* runs vLLM 0.32.0, .* runs 0.31.0"),
        ({"likeliest": -2.0}, r"different weights: .*-3.0000 on .* and -2.0000 on"),
    ],
)
def test_replicas_that_differ_are_refused(stub, connect, options, message):
    with pytest.raises(EngineError, match=message):
        connect(stub(), stub(**options))


def test_servers_of_other_bases_are_passed_over(stub, connect, make_requests):
    own, other = stub(), stub(model="another")
    engine = connect(other, own)
    engine.generate(make_requests(4))
    assert len(own.asked) > 0
    assert other.asked == []


def test_bad_addresses_are_named(connect, monkeypatch):
    with pytest.raises(ValueError, match="`urls` is empty"):
        connect()
    with pytest.raises(ValueError, match=r"'127\.0\.0\.1:8000' of a server must be like"):
        connect("127.0.0.1:8000")
    with pytest.raises(ValueError, match=r"`adapter_directory` is not given and \['http://far:8000'\] are not on this"):
        connect("http://far:8000")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValueError, match="'NO_SUCH_KEY', which is not set"):
        connect("http://127.0.0.1:8000", api_key_variable="NO_SUCH_KEY")


# ---- a real server --------------------------------------------------------------------------------


@pytest.mark.slow
def test_many_versions_on_few_slots_stay_right(server_engine, trainer, make_requests):
    """More versions than the server keeps in memory: it reads an adapter that it has dropped again from its folder."""
    for version in range(3, 9):
        for seed, policy in enumerate(POLICIES[:2]):
            trainer.models[policy] = trainer.adapted(10 * version + seed)
            trainer.publish(server_engine, policy, version)
    requests = make_requests(16)
    replies = server_engine.generate(requests)
    assert {reply.policy_version for reply in replies} == {0, 8}
    assert trainer.gap(requests, replies) < TOLERANCE


@pytest.mark.slow
def test_a_real_server_refuses_a_rank_beyond_its_own(server_engine, trainer, make_requests):
    trainer.models["ada"] = trainer.adapted(3, r=32)
    with pytest.raises(EngineError, match=r"policy 'ada' at version 9: .*LoRA rank 32 is greater than"):
        trainer.publish(server_engine, "ada", 9)
    trainer.models["ada"] = trainer.adapted(1)
    requests = make_requests(8)
    assert trainer.gap(requests, server_engine.generate(requests)) < TOLERANCE


@pytest.mark.slow
def test_a_real_server_forgets_dropped_requests(server_engine, make_requests):
    requests = [replace(request, prompt_ids=[7] * 8) for request in make_requests(64, max_new_tokens=240)]
    before = server_engine.generate(requests[:4])
    for request in requests:
        server_engine.submit(request)
    server_engine.abort()
    assert server_engine.generate(requests[:4]) == before
