from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m1lite.video.sampling import (
    clip_windows,
    clue_times,
    finer_windows,
    frame_budget,
    rate_times,
    relevant_times,
    shot_times,
    uniform_times,
)

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


@st.composite
def shot_lists(draw):
    """Shots in order, some with gaps between them."""
    edges = sorted(draw(st.sets(st.integers(0, 600), min_size=2, max_size=16)))
    shots = list(pairwise(edges))
    kept = draw(st.lists(st.sampled_from(shots), min_size=1, unique=True))
    return sorted(kept)


@given(shot_lists(), st.integers(1, 40))
def test_shot_times_lie_in_shots(shots, num_frames):
    times = shot_times(shots, num_frames)
    assert len(times) == num_frames
    assert times == sorted(set(times))
    counts = [sum(start <= time < end for time in times) for start, end in shots]
    assert sum(counts) == num_frames
    if num_frames >= len(shots):
        assert min(counts) >= 1
    else:  # the longest ones, one each
        seen = [end - start for (start, end), count in zip(shots, counts, strict=True) if count]
        unseen = [end - start for (start, end), count in zip(shots, counts, strict=True) if not count]
        assert max(counts) == 1
        assert min(seen) >= max(unseen)


@given(shot_lists(), st.integers(1, 40))
def test_more_times_go_where_they_are_sparse(shots, num_frames):
    """No time moved to another shot would make the widest step between times smaller."""
    times = shot_times(shots, num_frames)
    counts = [sum(start <= time < end for time in times) for start, end in shots]
    for (start, end), count in zip(shots, counts, strict=True):
        if count > 1:  # the last time that came here found steps at least as wide as those of any other shot now
            others = [(last - first) / (n + 1) for (first, last), n in zip(shots, counts, strict=True) if n]
            assert (end - start) / count >= max(others) - 1e-9


@given(WINDOWS, st.lists(st.tuples(st.integers(-9, 130), st.integers(-9, 130)), max_size=5), st.integers(1, 64))
def test_clue_times_follow_the_formula(window, clues, num_frames):
    start, end = window
    times = clue_times(start, end, clues, num_frames)
    assert len(times) == num_frames
    assert times == sorted(times)
    assert all(start <= time < end for time in times)
    inside = {s for s in range(start, end) if any(one <= s < other for one, other in clues)}
    num_inside = sum(int(time) in inside for time in times)
    parts = sum(s - 1 not in inside for s in inside)
    key, rest = len(inside), end - start - len(inside)
    expected = max(round(num_frames * 1.5 * key / (1.5 * key + rest)), parts)
    assert num_inside == (min(expected, num_frames) if key else 0)


def test_clue_times_are_denser_inside():
    times = clue_times(0, 100, [(20, 30), (70, 80)], 110)
    inside = [time for time in times if 20 <= time < 30 or 70 <= time < 80]
    assert len(inside) / 20 == pytest.approx(1.5 * (len(times) - len(inside)) / 80)
    assert clue_times(0, 10, [(12, 14), (5, 5)], 4) == uniform_times(0, 10, 4)  # no clue is left
    assert clue_times(0, 10, [(-5, 20)], 4) == uniform_times(0, 10, 4)  # nothing is left outside


