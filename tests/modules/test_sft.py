import math
import time
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW

from m1lite.modules.bases import hash_weights
from m1lite.modules.optimizer import NonFiniteUpdateError
from m1lite.modules.sft import SftLoader, SftModule, SftRow, collate_rows, learning_rate_factor, turns_row
from m1lite.modules.tiny import tiny_base
from m1lite.records import Turn, TurnKind


def copying_rows(count, seed=0):
    """`<user> word word' <bot> word'`: the answer is the second word. Rows differ in length."""
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(count):
        words = torch.randint(6, 30, (2 + number % 3,), generator=draw).tolist()
        ids = [3, *words, 4, words[-1], 5]
        asked = len(ids) - 2
        rows.append(
            SftRow(
                input_ids=ids,
                weights=[0.0] * asked + [2.0, 1.0],
                answer_mask=[False] * asked + [True, False],
            )
        )
    return rows


def fit(module, train, val=None, *callbacks, ckpt_path=None, **kwargs):
    log = Log()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        max_epochs=-1,
        log_every_n_steps=1,
        callbacks=[*callbacks, log],
        **kwargs,
    )
    trainer.fit(module, train, val, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer, log


class Log(pl.Callback):
    def __init__(self):
        self.losses, self.rates, self.exact = [], [], []

    def on_train_batch_start(self, trainer, *_):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, *_):
        self.losses.append(trainer.callback_metrics["sft/loss"].item())

    def on_validation_end(self, trainer, module):
        self.exact.append(trainer.callback_metrics["sft/val_exact"].item())


@pytest.fixture
def base():
    return tiny_base("qwen3", hidden_size=32, num_layers=2)[0].requires_grad_(True)


def test_tokens_are_counted_without_padding(base):
    rows = [SftRow(input_ids=[7] * n, weights=[0.0] + [1.0] * (n - 1), answer_mask=[False] * n) for n in (3, 9, 5, 4)]
    batches = [batch.to("cpu") for batch in SftLoader(rows, 3, pad_id=0, shuffle=False)]
    assert sum(SftModule.trained_tokens(batch) for batch in batches) == 3 + 9 + 5 + 4


def test_loss_and_gradient_are_those_of_transformers_logits(base):
    rows = copying_rows(5)
    batch = collate_rows(rows, pad_id=0)
    module = SftModule(base, optimizer=partial(SGD, lr=1.0), steps=3, max_grad_norm=None)
    _, log = fit(module, SftLoader(rows, 5, pad_id=0, shuffle=False), max_steps=1)
    # The rate at step 0 of 3 is below the peak; undo it to get the gradient that was applied.
    reference = tiny_base("qwen3", hidden_size=32, num_layers=2)[0].requires_grad_(True)
    mask = (torch.arange(batch.input_ids.shape[1]) < torch.tensor([[len(row.input_ids)] for row in rows])).long()
    logits = reference(input_ids=batch.input_ids, attention_mask=mask).logits[:, :-1]
    losses = cross_entropy(logits.flatten(0, 1), batch.input_ids[:, 1:].flatten(), reduction="none")
    loss = (losses * batch.weights[:, 1:].flatten()).sum() / batch.weights.sum()
    assert log.losses[0] == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    for (name, parameter), expected in zip(base.named_parameters(), reference.parameters(), strict=True):
        moved = (expected.detach() - parameter.detach()) / log.rates[0]
        torch.testing.assert_close(moved, expected.grad, atol=2e-3, rtol=1e-2, msg=name)


@pytest.mark.parametrize("lora", [False, True])
def test_packed_rows_give_the_loss_gradient_and_answers_of_padded_ones(lora):
    rows = copying_rows(9, seed=3)
    rows[4].weights = [0.0] * len(rows[4].weights)  # answered, and not learnt
    found = []
    for packing in (False, True):
        model = tiny_base("qwen3", hidden_size=32, num_layers=2)[0].requires_grad_(True)
        if lora:
            torch.manual_seed(0)
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
        module = SftModule(model, optimizer=partial(SGD, lr=1.0), steps=3, packing=packing)
        widths = []
        base = model.get_base_model() if lora else model
        base.model.layers[0].register_forward_pre_hook(lambda _, given, widths=widths: widths.append(given[0].shape))
        total, weight, _ = module._losses(collate_rows(rows, pad_id=0))
        total.backward()
        _, _, right = module._losses(collate_rows(rows, pad_id=0), answers=True)
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append((total, weight, right, gradients, widths))
    (total, weight, right, gradients, _), (other, other_weight, other_right, others, widths) = found
    torch.testing.assert_close(other, total, atol=1e-5, rtol=1e-6)
    assert (other_weight, other_right.tolist()) == (weight, right.tolist())
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-5, msg=name)

    def distinct(*ends):  # a beginning that rows have in common is computed once
        return len({tuple(rows[row].input_ids[:end]) for row, last in enumerate(ends) for end in range(1, last + 1)})

    needed = [len(row.input_ids) - 1 for row in rows]
    assert widths[0] == (1, distinct(*(0 if row == 4 else end for row, end in enumerate(needed))), 32)
    assert widths[1] == (1, distinct(*(end - (row == 4) for row, end in enumerate(needed))), 32), (
        "of the row that is not learnt, up to its answer"
    )


