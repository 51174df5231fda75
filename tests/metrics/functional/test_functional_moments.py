"""Average precision against a loop that walks the ranked list, and by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.metrics.functional import moment_average_precision

THRESHOLDS = [0.5, 0.7, 0.9]
BOUNDS = st.integers(0, 12)
SPANS = st.tuples(BOUNDS, BOUNDS).map(sorted)
QUERIES = st.lists(
    st.tuples(st.lists(st.tuples(SPANS, st.integers(0, 3)), max_size=6), st.lists(SPANS, max_size=4)),
    min_size=1,
    max_size=4,
)


def iou(span, true):
    inter = max(0, min(span[1], true[1]) - max(span[0], true[0]))
    union = (span[1] - span[0]) + (true[1] - true[0]) - inter
    return inter / union if inter else 0.0


def average_precision(moments, trues, threshold):
    """Walk down the ranking; then add, per right moment, the best precision from there on."""
    if not trues:
        return math.nan
    free, flags = list(range(len(trues))), []
    for span, _ in sorted(moments, key=lambda moment: -moment[1]):
        near = [index for index in free if iou(span, trues[index]) >= threshold]
        flags.append(bool(near))
        if near:
            best = max(near, key=lambda index: (iou(span, trues[index]), index))
            free.remove(best)
    precisions = [sum(flags[: rank + 1]) / (rank + 1) for rank in range(len(flags))]
    return sum(max(precisions[rank:]) for rank, right in enumerate(flags) if right) / len(trues)


def rows(sets, width):
    most = max(map(len, sets))
    return torch.tensor(
        [[list(row) for row in values] + [[math.nan] * width] * (most - len(values)) for values in sets],
        dtype=torch.float64,
    ).reshape(len(sets), most, width)


@settings(deadline=None)
@given(QUERIES)
def test_equals_the_loop(queries):
    moments = rows([[(*span, sure) for span, sure in moments] for moments, _ in queries], 3)
    trues = rows([trues for _, trues in queries], 2)
    found = moment_average_precision(moments[..., :2], moments[..., 2], trues, thresholds=THRESHOLDS)
    assert found.shape == (len(queries), 3)
    for row, (ranked, true) in enumerate(queries):
        expected = [average_precision(ranked, true, threshold) for threshold in THRESHOLDS]
        assert found[row].tolist() == pytest.approx(expected, nan_ok=True)


def test_a_true_span_counts_once_and_confidence_decides_the_order():
    spans = torch.tensor([[0.0, 10.0], [0.0, 9.0], [20.0, 30.0]])
    trues = torch.tensor([[0.0, 10.0], [20.0, 30.0]])
    falling, rising = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.5, 0.9])
    found = moment_average_precision(spans, falling, trues, thresholds=[0.5])
    assert found.tolist() == pytest.approx([0.5 * 1 + 0.5 * 2 / 3])
    assert moment_average_precision(spans, rising, trues, thresholds=[0.5]).tolist() == [1.0]


def test_nothing_predicted_and_nothing_true():
    one = torch.tensor([[0.0, 1.0]])
    assert moment_average_precision(torch.zeros(0, 2), torch.zeros(0), one, thresholds=[0.5]).tolist() == [0.0]
    found = moment_average_precision(one, torch.ones(1), torch.zeros(0, 2), thresholds=[0.5])
    assert math.isnan(found.item())


def test_two_equal_points_do_not_match():
    point = torch.tensor([[3.0, 3.0]])
    assert moment_average_precision(point, torch.ones(1), point, thresholds=[0.5]).item() == 0.0


def test_errors_name_the_shape():
    with pytest.raises(ValueError, match=r"`confidence` has shape \(2,\) and `prediction` \(3, 2\)"):
        moment_average_precision(torch.zeros(3, 2), torch.zeros(2), torch.zeros(1, 2), thresholds=[0.5])
    with pytest.raises(ValueError, match=r"`target` has shape \(1, 3\)"):
        moment_average_precision(torch.zeros(3, 2), torch.zeros(3), torch.zeros(1, 3), thresholds=[0.5])