@given(st.integers(1, 300), st.tuples(st.integers(56, 2160), st.integers(56, 3840)), st.integers(100, 20_000))
def test_budgets_hold(num_frames, size, max_tokens):
    try:
        kept, (height, width) = frame_budget(num_frames, size, max_tokens)
    except ValueError:
        # Not one frame with a short side of two patches fits.
        assert 2 * round(2 * max(size) / min(size)) > max_tokens
        return
    assert kept * (height // 28) * (width // 28) <= max_tokens
    assert 1 <= kept <= num_frames
    assert height % 28 == width % 28 == 0
    assert 28 <= height <= size[0]
    assert 28 <= width <= size[1]
    if kept < num_frames:  # frames are given up only where they are as small as may be
        assert min(height, width) <= 56 + 28


@given(st.integers(1, 64), st.integers(2000, 20_000))
def test_fewer_frames_are_not_smaller(num_frames, max_tokens):
    pixels = []
    for count in (num_frames, 2 * num_frames):
        kept, (height, width) = frame_budget(count, (720, 1280), max_tokens)
        if kept == count:
            pixels.append(height * width)
    assert pixels == sorted(pixels, reverse=True)


SCORED = st.lists(
    st.tuples(st.integers(0, 200), st.floats(-5, 5)), min_size=1, max_size=30, unique_by=lambda row: row[0]
)


@given(SCORED, st.integers(1, 40), st.floats(0, 50))
def test_relevant_times_are_candidates_that_keep_apart(rows, num_frames, min_gap):
    seconds, relevance = zip(*sorted(rows), strict=True)
    times = relevant_times(seconds, relevance, num_frames, min_gap=min_gap)
    assert len(times) == min(num_frames, len(seconds))
    assert times == sorted(set(times))
    assert set(times) <= set(seconds)
    best = seconds[max(range(len(seconds)), key=lambda place: relevance[place])]
    assert relevance[seconds.index(best)] == max(relevance[seconds.index(time)] for time in times)
    if min_gap == 0:
        least = min(relevance[seconds.index(time)] for time in times)
        assert all(score <= least for second, score in zip(seconds, relevance, strict=True) if second not in times)


def test_relevant_times_keep_their_distance_where_they_can():
    seconds, relevance = list(range(10)), [0, 1, 9, 8, 7, 1, 2, 6, 1, 0]
    assert relevant_times(seconds, relevance, 3) == [2, 3, 4]
    assert relevant_times(seconds, relevance, 3, min_gap=2) == [2, 4, 7]
    assert relevant_times(seconds, relevance, 3, min_gap=4) == [2, 4, 7]  # two keep 4, the third keeps 2
    assert relevant_times([3], [1.0], 5, min_gap=9) == [3]


@given(SCORED, st.integers(1, 8))
def test_finer_windows_hold_the_best_times(rows, num_windows):
    seconds, relevance = zip(*sorted(rows), strict=True)
    windows = finer_windows(seconds, relevance, 0, 201, num_windows)
    kept = relevant_times(seconds, relevance, num_windows)
    assert 1 <= len(windows) <= num_windows
    assert all(0 <= start < end <= 201 for start, end in windows)
    assert all(one[1] < other[0] for one, other in pairwise(windows))
    assert [second for second in seconds if any(start <= second < end for start, end in windows)] == kept


def test_coarse_to_fine_finds_a_moment():
    """Each round looks at 8 times; the window around the best shrinks until the moment is found."""
    moment, window = 1234.5, (0.0, 3600.0)
    for _ in range(6):
        times = uniform_times(*window, 8)
        (window,) = finer_windows(times, [-abs(time - moment) for time in times], *window, num_windows=1)
    assert window[0] <= moment < window[1]
    assert window[1] - window[0] < 0.1


def test_bad_arguments_of_the_choices_name_the_values():
    with pytest.raises(ValueError, match=r"`shots` is empty"):
        shot_times([], 2)
    with pytest.raises(ValueError, match=r"`shots` must be in order and not overlap; one begins at 1 before 2"):
        shot_times([(0, 2), (1, 3)], 2)
    with pytest.raises(ValueError, match=r"`density` must be above 0, got 0"):
        clue_times(0, 5, [(1, 2)], 4, density=0)
    with pytest.raises(ValueError, match=r"`relevance` needs one number for each of 2 seconds, got 1"):
        relevant_times([1, 2], [1.0], 1)
    with pytest.raises(ValueError, match=r"`relevance` needs one number"):
        relevant_times([1], [float("nan")], 1)
    with pytest.raises(ValueError, match=r"`seconds` must be ascending"):
        relevant_times([2, 1], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match=r"`min_gap` must be at least 0, got -1"):
        relevant_times([1], [1.0], 1, min_gap=-1)
    with pytest.raises(ValueError, match=r"`seconds` from 1 to 9 leave the window from 2 to 10"):
        finer_windows([1, 9], [1.0, 2.0], 2, 10, 1)
    with pytest.raises(ValueError, match=r"`max_tokens` is 3, but one frame of at least 56 pixels takes 8"):
        frame_budget(4, (720, 1280), 3)
    with pytest.raises(ValueError, match=r"`size`, `patch` and `min_side` must be at least 1, got \(0, 5\), 28 and 56"):
        frame_budget(4, (0, 5), 30)
    with pytest.raises(ValueError, match=r"`fps` 1 from 0 to 1e\+300 makes more than 10000000 times; ask for fewer"):
        rate_times(0, 1e300, 1)


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
