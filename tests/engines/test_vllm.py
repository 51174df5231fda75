"""vLLM: the traps that would give wrong numbers without an error, planted; and its limits.

The tests that go around a remedy put the engine right again through the fixture that resets it.
"""

import contextlib
import os
from dataclasses import replace

import pytest
import torch

from m1lite.engines import _vllm_compat as compat
from m1lite.engines.base import EngineError
from m1lite.engines.vllm import VllmEngine, end_ids, lora_rank_at_least

pytestmark = pytest.mark.slow
WRONG, RIGHT = 0.3, 1e-4


def moved(model, seed=4):
    generator = torch.Generator().manual_seed(seed)
    new = {
        name: tensor + 0.03 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.state_dict().items()
    }
    new["lm_head.weight"] = new["model.embed_tokens.weight"]
    return new


@pytest.fixture
def synced(trainer, base_model, vllm_engine):
    """A trainer whose plain base has moved away from the engine's."""
    import copy

    trainer.models = {}
    trainer.base = copy.deepcopy(base_model)
    trainer.base.load_state_dict(moved(base_model))
    return trainer


@pytest.mark.parametrize(
    "keep",
    [
        pytest.param(lambda name: name != "lm_head.weight", id="tied head left out"),
        pytest.param(lambda name: "k_proj" not in name and "v_proj" not in name, id="a third of a fused matrix"),
    ],
)
def test_trap_partial_base(vllm_engine, synced, make_requests, keep):
    requests = make_requests(16, policies=["cyd"])
    whole = synced.base.state_dict()
    compat.reload_base(vllm_engine._llm, {name: whole[name] for name in whole if keep(name)}.items())
    assert synced.gap(requests, vllm_engine.generate(requests)) > WRONG  # what `load_base` refuses
    vllm_engine.load_base(whole.items(), 1)
    assert synced.gap(requests, vllm_engine.generate(requests)) < RIGHT


def test_trap_cached_prefix_after_new_base(vllm_engine, synced, make_requests, monkeypatch):
    requests = make_requests(16, policies=["cyd"])
    vllm_engine.generate(requests)
    with monkeypatch.context() as patch:
        patch.setattr(compat, "reset_caches", lambda llm: None)
        vllm_engine.load_base(synced.base.state_dict().items(), 1)
        assert synced.gap(requests, vllm_engine.generate(requests)) > WRONG
    vllm_engine.load_base(synced.base.state_dict().items(), 2)
    assert synced.gap(requests, vllm_engine.generate(requests)) < RIGHT


def test_trap_cached_prefix_after_new_adapter(vllm_engine, trainer, make_requests):
    from vllm.lora.request import LoRARequest

    requests = make_requests(16, policies=["ada"])
    vllm_engine.generate(requests)
    trainer.models["ada"] = trainer.adapted(33)
    tensors, config = trainer.adapter("ada")
    path = vllm_engine._adapters["ada"].lora_path
    compat.ADAPTERS[path] = tensors, config
    vllm_engine._llm.llm_engine.add_lora(LoRARequest("ada", 1, path, load_inplace=True))
    assert trainer.gap(requests, vllm_engine.generate(requests)) > WRONG  # an old path finds old keys and values
    vllm_engine.load_adapter("ada", tensors, config, 1)  # a path of its own, even under the version it had
    assert trainer.gap(requests, vllm_engine.generate(requests)) < RIGHT


def test_trap_scale_multiplied_in_place(vllm_engine, trainer, make_requests):
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    tensors, config = trainer.adapter("ada")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    model = LoRAModel.from_lora_tensors(1, tensors, PEFTHelper.from_dict(config), device="cpu", dtype=torch.float32)
    for lora in model.loras.values():
        lora.optimize()
    assert not all(torch.equal(tensors[name], before[name]) for name in tensors)  # without a clone
    trainer.publish(vllm_engine, "ada", 3)
    kept, _ = compat.ADAPTERS[vllm_engine._adapters["ada"].lora_path]
    for _ in range(3):  # each of them has vLLM read the adapter again
        vllm_engine.load_base(trainer.base.state_dict().items(), 0)
        vllm_engine.generate(make_requests(2))
    assert all(torch.equal(kept[name], before[name]) for name in kept)


