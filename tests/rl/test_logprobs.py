"""Log-probs against loops over the vocabulary, and the chunked form against the plain one."""

import math

import pytest
import torch

from m1lite.rl.logprobs import hidden_logprobs, token_entropies, token_logprobs


def draw(tokens=(2, 7), width=8, vocabulary=13, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*tokens, width, generator=generator, dtype=dtype)
    head = torch.randn(vocabulary, width, generator=generator, dtype=dtype)
    ids = torch.randint(0, vocabulary, tokens, generator=generator)
    return hidden, head, ids


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_token_logprobs_and_entropies_equal_the_loop(temperature):
    hidden, head, ids = draw()
    logits = hidden @ head.T
    found = token_logprobs(logits, ids, temperature=temperature)
    entropies = token_entropies(logits, temperature=temperature)
    for row in range(2):
        for column in range(7):
            weights = [math.exp(z / temperature) for z in logits[row, column].tolist()]
            probs = [weight / sum(weights) for weight in weights]
            assert found[row, column].item() == pytest.approx(math.log(probs[ids[row, column]]))
            assert entropies[row, column].item() == pytest.approx(-sum(p * math.log(p) for p in probs))


def test_temperature_is_that_of_the_sampler():
    logits = torch.tensor([[2.0, 0.0]])
    assert token_logprobs(logits, torch.tensor([0]), temperature=2.0).item() == pytest.approx(
        math.log(math.e / (math.e + 1)), abs=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_cast_up(dtype):
    hidden, head, ids = draw(dtype=torch.float32)
    logits = (hidden @ head.T).to(dtype)
    found = token_logprobs(logits, ids)
    assert found.dtype == torch.float32
    assert torch.equal(found, token_logprobs(logits.float(), ids))


def test_entropy_of_a_certain_token_is_zero_not_nan():
    assert token_entropies(torch.tensor([[0.0, float("-inf")]])).item() == 0.0
    assert token_entropies(torch.tensor([[0.0, 500.0]])).item() == 0.0


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 14, 100, None])
def test_chunks_equal_the_plain_form_with_gradients(trained_head, chunk):
    hidden, head, ids = draw()
    hidden.requires_grad_()
    head.requires_grad_(trained_head)
    upstream = torch.randn(ids.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, entropies = hidden_logprobs(hidden, head, ids, temperature=0.7, chunk_tokens=chunk, entropies=True)
    inputs = (hidden, head) if trained_head else (hidden,)
    gradients = torch.autograd.grad((found * upstream).sum(), inputs)
    logits = hidden @ head.T
    plain = token_logprobs(logits, ids, temperature=0.7)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(entropies, token_entropies(logits, temperature=0.7))
    assert not entropies.requires_grad
    for ours, theirs in zip(gradients, torch.autograd.grad((plain * upstream).sum(), inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("chunk", [3, 14, None])
def test_entropies_carry_a_gradient_where_asked(trained_head, chunk):
    hidden, head, ids = draw()
    hidden.requires_grad_()
    head.requires_grad_(trained_head)
    first, second = torch.randn(2, *ids.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = (hidden, head) if trained_head else (hidden,)
    found, entropies = hidden_logprobs(
        hidden, head, ids, temperature=0.7, chunk_tokens=chunk, entropies=True, entropy_gradient=True
    )
    logits = hidden @ head.T
    plain, spread = token_logprobs(logits, ids, temperature=0.7), token_entropies(logits, temperature=0.7)
    torch.testing.assert_close(entropies, spread)
    for ours, theirs in (
        ((found * first + entropies * second).sum(), (plain * first + spread * second).sum()),
        ((entropies * second).sum(), (spread * second).sum()),
    ):
        pairs = zip(
            torch.autograd.grad(ours, inputs, retain_graph=True),
            torch.autograd.grad(theirs, inputs, retain_graph=True),
            strict=True,
        )
        for mine, other in pairs:
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("trained_head", [False, True])
def test_under_autocast_products_run_in_its_type_and_gradients_keep_theirs(trained_head):
    hidden, head, ids = draw(tokens=(32,), width=16, vocabulary=50, dtype=torch.float32)
    hidden.requires_grad_()
    head.requires_grad_(trained_head)
    inputs = (hidden, head) if trained_head else (hidden,)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, entropies = hidden_logprobs(hidden, head, ids, chunk_tokens=10, entropies=True)
    gradients = torch.autograd.grad(found.sum(), inputs)
    halves = [value.detach().bfloat16().requires_grad_() for value in (hidden, head)]
    expected, spread = hidden_logprobs(*halves, ids, chunk_tokens=10, entropies=True)
    assert torch.equal(found, expected)
    assert torch.equal(entropies, spread)
    for gradient, other in zip(gradients, torch.autograd.grad(expected.sum(), halves), strict=False):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, other.float(), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("trained_head", [False, True])
def test_the_gradient_of_the_entropies_passes_a_numerical_check(trained_head):
    hidden, head, ids = draw(tokens=(3,), width=4, vocabulary=5)
    hidden.requires_grad_()
    head.requires_grad_(trained_head)
    options = {"temperature": 1.3, "chunk_tokens": 2, "entropies": True, "entropy_gradient": True}
    assert torch.autograd.gradcheck(lambda *inputs: hidden_logprobs(*inputs, ids, **options), (hidden, head))


def test_the_frozen_gradient_passes_a_numerical_check():
    hidden, head, ids = draw(tokens=(3,), width=4, vocabulary=5)
    hidden.requires_grad_()
    assert torch.autograd.gradcheck(lambda h: hidden_logprobs(h, head, ids, temperature=1.3, chunk_tokens=2)[0], hidden)


def test_without_gradient_the_values_are_the_same():
    hidden, head, ids = draw()
    with torch.no_grad():
        found, entropies = hidden_logprobs(hidden.requires_grad_(), head.requires_grad_(), ids, chunk_tokens=4)
    assert entropies is None
    assert not found.requires_grad
    assert found.grad_fn is None
    torch.testing.assert_close(found, token_logprobs(hidden @ head.T, ids).detach())


def test_only_the_head_is_trained():
    hidden, head, ids = draw()
    head.requires_grad_()
    (ours,) = torch.autograd.grad(hidden_logprobs(hidden, head, ids, chunk_tokens=5)[0].sum(), head)
    (theirs,) = torch.autograd.grad(token_logprobs(hidden @ head.T, ids).sum(), head)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("trained_head", [False, True])
def test_no_tokens_are_legal(trained_head):
    hidden, head, ids = draw(tokens=(0,))
    hidden.requires_grad_()
    head.requires_grad_(trained_head)
    found, entropies = hidden_logprobs(hidden, head, ids, entropies=True)
    assert found.shape == entropies.shape == (0,)
    found.sum().backward()
    assert hidden.grad.shape == (0, 8)


def test_large_logits_stay_finite():
    hidden, head, ids = draw(dtype=torch.float32)
    found, entropies = hidden_logprobs(1000 * hidden, head, ids, entropies=True)
    torch.testing.assert_close(found, token_logprobs(1000 * hidden @ head.T, ids))
    assert entropies.isfinite().all()


@pytest.mark.parametrize("trained_head", [False, True])
def test_bfloat16_stays_close_to_float32(trained_head):
    hidden, head, ids = draw(tokens=(32,), width=16, vocabulary=50, dtype=torch.float32)
    hidden, head = hidden.bfloat16().requires_grad_(), head.bfloat16().requires_grad_(trained_head)
    found, _ = hidden_logprobs(hidden, head, ids, chunk_tokens=10)
    (gradient,) = torch.autograd.grad(found.sum(), hidden)
    exact = hidden.detach().float().requires_grad_()
    plain = token_logprobs(exact @ head.detach().float().T, ids)
    (expected,) = torch.autograd.grad(plain.sum(), exact)
    assert found.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain, atol=0.1, rtol=0.02)
    torch.testing.assert_close(gradient.float(), expected, atol=0.05, rtol=0.02)


def test_the_widest_tensor_is_one_chunk():
    hidden, head, ids = draw(tokens=(64,), vocabulary=1000, dtype=torch.float32)
    hidden.requires_grad_()
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple) else (result,):
                if isinstance(tensor, torch.Tensor) and tensor.shape[-1:] == (1000,):
                    largest = max(largest, tensor.numel())
            return result

    with Watch():
        hidden_logprobs(hidden, head, ids, chunk_tokens=8, entropies=True)[0].sum().backward()
    assert largest == 8 * 1000


def test_errors_name_the_value():
    hidden, head, ids = draw()
    with pytest.raises(ValueError, match=r"`temperature` is 0"):
        token_logprobs(hidden @ head.T, ids, temperature=0)
    with pytest.raises(ValueError, match=r"`ids` has shape \(2, 6\); it must be \(2, 7\)"):
        hidden_logprobs(hidden, head, ids[:, :6])
    with pytest.raises(ValueError, match=r"`head` has shape \(13, 7\); it must be \(vocabulary, 8\)"):
        hidden_logprobs(hidden, head[:, :7], ids)
    with pytest.raises(ValueError, match=r"`head` is torch.float32 but `hidden` is torch.float64"):
        hidden_logprobs(hidden, head.float(), ids)
    with pytest.raises(ValueError, match=r"`entropy_gradient` is True but `entropies` is False"):
        hidden_logprobs(hidden, head, ids, entropy_gradient=True)
    with pytest.raises(ValueError, match=r"`chunk_tokens` is 0"):
        hidden_logprobs(hidden, head, ids, chunk_tokens=0)


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("chunk", [3, None])
def test_tokens_that_are_never_sampled_are_as_good_as_absent(trained_head, chunk):
    hidden, head, ids = draw()
    never = torch.tensor([4, 12])
    kept = [token for token in range(len(head)) if token not in never.tolist()]
    ids = torch.tensor(kept)[ids % len(kept)]  # what was sampled is never among them
    small_ids = torch.tensor([[kept.index(token) for token in row] for row in ids.tolist()])
    found, expected = [], []
    for results, rows, targets, options in (
        (found, head, ids, {"never": never}),
        (expected, head[kept], small_ids, {}),
    ):
        states = hidden.clone().requires_grad_()
        rows = rows.clone().requires_grad_(trained_head)
        scores, spread = hidden_logprobs(
            states, rows, targets, temperature=0.7, chunk_tokens=chunk, entropies=True, entropy_gradient=True, **options
        )
        (scores.sum() + 0.3 * (spread**2).sum()).backward()
        results += [scores.detach(), spread.detach(), states.grad, rows.grad]
    if trained_head:
        assert found[3][never].abs().max() == 0
        found[3] = found[3][kept]
    for ours, theirs in zip(found[: 3 + trained_head], expected[: 3 + trained_head], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)


def test_a_token_that_cannot_have_been_sampled_has_no_probability():
    hidden, head, ids = draw()
    scores, _ = hidden_logprobs(hidden, head, torch.full_like(ids, 4), never=torch.tensor([4]))
    assert (scores < -1e20).all()
