"""Mean relative accuracy against a loop over ten tolerances, and at its edges."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from m1lite.metrics.functional import mean_relative_accuracy

LEVELS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95]
NUMBERS = st.one_of(
    st.integers(-40, 40).map(lambda n: n / 4), st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf])
)


def reference(value, true, *, strict):
    if not (math.isfinite(value) and math.isfinite(true)):
        return 0.0
    if true == 0:
        return float(value == 0)
    error = abs(value - true) / abs(true)
    return sum(error < 1 - level if strict else error <= 1 - level for level in LEVELS) / 10


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20), st.booleans())
@example([(90.0, 100.0), (0.9, 1.0), (85.0, 100.0), (0.0, 0.0), (1e-300, 0.0), (-2.0, -2.0), (50.0, -2.0)], False)
def test_equals_the_loop(pairs, strict):
    values, trues = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    found = mean_relative_accuracy(values, trues, strict=strict)
    assert found.tolist() == pytest.approx([reference(*pair, strict=strict) for pair in pairs])


@given(st.integers(1, 1000).map(lambda n: n / 8), st.floats(0, 1))
def test_the_nearer_the_better_on_both_sides(true, share):
    near, far = true * (1 + share / 2), true * (1 + share)
    scores = mean_relative_accuracy(torch.tensor([near, far]), torch.tensor([true, true])).tolist()
    assert 0 <= scores[1] <= scores[0] <= 1


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float32, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (torch.float64, [1.0, 0.9, 0.8, 0.6, 0.6, 0.5, 0.4, 0.3, 0.1, 0.1]),
    ],
)
def test_errors_of_multiples_of_five_percent(dtype, expected):
    # In float64 1 - 0.8 and 1 - 0.55 lie below 0.2 and 0.45; these are the official values.
    values = torch.tensor([100 + 5 * step for step in range(1, 11)], dtype=dtype)
    assert mean_relative_accuracy(values, torch.full_like(values, 100)).tolist() == pytest.approx(expected)


def test_strict_leaves_out_an_error_at_the_tolerance():
    value, true = torch.tensor([5.0, 9.0]), torch.tensor([10.0, 10.0])
    assert mean_relative_accuracy(value, true).tolist() == pytest.approx([0.1, 0.9])
    assert mean_relative_accuracy(value, true, strict=True).tolist() == pytest.approx([0.0, 0.8])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_casts_up_and_keeps_the_shape(dtype):
    found = mean_relative_accuracy(torch.tensor([[3, 4]], dtype=dtype), torch.tensor([[3, 8]], dtype=dtype))
    assert found.dtype == torch.float32
    assert found.tolist() == [[1.0, pytest.approx(0.1)]]


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match=r"`prediction` has shape \(2,\) and `target` \(3,\)"):
        mean_relative_accuracy(torch.ones(2), torch.ones(3))