def test_trap_base_rows_take_the_last_slot(vllm_engine, trainer):
    """The original product reads slot -1, which holds somebody's adapter once all slots are taken."""
    from vllm.lora.ops.torch_ops import bgmv_shrink
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    stack, out = torch.ones(2, 1, 4, 8), torch.zeros(1, 4)
    bgmv_shrink(torch.ones(1, 8), stack, out, torch.tensor([-1]))
    assert out.abs().max() == 8
    assert PunicaWrapperCPU.add_lora_linear.__module__ == compat.__name__
    config = vllm_engine._llm.llm_engine.vllm_config.lora_config
    assert (config.max_loras, config.max_lora_rank) == (3, 16)  # one slot more than `max_adapters`


def test_trap_raw_logprobs(vllm_engine, trainer, make_requests):
    """Raw log-probs would not be those of the sampled distribution once the temperature is not 1."""
    requests = make_requests(16, temperature=0.5)
    replies = vllm_engine.generate(requests)
    assert trainer.gap(requests, replies) < RIGHT
    assert trainer.gap(make_requests(16, temperature=1.0), replies) > WRONG
    assert vllm_engine._llm.llm_engine.vllm_config.model_config.logprobs_mode == "processed_logprobs"


def test_trap_chunked_prompts_with_seeds(base_directory, make_requests):
    """vLLM's own default cuts the prompt that outgrows the batch and then cannot rewind a CPU generator."""
    from vllm import SamplingParams
    from vllm.inputs import tokens_input

    llm = compat.build(
        {
            "model": str(base_directory),
            "dtype": "float32",
            "max_model_len": 256,
            "max_num_batched_tokens": 256,
            "enable_chunked_prefill": True,
            "kv_cache_memory_bytes": 16 << 20,
            "skip_tokenizer_init": True,
            "enforce_eager": True,
        }
    )
    try:
        params = SamplingParams(seed=1, max_tokens=4, detokenize=False)
        for number, request in enumerate(make_requests(16)):
            llm.llm_engine.add_request(str(number), tokens_input(list(request.prompt_ids)), params)
        with pytest.raises(RuntimeError, match="CPU Generator does not use offset"):
            _ = [llm.llm_engine.step() for _ in range(20)]
        compat.recover(llm)
        assert not llm.llm_engine.has_unfinished_requests()
    finally:
        compat.shut_down(llm)


def test_trap_global_generator(vllm_engine, make_requests, monkeypatch):
    before = torch.get_rng_state()
    with monkeypatch.context() as patch:
        patch.setattr(compat, "generator_kept", contextlib.nullcontext)
        vllm_engine.generate(make_requests(4))
    assert not torch.equal(torch.get_rng_state(), before)  # without the remedy, even though every request has a seed
    before = torch.get_rng_state()
    vllm_engine.generate(make_requests(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_log_prob_ranks_are_not_compiled(vllm_engine, make_requests):
    from vllm.v1.sample import sampler

    vllm_engine.generate(make_requests(2))
    assert sampler.batched_count_greater_than is compat.count_at_least
    logprobs = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.2, 0.6]])
    assert compat.count_at_least(logprobs, torch.tensor([[0.4], [0.2]])).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("fault", "raised", "message"),
    [
        (RuntimeError("disk on fire"), EngineError, r"vLLM failed in a step of \d+ replies: .*disk on fire"),
        (KeyboardInterrupt("by hand"), KeyboardInterrupt, "by hand"),
    ],
)
def test_a_failed_step_leaves_an_engine_that_works(vllm_engine, make_requests, monkeypatch, fault, raised, message):
    requests = make_requests(40)
    before = vllm_engine.generate(requests)
    inner = vllm_engine._llm.llm_engine
    step, calls = inner.step, []

    def broken():
        calls.append(1)
        if len(calls) == 3:
            raise fault
        return step()

    with monkeypatch.context() as patch:
        patch.setattr(inner, "step", broken)
        with pytest.raises(raised, match=message):
            vllm_engine.generate(requests)
    assert not inner.has_unfinished_requests()
    assert vllm_engine.generate(requests) == before


