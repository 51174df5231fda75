"""DREAM-1K's table by hand, and against numpy's own mean and rounding."""

import math
import random

import numpy as np
import pytest

from m1lite.metrics.presets import find_preset
from m1lite.metrics.presets.caption import DREAM_1K, DreamItem, dream_f1, dream_score


def test_the_table_by_hand():
    items = [
        DreamItem(true=["entailment", "neutral"], predicted=["entailment"], subtask="b"),
        DreamItem(true=["Entailment "], predicted=["contradiction", "entailment"], subtask="b"),
        DreamItem(true=[], predicted=["neutral"], subtask="a"),
        DreamItem(true=None, predicted=["entailment"], subtask="a"),
        DreamItem(true=["entailment"], predicted=None, subtask="only failures"),
    ]
    with pytest.warns(UserWarning, match="saw no samples"):
        found = find_preset("dream_1k").score(items)
    assert found == {
        "a/F1 Score": 0.0,
        "a/Action Recall": 1.0,
        "a/Action Precision": 0.0,
        "a/Success": 1.0,
        "a/Failed": 1.0,
        "b/F1 Score": 0.75,
        "b/Action Recall": 0.75,
        "b/Action Precision": 0.75,
        "b/Success": 2.0,
        "b/Failed": 0.0,
        "OVERALL/F1 Score": 0.525,  # of the unweighted means 0.875 and 0.375
        "OVERALL/Action Recall": 0.875,
        "OVERALL/Action Precision": 0.375,
        "OVERALL/Success": 3.0,
        "OVERALL/Failed": 2.0,
    }


@pytest.mark.parametrize("seed", range(20))
def test_rounds_as_numpy_does(seed):
    dice = random.Random(seed)
    scores = [(round(dice.random(), 3), round(dice.random(), 3)) for _ in range(8)]  # means of eight: many halves
    metric = DREAM_1K.metric()
    for precision, recall in scores:
        metric.update([[precision]], [[recall]], ["x"])
    found = DREAM_1K.report(metric.compute())
    precision, recall = (np.average(side) for side in zip(*scores, strict=True))
    assert found["x/Action Precision"] == np.round(precision, 3)
    assert found["x/Action Recall"] == np.round(recall, 3)
    assert found["x/F1 Score"] == np.round(2 * recall * precision / (recall + precision), 3)


def test_no_videos_give_nan():
    with pytest.warns(UserWarning, match="saw no samples"):
        found = DREAM_1K.score([DreamItem(true=None, predicted=None)])
    assert {name: value for name, value in found.items() if not math.isnan(value)} == {
        "OVERALL/Success": 0.0,
        "OVERALL/Failed": 1.0,
    }


def test_one_side():
    assert dream_score(["contradiction"], 0) == 1.0
    assert dream_score(["neutral", "ENTAILMENT"], 2) == 0.5
    assert dream_score(["neutral", "ENTAILMENT"], 2, neutral=True) == 1.0
    assert math.isnan(dream_f1(0.0, 0.0))


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="3 relations for 2 events"):
        dream_score(["neutral"] * 3, 2)
    with pytest.raises(ValueError, match="relation 'maybe'; there are"):
        dream_score(["Maybe"], 1)