def test_a_tiny_base_learns_to_copy_and_stops_at_its_steps(base):
    module = SftModule(base, optimizer=partial(AdamW, lr=0.02), steps=120, warmup=0.1)
    train = SftLoader(copying_rows(400), 32, pad_id=0)
    val = SftLoader(copying_rows(50, seed=1), 16, pad_id=0, shuffle=False)
    trainer, log = fit(module, train, val, val_check_interval=60, check_val_every_n_epoch=None)
    assert trainer.global_step == 120
    assert log.losses[-1] < 0.2 * log.losses[0]
    assert log.exact[-1] > 0.9
    assert log.exact[-1] >= log.exact[0]
    assert max(log.rates) == pytest.approx(0.02, rel=0.05)
    assert log.rates[-1] < 0.001


def test_a_loss_that_is_not_a_number_changes_nothing_and_is_named(base):
    before = hash_weights(base)
    rows = copying_rows(4)
    rows[0].weights[-1] = math.inf
    module = SftModule(base, optimizer=partial(AdamW, lr=0.02), steps=2, max_grad_norm=None)
    with pytest.raises(NonFiniteUpdateError, match="norm at step 0 is nan, so nothing was learnt from it"):
        fit(module, SftLoader(rows, 4, pad_id=0))
    assert hash_weights(base) == before


def test_validation_counts_rows_whose_answer_is_the_likeliest(base):
    module = SftModule(base, optimizer=partial(AdamW, lr=1e-9), steps=1)
    rows = copying_rows(30, seed=2)
    expected = []
    with torch.no_grad():
        for row in rows:
            logits = base(input_ids=torch.tensor([row.input_ids])).logits[0]
            place = row.answer_mask.index(True)
            expected.append(logits[place - 1].argmax().item() == row.input_ids[place])
        row = rows[0]
        place = row.answer_mask.index(True)
        likeliest = base(input_ids=torch.tensor([row.input_ids[:place]])).logits[0, -1].argmax().item()
    row.input_ids[place], expected[0] = likeliest, True
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (found,) = trainer.validate(module, SftLoader(rows, 7, pad_id=0, shuffle=False), verbose=False)
    assert found["sft/val_exact"] == pytest.approx(sum(expected) / len(expected))


