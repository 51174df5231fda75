"""The exact divergence by loops over the vocabulary, and its gradient by the plain formula."""

import math

import pytest
import torch

from m1lite.rl.vocabulary_kl import reference_kl


def draw(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((7, 4), (5, 4), (7, 3), (5, 3))
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [tensors[0].requires_grad_(), tensors[1].requires_grad_(), *tensors[2:]]


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_values_and_gradients_are_those_of_the_plain_sums(chunk):
    hidden, head, reference, reference_head = draw()
    found = reference_kl(hidden, head, reference, reference_head, temperature=0.7, chunk_tokens=chunk)
    gradients = torch.autograd.grad((found * torch.arange(7)).sum(), (hidden, head))
    logs = [
        (states @ matrix.T / 0.7).log_softmax(-1) for states, matrix in ((hidden, head), (reference, reference_head))
    ]
    for row in range(7):
        pairs = zip(logs[0][row].tolist(), logs[1][row].tolist(), strict=True)
        assert found[row].item() == pytest.approx(sum(math.exp(q) * (q - p) for p, q in pairs))
    plain = ((logs[1].exp() * (logs[1] - logs[0])).sum(-1) * torch.arange(7)).sum()
    for one, other in zip(gradients, torch.autograd.grad(plain, (hidden, head)), strict=True):
        torch.testing.assert_close(one, other)


def test_equal_policies_do_not_diverge_and_none_give_none():
    hidden, head, *_ = draw(torch.float32)
    assert reference_kl(hidden, head, hidden, head).abs().max() < 1e-6
    assert reference_kl(hidden[:0], head, hidden[:0], head).shape == (0,)


def test_wrong_input_is_named():
    hidden, head, reference, reference_head = draw()
    with pytest.raises(ValueError, match="have 7 and 6 rows"):
        reference_kl(hidden, head, reference[:6], reference_head)
    with pytest.raises(ValueError, match="`temperature` is 0 and `chunk_tokens` 512"):
        reference_kl(hidden, head, reference, reference_head, temperature=0)
