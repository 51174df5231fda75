from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m1lite.video.sampling import clip_windows, rate_times, uniform_times

WINDOWS = st.tuples(st.integers(0, 60), st.integers(1, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(WINDOWS, st.integers(1, 32))
def test_uniform_times_are_the_middles_of_equal_parts(window, num_frames):
    start, end = window
    step = Fraction(end - start, num_frames)
    expected = [float(start + step * i + step / 2) for i in range(num_frames)]
    assert uniform_times(start, end, num_frames) == pytest.approx(expected)


@given(WINDOWS, st.sampled_from([0.5, 1, 2, 3, 4, 5, 8, 29.97]))
def test_rate_times_fill_the_window(window, fps):
    start, end = window
    step, expected = 1 / Fraction(str(fps)), []
    while start + step * len(expected) < end:
        expected.append(float(start + step * len(expected)))
    times = rate_times(start, end, fps)
    assert times == pytest.approx(expected)
    assert all(start <= time < end for time in times)


def test_whole_seconds_stay_exact():
    assert [time for time in rate_times(7, 40, 5) if time == int(time)] == list(range(7, 40))


@given(st.integers(1, 64), st.integers(1, 12))
def test_clips_tile_the_video(duration, clip_seconds):
    clips = clip_windows(duration, clip_seconds)
    assert clips[0][0] == 0
    assert clips[-1][1] == duration
    assert all(one[1] == other[0] for one, other in pairwise(clips))
    assert all(end - start == clip_seconds for start, end in clips[:-1])
    assert 0 < clips[-1][1] - clips[-1][0] <= clip_seconds


@pytest.mark.parametrize("sample", [uniform_times, rate_times])
def test_bad_windows_name_the_values(sample):
    with pytest.raises(ValueError, match=r"got start=5, end=5"):
        sample(5, 5, 2)
    with pytest.raises(ValueError, match=r"got start=-1, end=5"):
        sample(-1, 5, 2)
    with pytest.raises(ValueError, match=r"got start=0, end=nan"):
        sample(0, float("nan"), 2)


def test_bad_counts_name_the_value():
    with pytest.raises(ValueError, match="`num_frames` must be at least 1, got 0"):
        uniform_times(0, 5, 0)
    with pytest.raises(ValueError, match="`fps` must be above 0, got 0"):
        rate_times(0, 5, 0)
    with pytest.raises(ValueError, match="`clip_seconds` must be above 0, got -8"):
        clip_windows(20, -8)
