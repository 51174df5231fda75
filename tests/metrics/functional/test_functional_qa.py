"""Options and numbers, by hand and against plain comparison."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import choice_match, numeric_match


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1))
def test_choice_match_equals_plain_comparison(pairs):
    chosen, right = (torch.tensor(side) for side in zip(*pairs, strict=True))
    assert choice_match(chosen, right).tolist() == [float(c == r >= 0) for c, r in pairs]


def test_numeric_match_by_hand():
    found = numeric_match(
        torch.tensor([3.0, 4.0, float("nan"), float("inf"), -3.0]), torch.tensor([3.0, 3.0, 3.0, float("inf"), 3.0])
    )
    assert found.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert numeric_match(torch.tensor([3, 4, 5]), torch.tensor([4, 4, 3]), tolerance=1).tolist() == [1.0, 1.0, 0.0]


def test_errors_name_the_value():
    with pytest.raises(TypeError, match=r"`prediction` has dtype torch\.float32"):
        choice_match(torch.tensor([1.0]), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"`prediction` has shape \(2,\) and `target` \(1,\)"):
        choice_match(torch.tensor([1, 2]), torch.tensor([1]))
    with pytest.raises(ValueError, match="`tolerance` is -1"):
        numeric_match(torch.tensor([1.0]), torch.tensor([1.0]), tolerance=-1)