def test_a_refused_prompt_is_never_submitted(vllm_engine, make_requests, monkeypatch):
    added = []
    monkeypatch.setattr(vllm_engine._llm.llm_engine, "add_request", lambda *args, **kwargs: added.append(args))
    with pytest.raises(EngineError, match="has 300 tokens and leaves no room for a reply in a context of 256"):
        vllm_engine.submit(replace(make_requests(1)[0], prompt_ids=[7] * 300))
    assert added == []
    assert vllm_engine.num_unfinished == 0


def test_what_vllm_refuses_at_submission_names_policy_and_prompt_and_the_others_go_on(
    vllm_engine, make_requests, monkeypatch
):
    first, second, third = make_requests(3)
    before = vllm_engine.generate([first, third])
    inner = vllm_engine._llm.llm_engine
    tickets = [vllm_engine.submit(first)]
    vllm_engine.step()
    with monkeypatch.context() as patch:  # half of vLLM has taken the request when the other half fails
        patch.setattr(inner.engine_core, "add_request", lambda request: 1 / 0)
        with pytest.raises(EngineError, match="refused a prompt of policy 'bea' with 60 tokens: division by zero"):
            vllm_engine.submit(second)
    tickets.append(vllm_engine.submit(third))
    drawn = {}
    while vllm_engine.num_unfinished:
        drawn.update(vllm_engine.step())
    assert [drawn[ticket] for ticket in tickets] == before
    assert not inner.has_unfinished_requests()


def test_weights_do_not_change_under_a_reply(vllm_engine, trainer, make_requests):
    vllm_engine.submit(make_requests(1)[0])
    vllm_engine.step()
    for load in (
        lambda: trainer.publish(vllm_engine, "ada", 9),
        lambda: vllm_engine.load_base(trainer.base.state_dict().items(), 9),
    ):
        with pytest.raises(EngineError, match="1 replies are under way, whose first tokens had the old weights"):
            load()
    vllm_engine.abort()
    assert vllm_engine.versions()["ada"] == 1


def test_adapters_beyond_the_slots_and_ranks_are_refused(vllm_engine, trainer):
    with pytest.raises(EngineError, match=r"policy 'cyd': `max_adapters` is 2, taken by \['ada', 'bea'\]"):
        vllm_engine.load_adapter("cyd", *trainer.adapter("ada"), 1)
    wide = trainer.adapter_of(trainer.adapted(1, r=32))
    with pytest.raises(EngineError, match="'ada' has rank 32, `max_lora_rank` is 16"):
        vllm_engine.load_adapter("ada", *wide, 1)
    tensors, config = trainer.adapter("ada")
    with pytest.raises(EngineError, match=r"adapter of policy 'ada': .*DoRA"):
        vllm_engine.load_adapter("ada", tensors, config | {"use_dora": True}, 1)
    assert vllm_engine.versions() == {"ada": 1, "bea": 2, "cyd": 0, "dov": 0}
    assert len([path for path in compat.ADAPTERS if str(id(vllm_engine)) in path]) == 2


def test_a_model_class_is_imported_here_and_not_in_a_second_python(tmp_path, monkeypatch):
    from vllm.model_executor.models import registry

    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))  # a machine that has not met the model
    monkeypatch.setattr(registry, "_run_in_subprocess", lambda _: pytest.fail("started a second Python"))
    compat._register(["Qwen2ForCausalLM", "NoSuchModel"])
    registry.ModelRegistry.models["Qwen2ForCausalLM"].inspect_model_cls()


def test_two_engines_in_one_process_do_not_disturb_each_other(vllm_engine, trainer, tmp_path, make_requests):
    from m1lite.modules.tiny import save_tiny_base, tiny_base

    save_tiny_base(tmp_path, "qwen2", seed=3)
    other = type(trainer)(tiny_base("qwen2", seed=3)[0])
    requests = make_requests(16)
    before = vllm_engine.generate(requests)
    second = VllmEngine(tmp_path, ["ada", "bea", "cyd", "dov"], max_model_len=256, kv_cache_bytes=16 << 20)
    try:
        other.publish(second, "ada", 1)
        other.publish(second, "bea", 1)
        other.models["dov"] = other.adapted(5)
        other.publish(second, "dov", 1)
        assert other.gap(requests, second.generate(requests)) < RIGHT
        assert trainer.gap(requests, vllm_engine.generate(requests)) < RIGHT
    finally:
        second.close()
        second.close()  # closing twice is closing once
    with pytest.raises(EngineError, match=r"No policy 'ada' in this engine; there are \[\]"):
        second.generate(requests)
    assert vllm_engine.generate(requests) == before
    trainer.publish(vllm_engine, "ada", 3)


