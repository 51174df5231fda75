"""What every engine promises; the same tests for all of them."""

from dataclasses import replace

import pytest
import torch

from m1lite.engines.base import EngineError, Sampling

TOLERANCE = 1e-4
EOS, MAX_MODEL_LEN, TOKEN_BUDGET = 5, 256, 512  # of the engines in conftest.py


def test_replies_belong_to_their_requests_in_any_order(engine, make_requests):
    requests = make_requests(40)
    forward = engine.generate(requests)
    backward = engine.generate(requests[::-1])[::-1]
    assert [reply.token_ids for reply in backward] == [reply.token_ids for reply in forward]
    assert len({tuple(reply.token_ids) for reply in forward}) > 20
    assert engine.generate([]) == []


def test_seeds_decide_and_not_the_batch(engine, make_requests):
    requests = make_requests(24)
    together = engine.generate(requests)
    alone = [engine.generate([request])[0] for request in requests[:6]]
    halves = engine.generate(requests[:12]) + engine.generate(requests[12:])
    assert [reply.token_ids for reply in alone] == [reply.token_ids for reply in together[:6]]
    assert [reply.token_ids for reply in halves] == [reply.token_ids for reply in together]
    reseeded = engine.generate([replace(request, seed=request.seed + 500) for request in requests])
    assert [reply.token_ids for reply in reseeded] != [reply.token_ids for reply in together]


def test_requests_that_come_later_join_those_under_way(engine, make_requests):
    """Submitted a few at a time between steps, all get the replies that one batch of them gets."""
    requests = make_requests(24)
    together = engine.generate(requests)
    waiting, tickets, drawn = list(enumerate(requests)), {}, {}
    while waiting or engine.num_unfinished:
        for place, request in waiting[:5]:
            tickets[place] = engine.submit(request)
        del waiting[:5]
        drawn.update(engine.step())
        assert engine.num_unfinished == len(tickets) - len(drawn)
    assert [drawn[tickets[place]].token_ids for place in range(24)] == [reply.token_ids for reply in together]
    assert engine.step() == []


def test_dropped_requests_leave_no_trace(engine, make_requests):
    requests = make_requests(12)
    before = engine.generate(requests)
    lost = {engine.submit(request) for request in requests}
    engine.abort()
    assert engine.num_unfinished == 0
    ticket = engine.submit(requests[3])
    assert ticket not in lost
    drawn = {}
    while engine.num_unfinished:
        drawn.update(engine.step())
    assert drawn == {ticket: before[3]}
    assert engine.generate(requests) == before


@pytest.mark.parametrize("seed", [-1, -(2**70), 2**64 + 3])
def test_any_whole_number_is_a_seed(engine, seed, make_requests):
    requests = [replace(request, seed=seed) for request in make_requests(4)]
    assert engine.generate(requests) == engine.generate(requests)


def test_replies_end_at_the_end_of_turn_or_at_the_limit(engine, make_requests):
    replies = engine.generate(make_requests(60, length=20, max_new_tokens=40))
    reasons = {reply.finish_reason for reply in replies}
    assert reasons == {"stop", "length"}
    for reply in replies:
        assert len(reply.logprobs) == len(reply.token_ids) <= 40
        assert EOS not in reply.token_ids[:-1]
        assert (reply.token_ids[-1] == EOS) == (reply.finish_reason == "stop")
        assert reply.finish_reason == "stop" or len(reply.token_ids) == 40


def test_a_reply_stops_at_the_end_of_the_context(engine, make_requests):
    requests = [
        replace(request, prompt_ids=[7] * (MAX_MODEL_LEN - 6), seed=number)
        for number, request in enumerate(make_requests(8, max_new_tokens=64))
    ]
    cut = [reply for reply in engine.generate(requests) if reply.finish_reason == "length"]
    assert cut
    assert all(len(reply.token_ids) == 6 for reply in cut)


def test_versions_are_those_of_the_weights(engine, make_requests):
    assert engine.versions() == {"ada": 1, "bea": 2, "cyd": 0, "dov": 0}
    assert [reply.policy_version for reply in engine.generate(make_requests(4))] == [1, 2, 0, 0]


def test_more_prompt_tokens_than_one_batch_holds(engine, make_requests):
    requests = make_requests(128)
    assert sum(len(request.prompt_ids) for request in requests) > 8 * TOKEN_BUDGET
    replies = engine.generate(requests)
    assert [reply.token_ids for reply in engine.generate(requests[50:60])] == [r.token_ids for r in replies[50:60]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "eve"}, r"No policy 'eve' in this engine; there are \['ada', 'bea', 'cyd', 'dov'\]"),
        ({"prompt_ids": [7] * MAX_MODEL_LEN}, "'ada' has 256 tokens .* in a context of 256; shorten it"),
        ({"prompt_ids": []}, "'ada' got an empty prompt"),
        ({"sampling": Sampling(temperature=0.001)}, r"`temperature` 0.001; allowed are 0 \(greedy\) and \[0.01, 2.0\]"),
        ({"sampling": Sampling(temperature=float("nan"))}, "`temperature` nan"),
        ({"sampling": Sampling(max_new_tokens=0)}, "`max_new_tokens` 0; at least 1"),
    ],
)
def test_bad_requests_are_refused_by_name_and_value_and_leave_no_trace(engine, change, message, make_requests):
    good = make_requests(4)
    before = engine.generate(good)
    with pytest.raises(EngineError, match=message):
        engine.generate([*good, replace(good[0], **change)])
    assert engine.generate(good) == before


