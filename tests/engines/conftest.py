"""One tiny base, a trainer that owns it, and one engine of each kind for all tests of this folder."""

import copy
import ctypes
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

from m1lite.engines.base import Request, Sampling
from m1lite.modules.tiny import load_tokenizer, save_tiny_base, tiny_base

POLICIES = ("ada", "bea", "cyd", "dov")
"""Only the first two ever carry adapters."""
MAX_MODEL_LEN = 256
TOKEN_BUDGET = 512
EOS = 5


class Trainer:
    """The reference: transformers and PEFT, one row at a time, without cache, padding or mixed batches."""

    def __init__(self, base, rank=8):
        self.base = base
        self.rank = rank
        self.models = {}
        for number, policy in enumerate(POLICIES[:2]):
            self.models[policy] = self.adapted(number + 1)

    def adapted(self, seed, *, base=None, **options):
        config = {"r": self.rank, "lora_alpha": 2 * self.rank, "target_modules": "all-linear"} | options
        model = get_peft_model(copy.deepcopy(base or self.base), LoraConfig(**config)).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(0.0, 0.1, generator=generator)
        return model

    def publish(self, engine, policy, version):
        engine.load_adapter(policy, *self.adapter(policy), version)

    def adapter(self, policy):
        return self.adapter_of(self.models[policy])

    @staticmethod
    def adapter_of(model):
        """PEFT tensors and config, as a trainer sends them."""
        return get_peft_model_state_dict(model), model.peft_config["default"].to_dict()

    def logprobs(self, request, token_ids):
        model = self.models.get(request.policy, self.base)
        prompt = list(request.prompt_ids)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + token_ids])).logits[0, len(prompt) - 1 : -1]
        scaled = logits.double() / (request.sampling.temperature or 1.0)
        return [(row - row.logsumexp(-1))[token].item() for row, token in zip(scaled, token_ids, strict=True)]

    def gap(self, requests, generations):
        """Largest distance between an engine's log-probs and ours."""
        return max(
            abs(theirs - ours)
            for request, generation in zip(requests, generations, strict=True)
            for theirs, ours in zip(generation.logprobs, self.logprobs(request, generation.token_ids), strict=True)
        )


@pytest.fixture(scope="session")
def make_requests():
    return requests_of


def requests_of(count, *, policies=POLICIES, length=61, temperature=1.0, max_new_tokens=6, seed=0):
    """Requests of about ``length`` random words each, with seeds of their own."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Request(
            policy=policies[number % len(policies)],
            prompt_ids=torch.randint(6, 130, (length - number % 7,), generator=generator).tolist(),
            sampling=Sampling(temperature=temperature, max_new_tokens=max_new_tokens),
            seed=1000 * seed + number,
        )
        for number in range(count)
    ]


@pytest.fixture(scope="session")
def base_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny") / "base"
    save_tiny_base(directory, seed=11)
    assert load_tokenizer(directory).eos_token_id == EOS
    return directory


@pytest.fixture(scope="session")
def base_model(base_directory):
    return tiny_base(seed=11)[0]


@pytest.fixture
def trainer(base_model):
    return Trainer(base_model)


@pytest.fixture(scope="session")
def shared_hf(base_model):
    from m1lite.engines.hf import HfEngine

    engine = HfEngine(base_model, POLICIES, max_model_len=MAX_MODEL_LEN, max_batch_tokens=4096)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def shared_vllm(base_directory):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    from m1lite.engines.vllm import VllmEngine

    engine = VllmEngine(
        base_directory,
        POLICIES,
        max_adapters=2,
        max_lora_rank=16,
        max_model_len=MAX_MODEL_LEN,
        kv_cache_bytes=64 << 20,
        options={"max_num_batched_tokens": TOKEN_BUDGET},
    )
    yield engine
    engine.close()


SERVER_OPTIONS = {
    "--dtype": "float32",
    "--max-model-len": MAX_MODEL_LEN,
    "--max-num-batched-tokens": TOKEN_BUDGET,
    "--kv-cache-memory-bytes": 64 << 20,
    "--block-size": 32,
    "--logprobs-mode": "processed_logprobs",
    "--max-loras": 5,
    "--max-lora-rank": 16,
    "--generation-config": "vllm",
    "--distributed-executor-backend": "uni",
    "--uvicorn-log-level": "warning",
}
SERVER_FLAGS = ("--enforce-eager", "--no-enable-chunked-prefill", "--tokens-only", "--enable-lora")


@contextmanager
def vllm_server(model, log):
    """Run vLLM's own server in a session of its own and give its address once it is healthy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [str(part) for option in SERVER_OPTIONS.items() for part in option]
    # What `vllm serve` runs; that command looks for a distribution named vllm, which the CPU build is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", *SERVER_FLAGS, *options],
        env={**os.environ, **threads, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=ends_with_parent,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        due = time.monotonic() + 280
        while not healthy(url):
            assert process.poll() is None, f"the server ended with {process.returncode}, see {log.name}"
            assert time.monotonic() < due, f"the server did not start, see {log.name}"
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):  # all of its processes have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ends_with_parent():
    """Have the kernel end this process with its parent: a test run that is killed would leave its server behind."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def healthy(url):
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def server_url(base_directory, tmp_path_factory):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    with (
        (tmp_path_factory.mktemp("server") / "log.txt").open("w") as log,
        vllm_server(base_directory, log) as url,
    ):
        yield url


@pytest.fixture(scope="session")
def shared_server(server_url, base_directory):
    from m1lite.engines.server import ServerEngine

    engine = ServerEngine(base_directory, POLICIES, urls=[server_url], max_model_len=MAX_MODEL_LEN)
    yield engine
    engine.close()


def reset(engine, trainer):
    """Bring a shared engine to the same state before each test: base under version 0, two adapters."""
    engine.load_base(trainer.base.state_dict().items(), 0)
    trainer.publish(engine, "ada", 1)
    trainer.publish(engine, "bea", 2)
    return engine


@pytest.fixture
def hf_engine(shared_hf, trainer):
    return reset(shared_hf, trainer)


@pytest.fixture
def vllm_engine(shared_vllm, trainer):
    return reset(shared_vllm, trainer)


@pytest.fixture
def server_engine(shared_server, trainer):
    return reset(shared_server, trainer)


@pytest.fixture
def scripted_engine(trainer):
    from m1lite.engines.scripted import ScriptedEngine

    def reply(request):
        generator = torch.Generator().manual_seed(request.seed % 2**63)
        return torch.randint(EOS, 30, (100,), generator=generator).tolist()

    engine = ScriptedEngine(reply, policies=POLICIES, eos_token_ids=[EOS], max_model_len=MAX_MODEL_LEN)
    return reset(engine, trainer)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("vllm", "server")]


@pytest.fixture(params=["scripted", "hf", *SLOW])
def engine(request):
    """Each engine in turn."""
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture(params=["hf", *SLOW])
def real_engine(request):
    """Each engine with a model in turn."""
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture(params=["hf", SLOW[0]])
def local_engine(request):
    """Each engine with a model in this process, whose base can be replaced, in turn."""
    return request.getfixturevalue(f"{request.param}_engine")
