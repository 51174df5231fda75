"""Rows that share their beginning: laid out once, and scored and trained as if each stood alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.modules.objective import Objective
from m1lite.modules.packing import ATTENTION
from m1lite.modules.prefixes import plan_shared, share_rows
from m1lite.modules.tiny import tiny_base
from m1lite.modules.update import AgentUpdate

ROWS = st.lists(st.lists(st.integers(1, 2), min_size=2, max_size=7), min_size=1, max_size=9)


def padded(rows):
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])


def distinct_beginnings(rows):
    return {tuple(row[: end + 1]) for row in rows for end in range(len(row))}


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_every_distinct_beginning_stands_once_and_predicts_what_it_should(rows, draw):
    ids = padded(rows)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for number, row in enumerate(rows):
        for place in range(1, len(row)):
            mask[number, place] = draw.random() < 0.4
    if not mask.any():
        mask[0, 1] = True
    read = [row[: int(flags.nonzero()[-1])] for row, flags in zip(rows, mask, strict=True) if flags.any()]
    shared = share_rows(ids, mask)
    assert shared.input_ids.shape == shared.position_ids.shape == (1, len(distinct_beginnings(read)))
    beginnings = beginnings_of(shared)
    expected = [rows[row][:place] for row, place in mask.nonzero().tolist()]
    assert [beginnings[place] for place in shared.wanted.tolist()] == expected
    assert [len(row) - 1 for row in beginnings] == shared.position_ids[0].tolist()


def beginnings_of(shared):
    """The tokens that each place of the layout stands at the end of, read from what the branches attend to."""
    ids, branches, found = shared.input_ids[0].tolist(), shared.branches, []
    places = range(len(ids)) if branches.places is None else branches.places.tolist()
    first = 0
    for length, reads in zip(branches.lengths, branches.reads, strict=True):
        read = [ids[place] for place in places[first : first + reads]]
        assert list(places[first + reads - length : first + reads]) == [*range(len(found), len(found) + length)]
        found += [read[: reads - length + end + 1] for end in range(length)]
        first += reads
    assert first == len(places)
    return found


@given(ROWS, st.integers(1, 30))
@settings(max_examples=200, deadline=None)
def test_a_plan_holds_every_row_once_within_the_budget(rows, max_tokens):
    lengths = [len(row) for row in rows]
    packs = plan_shared(padded(rows), lengths, max_tokens)
    assert sorted(row for pack in packs for row in pack) == list(range(len(rows)))
    for pack in packs:
        assert len(pack) == 1 or len(distinct_beginnings([rows[row] for row in pack])) <= max_tokens
        assert [lengths[row] for row in pack] == sorted((lengths[row] for row in pack), reverse=True)


def test_rows_of_a_question_are_planned_together():
    """Two questions of four rollouts each, as they come from two ranks' worth of shuffling."""
    prompts = [[7, 8, 9, 5], [7, 3, 2, 6]]
    rows = [prompts[number % 2] + [10 + number] for number in range(8)]
    packs = plan_shared(padded(rows), [5] * 8, max_tokens=8)
    assert sorted(sorted(pack) for pack in packs) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_a_plan_is_refused_without_room():
    with pytest.raises(ValueError, match="`max_tokens` is 0"):
        plan_shared(torch.ones(1, 3, dtype=torch.long), [3], 0)


def rollouts(make_batch, agent, *, rows=8, prompt=20, width=40):
    """A batch in which the rows of each of two questions share their prompt, and two rows also a first reply."""
    batch = make_batch(agent, rows=rows, width=width)
    for row in range(rows):
        batch.attention_mask[row] = True
        batch.loss_mask[row] = torch.arange(width) >= prompt
        batch.input_ids[row, :prompt] = batch.input_ids[row % 2, :prompt]
    batch.input_ids[4, : prompt + 6] = batch.input_ids[2, : prompt + 6]
    batch.input_ids[:, prompt + 3] = torch.randint(6, 40, (rows,), generator=torch.Generator().manual_seed(1))
    batch.input_ids[4, : prompt + 6] = batch.input_ids[2, : prompt + 6]
    batch.loss_mask[5] = False
    batch.sampled_logprobs *= batch.loss_mask
    batch.advantages *= batch.loss_mask
    return batch


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("agent", ["ada", "cyd"])
def test_shared_rows_score_and_learn_as_padded_ones(make_team, make_batch, checkpointing, agent):
    found = []
    for packing in (False, True):
        team = make_team(stir=0.05, packing=packing, gradient_checkpointing=checkpointing and packing)
        batch = rollouts(make_batch, agent)
        model = team.models[team.members[agent]].get_base_model()
        computed = []
        hook = model.base_model.layers[0].register_forward_pre_hook(
            lambda module, inputs, computed=computed: computed.append(inputs[0].shape[0] * inputs[0].shape[1])
        )
        update = AgentUpdate(
            team,
            agent,
            batch,
            objective=Objective(beta=0.1),
            micro_batch_tokens=200,
            backward=lambda loss: loss.backward(),
        )
        sums = update.accumulate(range(8), anchored=False)
        hook.remove()
        gradients = {name: p.grad for name, p in team.adapter_parameters(agent).items()}
        found.append((sums, gradients, update.old, update.reference, sum(computed)))
        assert packing == (model.config._attn_implementation == ATTENTION)
    (sums, gradients, old, reference, tokens), (other_sums, other, other_old, other_reference, fewer) = found
    for name, value in sums.items():
        torch.testing.assert_close(other_sums[name], value, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(other_old, old, atol=1e-5, rtol=0)
    torch.testing.assert_close(other_reference, reference, atol=1e-5, rtol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other[name], gradient, atol=1e-5, rtol=1e-5)
    # Two prompts of 20 tokens and seven replies of which 19 tokens are read, six of them shared by two rows.
    distinct = 2 * 20 + 7 * 19 - 6
    assert fewer == (2 + checkpointing) * distinct
    assert fewer * 2 < 0.75 * tokens * (2 + checkpointing)


def test_a_sliding_window_counts_from_where_a_token_stands_in_its_row():
    """A window shorter than the prompt: a reply's first token reads the prompt's last ones, not what lies beside it."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from m1lite.modules.packing import predicting_states, prepare_packing

    config = Qwen2Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention"],
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    ids = torch.randint(1, 50, (4, 16))
    ids[1:, :9] = ids[0, :9]
    ids[3, :12] = ids[2, :12]
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, 9:] = True
    with torch.no_grad():
        expected = predicting_states(model, ids, mask, packed=False)
        prepare_packing(model)
        found = predicting_states(model, ids, mask, packed=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_shared_prompt_is_not_read_by_another_question():
    model, _ = tiny_base(hidden_size=32)
    from m1lite.modules.packing import predicting_states, prepare_packing

    prepare_packing(model)
    ids = torch.tensor([[7, 8, 9, 10], [7, 8, 9, 11], [12, 8, 9, 10]])
    mask = torch.tensor([[False, False, True, True]]).expand(3, 4)
    with torch.no_grad():
        before = predicting_states(model, ids, mask, packed=True)
        ids[2, 0] = 13
        after = predicting_states(model, ids, mask, packed=True)
    same = (before == after).all(1).tolist()
    assert same == [True] * 4 + [False] * 2
