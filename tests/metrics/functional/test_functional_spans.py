"""Sets of spans against counting the steps of a grid that both cover."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import frame_precision_recall, span_precision_recall, temporal_set_iou
from m1lite.metrics.functional.spans import merge_spans

NAN = float("nan")
STEPS = st.integers(0, 30)
ANY_SPAN = st.tuples(STEPS, STEPS)  # reversed and without length too
SETS = st.lists(ANY_SPAN, max_size=5)
SAMPLES = st.lists(st.tuples(SETS, SETS), min_size=1, max_size=6)


def covered(spans):
    """The steps of length 1 that spans with whole bounds cover."""
    return {step for start, end in spans for step in range(start, end)}


def share(part, whole):
    return len(part) / len(whole) if whole else 0.0


def padded(sets, width=2):
    """Sets as one tensor, with padding of NaN at random places."""
    most = max(map(len, sets))
    rows = torch.full((len(sets), most, width), NAN, dtype=torch.float64)
    for index, values in enumerate(sets):
        places = sorted(torch.randperm(most)[: len(values)].tolist())
        for place, value in zip(places, values, strict=True):
            rows[index, place] = torch.tensor(value, dtype=torch.float64)
    return rows


@given(SAMPLES, st.sampled_from([0.0, 1.0]))
def test_set_iou_equals_counting_steps(samples, empty):
    chosen, true = (padded(list(side)) for side in zip(*samples, strict=True))
    expected = [share(covered(a) & covered(b), covered(a) | covered(b)) if a or b else empty for a, b in samples]
    assert temporal_set_iou(chosen, true, empty=empty).tolist() == pytest.approx(expected)


@given(SAMPLES)
def test_precision_and_recall_equal_counting_steps(samples):
    chosen, true = (padded(list(side)) for side in zip(*samples, strict=True))
    found = span_precision_recall(chosen, true)
    for row, (a, b) in enumerate(samples):
        inter = covered(a) & covered(b)
        precision, recall = (share(inter, covered(a)), share(inter, covered(b))) if a or b else (1.0, 1.0)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert [values[row].item() for values in found] == pytest.approx([precision, recall, f1])


@given(st.lists(st.tuples(st.lists(STEPS, max_size=6), SETS), min_size=1, max_size=6))
def test_frames_equal_the_loop(samples):
    times, true = (padded([[[t] for t in frames] for frames, _ in samples], 1)[..., 0], padded([s for _, s in samples]))
    found = frame_precision_recall(times, true)
    for row, (frames, spans) in enumerate(samples):
        inside = [time for time in frames if any(start <= time < end for start, end in spans)]
        seen = [span for span in spans if any(span[0] <= time < span[1] for time in frames)]
        precision, recall = (share(inside, frames), share(seen, spans)) if frames or spans else (1.0, 1.0)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert [values[row].item() for values in found] == pytest.approx([precision, recall, f1])


@given(SETS)
def test_merged_spans_cover_the_same_and_do_not_meet(spans):
    merged = [row for row in merge_spans(padded([spans]))[0].tolist() if not math.isnan(row[0])]
    assert covered([(int(start), int(end)) for start, end in merged]) == covered(spans)
    assert all(before[1] < after[0] for before, after in pairwise(merged))


@given(SETS, SETS)
def test_set_iou_is_symmetric_and_1_only_for_equal_cover(first, second):
    one, other = padded([first])[0], padded([second])[0]
    iou = temporal_set_iou(one, other)
    assert iou == temporal_set_iou(other, one)
    assert (iou == 1) == ((covered(first) == covered(second) != set()) or not (first or second))


def test_any_leading_shape():
    sets = torch.rand(2, 3, 4, 2).sort(-1).values
    found = temporal_set_iou(sets, sets[:1, :1])
    assert found.shape == (2, 3)
    assert found[1, 2].item() == pytest.approx(temporal_set_iou(sets[1, 2], sets[0, 0]).item())
    assert span_precision_recall(sets, sets).f1.flatten().tolist() == pytest.approx([1.0] * 6)


def test_disjoint_spans_score_exactly_zero_in_float32():
    assert temporal_set_iou(torch.tensor([[3000.1, 3000.2]]), torch.tensor([[0.0, 3000.1]])).item() == 0.0


def test_integers_and_half_precision_are_cast_up():
    for dtype in (torch.int64, torch.bfloat16):
        found = temporal_set_iou(torch.tensor([[0, 3]], dtype=dtype), torch.tensor([[0, 4]], dtype=dtype))
        assert found.dtype == torch.float32
        assert found.item() == 0.75


def test_errors_name_the_shape():
    for score in (temporal_set_iou, span_precision_recall):
        with pytest.raises(ValueError, match=r"`prediction` has shape \(2,\); a set of spans is"):
            score(torch.zeros(2), torch.zeros(1, 2))
        with pytest.raises(ValueError, match=r"`target` has shape \(1, 3\); its last dimension must hold 2"):
            score(torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"`target` has shape \(2,\); a set of spans is"):
        frame_precision_recall(torch.zeros(3), torch.zeros(2))
