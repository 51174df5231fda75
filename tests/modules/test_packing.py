"""Packed rows against padded ones: the same log-probs and gradients, and no token computed in vain."""

import random
from functools import partial

import pytest
import torch
from torch.optim import AdamW
from transformers import Qwen2Config, Qwen2ForCausalLM

from m1lite.modules.batch import RolloutBatch
from m1lite.modules.marl import MarlModule
from m1lite.modules.objective import Objective
from m1lite.modules.packing import ATTENTION, pack_rows, plan_packs, predicting_states, prepare_packing
from m1lite.modules.tiny import tiny_base
from m1lite.modules.update import AgentUpdate


@pytest.mark.parametrize("max_tokens", [1, 7, 20, 64, 10_000])
def test_a_plan_holds_every_row_once_within_the_budget(max_tokens):
    draw = random.Random(max_tokens)
    lengths = [draw.randrange(20) for _ in range(80)]
    packs = plan_packs(lengths, max_tokens)
    assert sorted(row for pack in packs for row in pack) == [row for row, length in enumerate(lengths) if length]
    for pack in packs:
        assert len(pack) == 1 or sum(lengths[row] for row in pack) <= max_tokens
        assert [lengths[row] for row in pack] == sorted((lengths[row] for row in pack), reverse=True)
    fewest = -(-sum(lengths) // max(max_tokens, max(lengths)))
    assert max_tokens < max(lengths) or len(packs) <= 11 / 9 * fewest + 4


def test_a_plan_is_refused_without_room():
    with pytest.raises(ValueError, match="`max_tokens` is 0"):
        plan_packs([3], 0)


def test_rows_are_laid_end_to_end_up_to_what_the_loss_needs():
    ids = torch.arange(1, 13).reshape(3, 4)
    mask = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.bool)
    packed = pack_rows(ids, mask)
    assert packed.input_ids.tolist() == [[1, 2, 3, 9, 10]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert packed.lengths == (3, 2)
    assert packed.wanted.tolist() == [True, False, True, False, True]
    assert repr(packed) == "PackedRows(rows=2, tokens=5, wanted=3)"


class Tokens:
    """Counts what a model's first layer is given."""

    def __init__(self, model):
        self.count = 0
        model.base_model.layers[0].register_forward_pre_hook(self.add)

    def add(self, module, inputs):
        self.count += inputs[0].shape[0] * inputs[0].shape[1]


def model_of(team, agent):
    return team.models[team.members[agent]].get_base_model()


def scored(team, agent, batch):
    team.zero_grad()
    logprobs, entropies = team.logprobs(agent, batch, entropy_gradient=True)
    (logprobs * batch.advantages + 0.1 * entropies).sum().backward()
    gradients = {name: p.grad.clone() for name, p in team.adapter_parameters(agent).items()}
    return logprobs.detach(), entropies.detach(), gradients


@pytest.mark.parametrize("attention", ["by row", "mask", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("agent", ["ada", "cyd"])
def test_packed_team_scores_and_learns_as_the_padded_one(make_team, make_batch, attention, checkpointing, agent):
    padded = make_team(stir=0.05)
    packed = make_team(stir=0.05, packing=True, gradient_checkpointing=checkpointing)
    model = model_of(packed, agent)
    assert model.config._attn_implementation == ATTENTION
    if attention != "by row":
        model.set_attn_implementation({"mask": "sdpa", "eager": "eager"}[attention])
    tokens = Tokens(model)
    batch = make_batch(agent, rows=7, width=48, temperature=0.8)
    batch.loss_mask[2] = False
    expected, found = scored(padded, agent, batch), scored(packed, agent, batch)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=0)
    for name, gradient in expected[2].items():
        torch.testing.assert_close(found[2][name], gradient, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed.reference_logprobs(agent, batch), padded.reference_logprobs(agent, batch))
    needed = sum(int(row.nonzero()[-1]) for row in batch.loss_mask if row.any())
    passes = 2 + checkpointing
    assert tokens.count == passes * needed, "every token once per pass, and none else"


def test_a_row_reads_nothing_of_its_neighbours(make_team, make_batch):
    team = make_team(stir=0.05, packing=True)
    batch = make_batch("ada", rows=4)
    before, _ = team.logprobs("ada", batch)
    batch.input_ids[1] = torch.where(batch.attention_mask[1], 50, batch.input_ids[1])
    after, _ = team.logprobs("ada", batch)
    for row in range(4):
        assert torch.equal(before[row], after[row]) == (row != 1)


def test_packed_update_equals_the_padded_one(make_team, make_batch):
    """Loss, statistics and gradients of a whole update, cut into other micro-batches than the padded one."""
    found = []
    for packing in (False, True):
        team = make_team(stir=0.05, packing=packing)
        batch = make_batch("ada", rows=9, width=64)
        losses = []
        update = AgentUpdate(
            team,
            "ada",
            batch,
            objective=Objective(beta=0.1),
            micro_batch_tokens=130,
            backward=lambda loss, losses=losses: (losses.append(loss.item()), loss.backward()),
        )
        tokens = Tokens(model_of(team, "ada"))
        sums = update.accumulate(range(9), anchored=False)
        found.append((sums, {n: p.grad for n, p in team.adapter_parameters("ada").items()}, len(losses), tokens.count))
    (sums, gradients, padded_passes, padded_tokens), (other_sums, other, packed_passes, packed_tokens) = found
    assert sums.keys() == other_sums.keys()
    for name, value in sums.items():
        torch.testing.assert_close(other_sums[name], value, atol=1e-4, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other[name], gradient, atol=1e-5, rtol=1e-5)
    assert packed_passes <= padded_passes
    assert packed_tokens < padded_tokens


def test_a_packed_module_trains(make_team, make_batch):
    import lightning.pytorch as pl

    team = make_team(stir=0.05, packing=True)
    module = MarlModule(team, optimizer=partial(AdamW, lr=0.01), minibatches=2)
    batch = RolloutBatch([])
    batch.tokens = {agent: make_batch(agent) for agent in team.agents}

    class Once:
        def __len__(self):
            return 1

        def __iter__(self):
            return iter([batch])

    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Once())
    assert module.versions == dict.fromkeys(team.agents, 1)


def sliding_model(seed=0):
    config = Qwen2Config(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=5,
        max_window_layers=1,
    )
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(config).eval()


def test_sliding_windows_are_kept(make_batch):
    model = sliding_model()
    assert "sliding_attention" in model.config.layer_types
    batch = make_batch(rows=5, width=24)
    ids = batch.input_ids % 60
    expected = predicting_states(model, ids, batch.loss_mask, packed=False)
    prepare_packing(model)
    assert torch.equal(predicting_states(model, ids, batch.loss_mask, packed=False), expected)
    found = predicting_states(model, ids, batch.loss_mask, packed=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    model.config.sliding_window = 1000
    assert not torch.allclose(predicting_states(model, ids, batch.loss_mask, packed=False), expected, atol=1e-3)


def test_a_prepared_model_is_itself_for_other_input():
    model, tokenizer = tiny_base(hidden_size=32)
    ids = torch.randint(6, 100, (3, 12), generator=torch.Generator().manual_seed(0))
    left_padded = torch.ones(3, 12, dtype=torch.bool)
    left_padded[1, :4] = False
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=left_padded).logits
        replies = model.generate(ids, attention_mask=left_padded, **options)
        prepare_packing(model)
        assert torch.equal(model(input_ids=ids, attention_mask=left_padded).logits, logits)
        assert torch.equal(model.generate(ids, attention_mask=left_padded, **options), replies)


def test_models_that_carry_a_state_across_rows_are_refused():
    model, _ = tiny_base(hidden_size=32)
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match=r"Qwen3ForCausalLM has layers of the kinds \['linear_attention'\]"):
        prepare_packing(model)


def test_nothing_to_predict_is_legal(make_team, make_batch):
    team = make_team(packing=True)
    batch = make_batch()
    batch.loss_mask[:] = False
    assert team.logprobs("ada", batch)[0].abs().sum() == 0
    model = model_of(team, "ada")
    assert predicting_states(model, batch.input_ids, batch.loss_mask, packed=True).shape == (0, 32)