def test_ids_of_another_vocabulary_are_refused(real_engine, make_requests):
    request = replace(make_requests(1)[0], prompt_ids=[7, 5000, 8])
    with pytest.raises(EngineError, match=r"token id 5000, outside \[0, 135\)"):
        real_engine.generate([request])


def test_weights_for_an_unknown_policy_are_refused(engine, trainer):
    with pytest.raises(EngineError, match=r"No policy 'eve' in this engine to load weights for; there are \['ada'"):
        engine.load_adapter("eve", *trainer.adapter("ada"), 1)
    assert engine.versions()["ada"] == 1


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
def test_logprobs_are_those_of_the_trainer_in_a_mixed_batch(real_engine, trainer, temperature, make_requests):
    requests = make_requests(32, temperature=temperature)
    replies = real_engine.generate(requests)
    assert trainer.gap(requests, replies) < TOLERANCE
    # The adapters matter: the same tokens are far less likely under the plain base.
    trainer.models = {}
    assert trainer.gap(requests, replies) > 0.5


def test_greedy_takes_the_most_likely_token_with_unscaled_logprobs(real_engine, trainer, make_requests):
    greedy = make_requests(12, temperature=0.0)
    mixed = greedy + make_requests(12, temperature=0.7, seed=3)
    replies = real_engine.generate(mixed)
    assert trainer.gap(mixed, replies) < TOLERANCE
    for request, reply in zip(greedy, replies, strict=False):
        context = list(request.prompt_ids)
        for token in reply.token_ids:
            with torch.no_grad():
                logits = trainer.models.get(request.policy, trainer.base)(torch.tensor([context])).logits[0, -1]
            assert logits[token] >= logits.max() - 1e-4
            context.append(token)


def test_a_conversation_that_grows_keeps_its_logprobs(real_engine, trainer, make_requests):
    requests = make_requests(16, length=80)
    for turn in range(3):
        replies = real_engine.generate(requests)
        assert trainer.gap(requests, replies) < TOLERANCE
        requests = [
            replace(request, prompt_ids=[*request.prompt_ids, *reply.token_ids, 4, 20 + turn, 30, 5, 4])
            for request, reply in zip(requests, replies, strict=True)
        ]


def test_sampling_follows_the_distribution(real_engine, trainer, make_requests):
    """2,000 first tokens of one prompt against the exact probabilities: chi-square over the 20 likeliest."""
    request = make_requests(1, policies=["ada"], length=40, max_new_tokens=1)[0]
    replies = real_engine.generate([replace(request, seed=seed) for seed in range(2000)])
    likely = {}
    for reply in replies:
        likely.setdefault(reply.token_ids[0], []).append(reply.logprobs[0])
    top = sorted(likely, key=lambda token: -likely[token][0])[:20]
    expected = [2000 * torch.tensor(likely[token][0]).exp().item() for token in top]
    statistic = sum((len(likely[t]) - e) ** 2 / e for t, e in zip(top, expected, strict=True))
    assert statistic < 45  # 20 degrees of freedom: 0.1 % lie above


def test_a_new_adapter_is_served_as_the_trainer_has_it(real_engine, trainer, make_requests):
    requests = make_requests(32)
    before = real_engine.generate(requests)
    with torch.no_grad():
        for name, parameter in trainer.models["ada"].named_parameters():
            if "lora_" in name:
                parameter.mul_(1.5)
    for version in (7, 8):
        tensors, config = trainer.adapter("ada")
        kept = {name: tensor.clone() for name, tensor in tensors.items()}
        real_engine.load_adapter("ada", tensors, config, version)
        assert all(torch.equal(tensors[name], kept[name]) for name in kept)
        after = real_engine.generate(requests)
        assert trainer.gap(requests, after) < TOLERANCE
        assert [reply.policy_version for reply in after[:4]] == [version, 2, 0, 0]
    changed = [old.token_ids != new.token_ids for old, new in zip(before, after, strict=True)]
    assert any(changed[0::4])
    assert not any(changed[1::4] + changed[2::4] + changed[3::4])


