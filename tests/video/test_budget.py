"""Frame budgets: the bounds hold for every size, which is that of the families' own rule where it keeps them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from m1lite.video.budget import FrameBudget


@given(
    height=st.integers(16, 2000),
    width=st.integers(16, 2000),
    num_frames=st.integers(1, 64),
    factor=st.sampled_from([16, 28, 32]),
    total=st.integers(64, 4096),
)
def test_bounds_hold_for_every_size(height, width, num_frames, factor, total):
    unit = factor**2
    budget = FrameBudget(min_frame_pixels=unit, max_frame_pixels=256 * unit, total_pixels=total * unit)
    rows, columns = (edge // factor for edge in budget.size(height, width, num_frames, factor=factor))
    assert budget.size(height, width, num_frames, factor=factor) == (rows * factor, columns * factor)
    assert rows >= 1
    assert columns >= 1
    assert rows * columns <= min(256, total // num_frames)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (480, 854), (1080, 1920), (30, 400), (20, 24), (333, 97)])
@pytest.mark.parametrize("factor", [28, 32])
def test_sizes_of_one_frame_are_those_of_the_families(height, width, factor):
    budget = FrameBudget(min_frame_pixels=4 * factor**2, max_frame_pixels=64 * factor**2)
    expected = smart_resize(height, width, factor, 4 * factor**2, 64 * factor**2)
    assert budget.size(height, width, 1, factor=factor) == expected


def test_times_follow_the_rate_until_there_is_no_room():
    assert FrameBudget(fps=2, max_frames=8).times(3, 5) == [3.0, 3.5, 4.0, 4.5]
    assert FrameBudget(fps=2, max_frames=2).times(3, 5) == [3.5, 4.5]
    tight = FrameBudget(min_frame_pixels=100, max_frame_pixels=100, total_pixels=399)
    assert tight.most_frames == 3
    assert len(tight.times(0, 1000)) == 3
    assert FrameBudget(fps=0.1).times(0, 3) == [0.0]  # shorter than one period: one frame


def test_what_does_not_fit_is_named():
    budget = FrameBudget(min_frame_pixels=100, max_frame_pixels=100, total_pixels=399)
    with pytest.raises(ValueError, match="4 frames do not fit: the budget holds 1 to 3"):
        budget.size(10, 10, 4, factor=5)
    with pytest.raises(ValueError, match="4 x 1000 pixels is too long"):
        FrameBudget().size(4, 1000, 1, factor=28)
    with pytest.raises(ValueError, match="`fps` is 0; it must be above 0"):
        FrameBudget(fps=0)
    with pytest.raises(ValueError, match="`min_frame_pixels` is 100, above"):
        FrameBudget(min_frame_pixels=100, max_frame_pixels=99)
