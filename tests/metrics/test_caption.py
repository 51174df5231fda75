"""Caption events against loops over lists, with judges that fail and answers that are missing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics import CaptionEvents

FLAGS = st.lists(st.booleans(), max_size=5)


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def share(flags):
    return sum(flags) / len(flags) if flags else 1.0


def mean(scores):
    return sum(scores) / len(scores)


@given(st.lists(st.tuples(st.none() | FLAGS, st.none() | FLAGS), min_size=1, max_size=8))
def test_equals_the_loop(pairs):
    metric = CaptionEvents()
    metric.update(*zip(*pairs, strict=True))
    scores = []
    for told, true in pairs:
        if told is None:
            scores.append((0.0, 0.0))
        elif true is not None:
            scores.append((share(told), share(true)))
    if not scores:
        return
    found = values(metric)
    precision, recall = (mean(side) for side in zip(*scores, strict=True))
    assert found["precision"] == pytest.approx(precision)
    assert found["recall"] == pytest.approx(recall)
    assert found["f1"] == pytest.approx(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    assert found["judged"] == pytest.approx(len(scores) / len(pairs))


def test_the_judge_reads_pairs_and_may_fail():
    asked = []

    def judge(told, true):
        asked.append((told, true))
        if told == "unreadable":
            return None
        return [event in true for event in told.split()], [event in told for event in true.split()]

    metric = CaptionEvents(judge)
    metric.update(["cut fry", "unreadable", None], ["cut", "wash", "eat"])
    assert asked == [("cut fry", "cut"), ("unreadable", "wash")]
    assert values(metric) == pytest.approx({"precision": 0.25, "recall": 0.5, "f1": 1 / 3, "judged": 2 / 3})


def test_scores_are_per_sample_and_nan_where_judging_failed():
    found = CaptionEvents().score([[True, False], [], None, [True]], [[0.25], [], [True], None])
    assert found.precision.tolist()[:3] == [0.5, 1.0, 0.0]
    assert found.recall.tolist()[:3] == [0.25, 1.0, 0.0]
    assert found.f1.tolist()[:3] == [pytest.approx(1 / 3), 1.0, 0.0]
    assert all(math.isnan(score[3]) for score in found)
    assert found.recall.dtype == torch.float64


def test_nothing_judged_is_nan_with_a_warning():
    metric = CaptionEvents()
    metric.update([[True]], [None])
    with pytest.warns(UserWarning, match="`CaptionEvents` saw no samples"):
        found = values(metric)
    assert math.isnan(found["recall"])
    assert math.isnan(found["f1"])
    assert found["judged"] == 0.0


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="`prediction` holds 2 captions for 1 targets"):
        CaptionEvents().update([[True], [True]], [[True]])
    with pytest.raises(ValueError, match="Sample 1 flags its predicted event 0 with -1;"):
        CaptionEvents().update([[True], [-1.0]], [[True], [True]])
    with pytest.raises(ValueError, match="Sample 0 flags its true event 1 with nan;"):
        CaptionEvents().update([[True, True, False]], [[True, float("nan")]])
    CaptionEvents(validate_args=False).update([[2.0]], [[True]])
