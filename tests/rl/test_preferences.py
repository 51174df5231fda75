"""DPO and RRPO against loops over Python floats."""

import math

import pytest
import torch

from m1lite.rl.preferences import dpo, rrpo


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def logprobs(width):
        return -3 * torch.rand(4, width, generator=generator, dtype=torch.float64)

    better, worse = logprobs(5).requires_grad_(), logprobs(3).requires_grad_()
    masks = [torch.rand(4, width, generator=generator) > 0.3 for width in (5, 3)]
    return better, worse, logprobs(5), logprobs(3), *masks


def margins(better, worse, better_reference, worse_reference, better_mask, worse_mask, beta):
    result = []
    for row in range(4):
        gains = [
            sum((new - ref).item() for new, ref, keep in zip(news[row], refs[row], mask[row], strict=True) if keep)
            for news, refs, mask in ((better, better_reference, better_mask), (worse, worse_reference, worse_mask))
        ]
        result.append(beta * (gains[0] - gains[1]))
    return result


def test_dpo_equals_the_loop():
    pairs = draw()
    losses, stats = dpo(*pairs, beta=0.3)
    expected = margins(*pairs, 0.3)
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-margin)) for margin in expected])
    assert stats["rewards/margins"].tolist() == pytest.approx(expected)
    assert stats["rewards/accuracies"].tolist() == [float(margin > 0) for margin in expected]
    (slopes,) = torch.autograd.grad(losses.sum(), pairs[0])
    for row, margin in enumerate(expected):
        slope = -0.3 / (1 + math.exp(margin))
        assert slopes[row].tolist() == pytest.approx([slope if keep else 0.0 for keep in pairs[4][row]])


def test_rrpo_is_dpo_on_the_phrases_with_a_penalty_on_the_divergence():
    pairs = draw(1)
    divergence = torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    losses, _ = rrpo(*pairs, divergence, beta=0.3, alpha=0.2)
    torch.testing.assert_close(losses, dpo(*pairs, beta=0.3)[0] + 0.2 * divergence.sum(1))
    (slopes,) = torch.autograd.grad(losses.sum(), divergence)
    assert torch.equal(slopes, torch.full_like(slopes, 0.2)), "the divergence must cost, not pay"


def test_pairs_without_a_preference_lose_log_two():
    nothing = torch.zeros(2, 3)
    assert dpo(*[nothing] * 4, nothing > 0, nothing > 0)[0].tolist() == pytest.approx([math.log(2)] * 2)


def test_errors_name_the_value():
    pairs = draw()
    with pytest.raises(ValueError, match="`beta` is 0; it must be above 0"):
        dpo(*pairs, beta=0)
    with pytest.raises(ValueError, match="`alpha` is -1; the weight of the divergence"):
        rrpo(*pairs, pairs[0], alpha=-1)
    with pytest.raises(ValueError, match=r"`divergence` has shape \(4, 3\), but the log-probs have \(4, 5\)"):
        rrpo(*pairs, pairs[1])