def test_the_engine_keeps_its_own_copy_of_an_adapter(real_engine, trainer, make_requests):
    tensors, config = trainer.adapter("ada")
    real_engine.load_adapter("ada", tensors, config, 3)
    requests = make_requests(8, policies=["ada"])
    before = real_engine.generate(requests)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.zero_()
    real_engine.load_base(trainer.base.state_dict().items(), 1)  # has vLLM read the adapter again
    assert real_engine.generate(requests) == before


def test_an_adapter_may_change_its_shape(real_engine, trainer, make_requests):
    trainer.models["bea"] = trainer.adapted(
        9, r=16, lora_alpha=8, target_modules=["q_proj", "down_proj"], use_rslora=True
    )
    trainer.publish(real_engine, "bea", 3)
    requests = make_requests(16)
    assert trainer.gap(requests, real_engine.generate(requests)) < TOLERANCE
    assert real_engine.versions()["bea"] == 3


def test_an_adapter_that_does_not_fit_is_refused_and_the_old_one_stays(real_engine, trainer, make_requests):
    requests = make_requests(16)
    tensors, config = trainer.adapter("ada")
    strayed = {name.replace("q_proj", "query"): tensor for name, tensor in tensors.items()}
    with pytest.raises(EngineError, match=r"adapter of policy 'ada'.*(place in the model|does not fit)"):
        real_engine.load_adapter("ada", strayed, config, 5)
    with pytest.raises(EngineError, match="pissa"):
        real_engine.load_adapter("ada", tensors, config | {"init_lora_weights": "pissa"}, 5)
    assert real_engine.versions()["ada"] == 1
    assert trainer.gap(requests, real_engine.generate(requests)) < TOLERANCE


def test_a_new_base_is_served_as_the_trainer_has_it_and_adapters_stay_on_it(local_engine, trainer, make_requests):
    requests = make_requests(32)
    before = local_engine.generate(requests)
    generator = torch.Generator().manual_seed(4)
    moved = {name: tensor.clone() for name, tensor in trainer.base.state_dict().items()}
    moved = {name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator) for name, tensor in moved.items()}
    moved["lm_head.weight"] = moved["model.embed_tokens.weight"]  # tied
    local_engine.load_base(moved.items(), 5)
    assert local_engine.versions() == {"ada": 1, "bea": 2, "cyd": 5, "dov": 5}
    after = local_engine.generate(requests)
    for model in (*trainer.models.values(), trainer.base):
        plain = model.base_model.model if model is not trainer.base else model
        keep = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
        try:
            named = {name.replace(".base_layer", ""): tensor for name, tensor in plain.state_dict().items()}
            for name, tensor in moved.items():
                named[name].copy_(tensor)
            own = [
                row for row, request in enumerate(requests) if trainer.models.get(request.policy, trainer.base) is model
            ]
            assert trainer.gap([requests[row] for row in own], [after[row] for row in own]) < TOLERANCE
        finally:
            plain.load_state_dict(keep)
    assert [reply.token_ids for reply in before] != [reply.token_ids for reply in after]


def test_a_part_of_a_base_is_refused_before_anything_is_written(real_engine, trainer, make_requests):
    requests = make_requests(8)
    before = real_engine.generate(requests)
    untied = dict(trainer.base.named_parameters())
    with pytest.raises(EngineError, match=r"1 names are missing \['lm_head.weight'\]"):
        real_engine.load_base(untied.items(), 5)
    whole = trainer.base.state_dict()
    some = {name: tensor for name, tensor in whole.items() if "q_proj" in name}
    with pytest.raises(EngineError, match=f"{len(whole) - len(some)} names are missing"):
        real_engine.load_base(some.items(), 5)
    with pytest.raises(EngineError, match=r"1 are unknown \['extra'\]"):
        real_engine.load_base([*whole.items(), ("extra", torch.zeros(1))], 5)
    wide = dict(whole) | {"model.norm.weight": torch.zeros(3)}
    with pytest.raises(EngineError, match=r"'model.norm.weight' has shape \(3,\), not \(128,\)"):
        real_engine.load_base(wide.items(), 5)
    assert real_engine.generate(requests) == before


def test_generating_leaves_the_global_generators_and_threads_alone(real_engine, trainer, make_requests):
    import random

    import numpy as np

    adapter = trainer.adapter_of(trainer.adapted(8, r=4))
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    threads = torch.get_num_threads()
    real_engine.generate(make_requests(8))
    real_engine.load_base(trainer.base.state_dict().items(), 1)
    real_engine.load_adapter("ada", *adapter, 2)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


def test_no_policy_is_an_error(base_model, base_directory):
    from m1lite.engines.hf import HfEngine
    from m1lite.engines.scripted import ScriptedEngine
    from m1lite.engines.vllm import VllmEngine

    for build in (lambda: HfEngine(base_model, []), lambda: VllmEngine(base_directory, [])):
        with pytest.raises(ValueError, match="`policies` is empty"):
            build()
    with pytest.raises(ValueError, match="`policies` is empty"):
        ScriptedEngine(lambda request: [1], policies=[])