def test_a_policy_without_lora_is_the_base(base_directory, trainer, make_requests):
    engine = VllmEngine(
        base_directory, ["solo"], max_adapters=0, max_model_len=256, kv_cache_bytes=16 << 20, eos_token_ids=[40, 41]
    )
    try:
        requests = make_requests(30, policies=["solo"], max_new_tokens=40)
        replies = engine.generate(requests)
        assert trainer.gap(requests, replies) < RIGHT
        assert {reply.token_ids[-1] for reply in replies if reply.finish_reason == "stop"} == {40, 41}
        assert {reply.policy_version for reply in replies} == {0}
        with pytest.raises(EngineError, match=r"policy 'solo': `max_adapters` is 0, taken by \[\]"):
            engine.load_adapter("solo", *trainer.adapter("ada"), 1)
    finally:
        engine.close()


def test_options_that_the_engine_sets_itself_are_refused(base_directory):
    with pytest.raises(ValueError, match=r"`options` \['enable_chunked_prefill', 'logprobs_mode'\] are set by"):
        VllmEngine(base_directory, ["ada"], options={"logprobs_mode": "raw_logprobs", "enable_chunked_prefill": True})
    with pytest.raises(ValueError, match="`max_num_batched_tokens` 100 is below `max_model_len` 1024"):
        VllmEngine(base_directory, ["ada"], options={"max_num_batched_tokens": 100})
    with pytest.raises(ValueError, match=r"`max_lora_rank` 513 is not in \[1, 512\]"):
        lora_rank_at_least(513)


def test_what_vllm_refuses_at_the_start_is_an_engine_error(base_directory, vllm_engine, make_requests):
    with pytest.raises(EngineError, match=r"vLLM did not start with .*No available memory for the cache"):
        VllmEngine(base_directory, ["ada"], max_model_len=1024, kv_cache_bytes=4096)
    assert len(vllm_engine.generate(make_requests(4))) == 4


def test_end_ids_come_from_the_generation_config_or_the_config(base_directory, tmp_path):
    import shutil

    assert end_ids(base_directory, {}) == [5]
    shutil.copytree(base_directory, tmp_path / "bare")
    (tmp_path / "bare" / "generation_config.json").unlink()
    assert end_ids(tmp_path / "bare", {}) == [5]


def test_the_environment_is_put_back(vllm_engine):
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "LD_PRELOAD" not in os.environ or "libgomp" not in os.environ["LD_PRELOAD"]


def test_a_sleeping_engine_wakes_once_for_the_first_request_or_weights(vllm_engine, make_requests, monkeypatch):
    """The platform's own sleep needs a GPU; here it is only told."""
    told = []
    monkeypatch.setattr(vllm_engine._llm, "sleep", lambda level: told.append(f"sleep {level}"))
    monkeypatch.setattr(vllm_engine._llm, "wake_up", lambda: told.append("wake up"))
    vllm_engine.sleep()
    assert told == [], "it was not built to sleep"
    monkeypatch.setattr(vllm_engine, "_can_sleep", True)
    requests = make_requests(2, policies=["cyd"])
    vllm_engine.submit(requests[0])
    vllm_engine.sleep()
    assert told == [], "a reply is under way"
    vllm_engine.abort()
    vllm_engine.sleep()
    vllm_engine.sleep()
    assert told == ["sleep 1"]
    assert len(vllm_engine.generate(requests)) == 2
    assert told == ["sleep 1", "wake up"]


def test_sleep_where_the_platform_has_none_is_refused(base_directory):
    if not compat.is_cpu():
        pytest.skip("GPUs can sleep")
    with pytest.raises(EngineError, match="Sleep mode is not supported on current platform"):
        VllmEngine(base_directory, ["cyd"], options={"enable_sleep_mode": True})
