"""EvidenceF1 on spans and on frames, against the functionals sample by sample."""

import math

import pytest
import torch

from m1lite.metrics import EvidenceF1
from m1lite.metrics.functional import frame_precision_recall, span_precision_recall

CLUES = [[[2.0, 4.0], [6.0, 8.0]], [[0.0, 1.0]], []]
SPANS = [[[0.0, 3.0], [7.0, 9.0]], [], []]
FRAMES = [[1.0, 3.0, 3.5, 7.0], [], []]


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def tensor(rows, width):
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, width)


@pytest.mark.parametrize("kind", ["spans", "frames"])
@pytest.mark.parametrize("as_tensors", [False, True])
def test_values_are_means_of_the_functional(kind, as_tensors):
    chosen = SPANS if kind == "spans" else FRAMES
    expected = []
    for answer, clues in zip(chosen, CLUES, strict=True):
        rows = tensor(answer, 2) if kind == "spans" else torch.tensor(answer, dtype=torch.float64)
        score = span_precision_recall if kind == "spans" else frame_precision_recall
        expected.append([share.item() for share in score(rows, tensor(clues, 2))])
    if as_tensors:
        chosen = [tensor(answer, 2) if kind == "spans" else torch.tensor(answer).double() for answer in chosen]
    metric = EvidenceF1()
    metric.update([*chosen, None], [*CLUES, []])
    found = values(metric)
    for place, name in enumerate(("precision", "recall", "f1")):
        assert found[name] == pytest.approx(sum(row[place] for row in expected) / 4)
    assert metric.score([*chosen, None], [*CLUES, []]).tolist() == pytest.approx([row[2] for row in expected] + [0.0])


def test_frames_and_spans_as_padded_tensors():
    clues = torch.tensor([[[2.0, 4.0], [6.0, 8.0]], [[0.0, 1.0], [math.nan, math.nan]]])
    frames = torch.tensor([[1.0, 3.0], [0.5, math.nan]])
    assert EvidenceF1.score(frames, clues).tolist() == pytest.approx([0.5, 1.0])
    assert EvidenceF1.score(clues, clues).tolist() == pytest.approx([1.0, 1.0])


def test_no_answer_may_leave_the_mean():
    metric = EvidenceF1(missing="skip")
    metric.update([None, [[0.0, 1.0]]], [[[0.0, 1.0]]] * 2)
    assert values(metric) == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    metric.reset()
    metric.update([None], [[]])
    with pytest.warns(UserWarning, match="`EvidenceF1` saw no samples"):
        assert all(math.isnan(value) for value in values(metric).values())


def test_errors_name_the_value():
    update = EvidenceF1().update
    with pytest.raises(ValueError, match=r"`target\[0\]\[0\]` is \[3\.0, 1\.0\]"):
        update([[1.0]], [[[3.0, 1.0]]])
    with pytest.raises(ValueError, match=r"`prediction\[0\]` has shape \(1, 3\); it must be \(rows, 2\)"):
        update([[[1.0, 2.0, 3.0]]], [[]])
    with pytest.raises(ValueError, match="`missing` is 'no'"):
        EvidenceF1(missing="no")
