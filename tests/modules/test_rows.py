import pytest
import torch

from m1lite.modules.rows import micro_batches, needed_lengths, take_rows


def test_needed_lengths_end_at_the_last_sampled_token(make_batch):
    batch = make_batch(rows=4, width=12)
    batch.loss_mask = torch.tensor([[0, 0, 1, 0, 1, 0], [0] * 6, [0] * 5 + [1], [0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    assert needed_lengths(batch) == [5, 0, 6, 2]
    batch.loss_mask = batch.loss_mask[:0]
    assert needed_lengths(batch) == []


@pytest.mark.parametrize("max_tokens", [1, 7, 20, 64, 10_000])
def test_micro_batches_cover_every_row_once_within_the_budget(max_tokens):
    lengths = torch.randint(0, 20, (50,), generator=torch.Generator().manual_seed(max_tokens)).tolist()
    groups = micro_batches(lengths, max_tokens)
    assert sorted(row for group in groups for row in group) == [row for row, length in enumerate(lengths) if length]
    for group in groups:
        assert lengths[group[0]] == max(lengths[row] for row in group)
        assert len(group) == 1 or len(group) * lengths[group[0]] <= max_tokens


def test_micro_batches_refuse_an_empty_budget():
    with pytest.raises(ValueError, match="`max_tokens` is 0"):
        micro_batches([3], 0)


def test_take_rows_cuts_all_tensors_alike(make_batch):
    batch = make_batch(rows=5, width=24)
    part = take_rows(batch, [3, 1], width=9)
    for name in ("input_ids", "attention_mask", "loss_mask", "sampled_logprobs", "advantages"):
        assert torch.equal(getattr(part, name), torch.stack([getattr(batch, name)[row][:9] for row in (3, 1)]))
    assert (part.agent, part.policy_version, part.temperature) == ("ada", 0, 1.0)
    assert take_rows(batch, [], width=3).input_ids.shape == (0, 3)
