"""Shares of valid plans and of successful calls."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import plan_validity, tool_success

COUNTS = st.integers(0, 9).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole)))


@pytest.mark.parametrize("share", [plan_validity, tool_success])
@given(counts=st.lists(COUNTS, min_size=1, max_size=9))
def test_is_the_share_and_nan_without_any(share, counts):
    for dtype in (torch.int64, torch.float64, torch.bfloat16):
        part, whole = (torch.tensor(side, dtype=dtype) for side in zip(*counts, strict=True))
        found = share(part, whole)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for value, (some, of) in zip(found.tolist(), counts, strict=True):
            assert value == pytest.approx(some / of) if of else math.isnan(value)


def test_errors_name_the_shape():
    with pytest.raises(ValueError, match=r"`valid` has shape \(2,\) and `plans` \(3,\)"):
        plan_validity(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match=r"`successful` has shape \(2,\) and `calls` \(3,\)"):
        tool_success(torch.ones(2), torch.ones(3))
