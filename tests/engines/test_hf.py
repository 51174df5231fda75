from dataclasses import replace

import pytest
import torch
from torch import tensor

from m1lite.engines.base import EngineError
from m1lite.engines.drawing import batches, choose, uniforms
from m1lite.engines.hf import HfEngine, lora_config


def test_choose_inverts_the_cumulative_distribution():
    logits = tensor([0.3, -1.0, 2.0, float("-inf"), 0.0])
    grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for temperature in (1.0, 0.5):
        tokens, logprobs = choose(logits.expand(len(grid), -1), torch.full((len(grid),), temperature), grid)
        probabilities = (logits.double() / temperature).softmax(-1)
        shares = torch.bincount(tokens, minlength=5).double() / len(grid)
        assert torch.allclose(shares, probabilities, atol=1e-4)
        assert torch.allclose(logprobs.double(), probabilities.log()[tokens], atol=1e-6)


def test_choose_at_temperature_zero_takes_the_largest_and_reports_it_unscaled():
    logits = tensor([[0.0, 3.0, 1.0], [0.0, 3.0, 1.0]])
    tokens, logprobs = choose(logits, tensor([0.0, 2.0]), tensor([0.999, 0.999], dtype=torch.float64))
    assert tokens.tolist() == [1, 2]
    assert logprobs[0].item() == pytest.approx(logits[0].log_softmax(-1)[1].item())
    assert logprobs[1].item() == pytest.approx((logits[1] / 2).log_softmax(-1)[2].item())


def test_uniforms_belong_to_their_seed():
    rows = uniforms([3, 8, 3], 5)
    assert rows.dtype == torch.float64
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])
    assert torch.equal(uniforms([8], 5)[0], rows[1])


def test_batches_are_bounded_and_hold_every_row_once(make_requests):
    requests = [replace(r, prompt_ids=[7] * (5 + 13 * n % 90)) for n, r in enumerate(make_requests(50))]
    cut = list(batches(range(50), requests, 400))
    assert sorted(row for batch in cut for row in batch) == list(range(50))
    for batch in cut:
        width = max(len(requests[row].prompt_ids) for row in batch) + 6
        assert len(batch) * width <= 400
    assert list(batches([3, 4], requests, 1)) in ([[3], [4]], [[4], [3]])


def test_small_batches_draw_what_large_ones_draw(base_model, trainer, make_requests):
    requests = make_requests(30, max_new_tokens=20)
    large = HfEngine(base_model, ["ada", "bea", "cyd", "dov"])
    small = HfEngine(base_model, ["ada", "bea", "cyd", "dov"], max_batch_tokens=100)
    for engine in (large, small):
        trainer.publish(engine, "bea", 1)
    assert [r.token_ids for r in small.generate(requests)] == [r.token_ids for r in large.generate(requests)]
    assert large.generate(requests) == large.generate(requests)  # bit by bit


def test_a_model_that_is_passed_stays_the_callers(base_model, trainer, make_requests):
    before = {name: value.clone() for name, value in base_model.state_dict().items()}
    engine = HfEngine(base_model, ["ada"])
    trainer.publish(engine, "ada", 1)
    engine.load_base([(name, value + 1) for name, value in before.items()], 1)
    after = base_model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_directory_loads_as_the_model_does(base_directory, base_model, make_requests):
    requests = make_requests(8, policies=["ada"])
    loaded, passed = HfEngine(base_directory, ["ada"]), HfEngine(base_model, ["ada"])
    assert loaded.max_model_len == 1024
    assert loaded.generate(requests) == passed.generate(requests)


def test_a_refused_first_adapter_leaves_the_base(base_model, trainer, make_requests):
    engine = HfEngine(base_model, ["ada"])
    tensors, config = trainer.adapter("ada")
    with pytest.raises(EngineError, match="policy 'ada' does not fit its config and this base: 36 names or shapes"):
        engine.load_adapter("ada", tensors, config | {"target_modules": ["q_proj", "k_proj"], "r": 4}, 1)
    requests = make_requests(4, policies=["ada"])
    adapted, trainer.models = trainer.models, {}
    assert trainer.gap(requests, engine.generate(requests)) < 1e-4
    assert engine.versions() == {"ada": 0}
    engine.load_base([(name, value.clone()) for name, value in base_model.state_dict().items()], 1)
    trainer.models = adapted
    engine.load_adapter("ada", tensors, config, 2)
    assert trainer.gap(requests, engine.generate(requests)) < 1e-4


def test_a_closed_engine_serves_nobody(base_model, make_requests):
    engine = HfEngine(base_model, ["ada"])
    engine.close()
    with pytest.raises(EngineError, match=r"No policy 'ada' in this engine; there are \[\]"):
        engine.generate(make_requests(1))


def test_end_of_sequence_ids(base_model, make_requests):
    engine = HfEngine(base_model, ["ada"], eos_token_ids=[40, 41])
    replies = engine.generate(make_requests(40, policies=["ada"], max_new_tokens=40))
    assert {reply.token_ids[-1] for reply in replies if reply.finish_reason == "stop"} == {40, 41}
    with pytest.raises(ValueError, match="`eos_token_ids` is not given"):
        HfEngine(base_model, ["ada"], eos_token_ids=[])


def test_lora_config_refuses_what_moves_the_base():
    assert lora_config({"r": 4, "init_lora_weights": "gaussian"}).init_lora_weights is True
    with pytest.raises(EngineError, match="`init_lora_weights` 'olora' changes the base"):
        lora_config({"r": 4, "init_lora_weights": "olora"})
