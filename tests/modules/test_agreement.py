"""Turns on which engine and trainer agree, or not, against a loop over lists."""

from dataclasses import replace

import pytest
import torch

from m1lite.modules.agreement import TurnGap, TurnMismatchError, check_turns, turn_gaps
from m1lite.records import MediaRef, PlacedMedia
from tests.small_team import make_batch


def plain_gaps(batch, logprobs):
    found = []
    for row in range(len(batch.loss_mask)):
        turns, last = [], None
        for place in range(batch.loss_mask.shape[1]):
            if batch.loss_mask[row, place]:
                if last != place - 1:
                    turns.append([])
                turns[-1].append(abs(logprobs[row, place] - batch.sampled_logprobs[row, place]).item())
                last = place
        found += [(row, number, sum(values) / len(values)) for number, values in enumerate(turns)]
    return found


def test_gaps_are_those_of_the_loop():
    batch = make_batch()
    logprobs = -torch.rand(batch.loss_mask.shape, generator=torch.Generator().manual_seed(5))
    found = [(turn.row, turn.turn, turn.gap) for turn in turn_gaps(batch, logprobs)]
    expected = plain_gaps(batch, logprobs)
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    assert [entry[2] for entry in found] == pytest.approx([entry[2] for entry in expected], abs=1e-6)
    assert check_turns(batch, logprobs, tolerance=5.0) == pytest.approx(max(gap for _, _, gap in expected), abs=1e-6)


def test_the_worst_turn_is_named_with_its_sample_and_what_it_saw():
    batch = make_batch()
    gaps = turn_gaps(batch, batch.sampled_logprobs)
    assert all(isinstance(turn, TurnGap) and turn.gap == 0 for turn in gaps)
    bad = next(turn for turn in gaps if turn.row == 2 and turn.turn == 1)
    logprobs = batch.sampled_logprobs.clone()
    logprobs[2, bad.start : bad.start + bad.length] -= 0.25
    names = tuple(f"q{row}/0" for row in range(5))
    with pytest.raises(TurnMismatchError, match=r"Turn 1 of q2/0 of agent 'ada' .* differ by 0\.25 nats a token"):
        check_turns(replace(batch, names=names), logprobs, tolerance=0.1)
    shown = PlacedMedia(media=MediaRef(uri="v", timestamps=(0.0,), size=(4, 4)), offset=1)
    media = ((), (), (shown,), (), ())
    with pytest.raises(TurnMismatchError, match=r"of row 2 .*, after 1 pictures\)"):
        check_turns(replace(batch, media=media), logprobs, tolerance=0.1)
    check_turns(batch, logprobs, tolerance=0.3)


def test_what_is_no_number_does_not_agree_and_nothing_sampled_does():
    batch = make_batch()
    broken = batch.sampled_logprobs.masked_fill(batch.loss_mask, float("nan"))
    with pytest.raises(TurnMismatchError, match="differ by inf nats"):
        check_turns(batch, broken, tolerance=1e9)
    assert check_turns(replace(batch, loss_mask=batch.loss_mask & False), broken, tolerance=0.1) == 0.0