def test_a_loader_renames_anew_in_every_pass_and_leaves_the_rows_alone():
    rows = copying_rows(12)
    before = [list(row.input_ids) for row in rows]

    def shifted(ids, rng):
        shift = rng.randrange(1, 1000) * 1000
        return [index + shift for index in ids]

    loader = SftLoader(rows, 12, pad_id=0, seed=3, rename=shifted)
    passes = [next(iter(loader)) for _ in range(1)] + [batch for _ in range(2) for batch in loader]
    again = list(SftLoader(rows, 12, pad_id=0, seed=3, rename=shifted))
    assert [row.input_ids for row in rows] == before
    shifts = [{int(index) // 1000 for index in batch.input_ids[:, 0]} for batch in passes]
    assert all(len(found) > 6 for found in shifts)  # a row of its own each
    assert shifts[1] != shifts[2]
    assert torch.equal(passes[0].input_ids, again[0].input_ids)
    assert torch.equal(passes[0].weights, again[0].weights)


def test_a_budget_of_seconds_lowers_the_rate_and_ends_the_fit(base):
    module = SftModule(base, optimizer=partial(AdamW, lr=0.01), seconds=1.0)
    started = time.monotonic()
    trainer, log = fit(module, SftLoader(copying_rows(64), 16, pad_id=0))
    assert trainer.global_step > 1
    assert 1.0 <= time.monotonic() - started < 20
    assert module.elapsed_seconds >= 1.0
    assert log.rates[-1] < max(log.rates)


def test_a_resumed_fit_goes_on_with_the_used_budget(base, tmp_path):
    module = SftModule(base, optimizer=partial(AdamW, lr=0.01), seconds=100.0, steps=4)
    module.elapsed_before = 30.0
    files = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    fit(module, SftLoader(copying_rows(64), 16, pad_id=0), None, files)
    other = SftModule(
        tiny_base("qwen3", hidden_size=32, num_layers=2, seed=5)[0].requires_grad_(True),
        optimizer=partial(AdamW, lr=0.01),
        seconds=100.0,
        steps=4,
    )
    trainer, log = fit(other, SftLoader(copying_rows(64), 16, pad_id=0), ckpt_path=tmp_path / "step=2.ckpt")
    assert (len(log.losses), trainer.global_step) == (2, 4)
    assert 30.0 < other.elapsed_before < 60.0


def test_adapters_alone_are_trained_where_a_base_is_frozen(base):
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(SftModule(model, optimizer=partial(AdamW, lr=0.01), steps=2), SftLoader(copying_rows(64), 16, pad_id=0))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".lora_" in name for name in changed)


def test_loader_gives_every_row_once_and_like_lengths_together():
    rows = copying_rows(103)
    loader = SftLoader(rows, 10, pad_id=0, seed=4)
    first, second = loader.indices(0), loader.indices(1)
    assert len(loader) == len(first) == 10
    assert all(len(batch) == 10 for batch in first)
    assert len({index for batch in first for index in batch}) == 100
    assert first != second
    assert SftLoader(rows, 10, pad_id=0, seed=4).indices(0) == first
    spread = [max(len(rows[i].input_ids) for i in b) - min(len(rows[i].input_ids) for i in b) for b in first]
    assert sum(spread) <= 3
    whole = SftLoader(rows, 10, pad_id=0, shuffle=False)
    assert sorted(index for batch in whole.indices(0) for index in batch) == list(range(103))
    assert len(whole) == len(list(whole)) == 11


def test_turns_become_a_row_with_weights_on_replies():
    def turn(kind, read, wrote):
        return Turn(
            kind=kind,
            round=0,
            prompt_ids=read,
            reply_ids=wrote,
            logprobs=[0.0] * len(wrote),
            policy_version=0,
            seed=0,
            text="",
        )

    row = turns_row(
        [turn(TurnKind.PLAN, [1, 2], [3]), turn(TurnKind.COMMUNICATE, [4], [5, 6]), turn(TurnKind.ANSWER, [7], [8, 9])],
        [1.0, 0.0, 3.0],
    )
    assert row.input_ids == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert row.weights == [0, 0, 1, 0, 0, 0, 0, 3, 3]
    assert row.answer_mask == [False] * 7 + [True, True]
    assert not any(turns_row([turn(TurnKind.ANSWER, [1], [2])], [0.0]).answer_mask)


def test_padding_carries_no_weight():
    batch = collate_rows(copying_rows(3), pad_id=7)
    assert batch.input_ids.tolist()[0][-2:] == [7, 7]
    assert batch.weights[0, -2:].tolist() == [0, 0]
    assert not batch.answer_mask[0, -2:].any()
    assert batch.to("meta").weights.device.type == "meta"


def test_wrong_input_is_named(base):
    with pytest.raises(ValueError, match="2 tokens, 1 weights and 2 answer marks"):
        SftRow(input_ids=[1, 2], weights=[0.0], answer_mask=[False, True])
    with pytest.raises(ValueError, match=r"first token with 1\.0"):
        SftRow(input_ids=[1], weights=[1.0], answer_mask=[False])
    with pytest.raises(ValueError, match=r"`batch_size` is 9; .* number of rows, 4"):
        SftLoader(copying_rows(4), 9, pad_id=0)
    with pytest.raises(ValueError, match="seconds=None, steps=None"):
        SftModule(base, optimizer=partial(AdamW, lr=1.0))
    with pytest.raises(ValueError, match=r"`warmup` is 1\.0"):
        SftModule(base, optimizer=partial(AdamW, lr=1.0), steps=1, warmup=1.0)
    with pytest.raises(ValueError, match="no trainable weight"):
        SftModule(base.requires_grad_(False), optimizer=partial(AdamW, lr=1.0), steps=1)
    with pytest.raises(ValueError, match=r"`cooldown` is 0\.9; .* with the warm-up 0\.2, at most 1"):
        SftModule(base, optimizer=partial(AdamW, lr=1.0), steps=1, warmup=0.2, cooldown=0.9)


def test_the_rate_rises_stays_and_falls():
    def rates(falls_from):
        return [learning_rate_factor(step / 10, 0.2, falls_from, 0.4) for step in range(13)]

    assert rates(0.6) == pytest.approx([0.005, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0], abs=1e-9)
    assert rates(0.3) == pytest.approx([0.005, 0.5, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0, 0], abs=1e-9)
    assert learning_rate_factor(0.0, 0.0, 0.0, 1.0) == 1.0


def test_cooling_down_ends_a_fit_early(base):
    class Cool(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step == 4:
                module.cool_down()
                module.cool_down()

    module = SftModule(base, optimizer=partial(AdamW, lr=0.01), steps=100, warmup=0.0, cooldown=0.1)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[Cool()],
        enable_model_summary=False,
        max_epochs=-1,
    )
    trainer.fit(module, SftLoader(copying_rows(64), 16, pad_id=0))
    assert trainer.global_step == 14  # four steps, and ten of a hundred to cool down
