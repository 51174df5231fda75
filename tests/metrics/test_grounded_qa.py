"""GroundedQA and ClueGroundedQA against loops over Python lists, what is missing, and errors."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.metrics import ClueGroundedQA, GroundedQA
from m1lite.metrics.functional import temporal_iop

TENTHS = st.integers(0, 60).map(lambda n: n / 4)
SPAN = st.tuples(TENTHS, TENTHS).map(sorted)
FLAG = st.sampled_from([0, 1, None])
QUESTION = st.tuples(st.none() | SPAN, st.lists(SPAN, max_size=3), FLAG)
CLUES = st.tuples(st.none() | st.lists(SPAN, max_size=3), st.lists(SPAN, min_size=1, max_size=3), FLAG, FLAG)
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers) if numbers else math.nan


def overlap(span, true):
    return max(0.0, min(span[1], true[1]) - max(span[0], true[0]))


def best(span, trues, *, of):
    scores = [0.0]
    for true in trues if span is not None else ():
        whole = span[1] - span[0] if of == "iop" else max(span[1], true[1]) - min(span[0], true[0])
        scores.append(overlap(span, true) / whole if whole > 0 else 0.0)
    return max(scores)


def quarters(spans):
    """Quarters of a unit that any span covers: a measure by counting, unlike the code under test."""
    return {step for start, end in spans for step in range(round(4 * start), round(4 * end))}


@settings(max_examples=40, deadline=None)
@given(st.lists(QUESTION, min_size=1, max_size=8), st.sampled_from(["zero", "skip"]), st.sampled_from(["iop", "iou"]))
@pytest.mark.filterwarnings("ignore:.*saw no samples")
def test_grounded_qa_equals_the_loop(questions, missing, kind):
    metric = GroundedQA(answer_thresholds=[0.5, 0.3], answer_overlap=kind, missing=missing)
    for batch in (questions[:3], questions[3:]):
        metric.update(*([question[place] for question in batch] for place in range(3)))
    kept = [question for question in questions if missing == "zero" or question[0] is not None]
    expected = {"acc@qa": mean(flag == 1 for *_, flag in questions)}
    for threshold in (0.5, 0.3):
        expected[f"acc@gqa@{threshold}"] = mean(
            flag == 1 and best(span, trues, of=kind) >= threshold for span, trues, flag in kept
        )
    for name in ("iop", "iou"):
        scores = [best(span, trues, of=name) for span, trues, _ in kept]
        expected[f"m{name}"] = mean(scores)
        for threshold in (0.3, 0.5):
            expected[f"{name}@{threshold}"] = mean(score >= threshold for score in scores)
    expected["answered"] = mean(flag is not None for *_, flag in questions)
    expected["located"] = mean(span is not None for span, *_ in questions)
    assert values(metric) == pytest.approx(expected, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(CLUES, min_size=1, max_size=8), st.sampled_from(["zero", "skip"]))
@pytest.mark.filterwarnings("ignore:.*saw no samples")
def test_clue_grounded_qa_equals_the_loop(questions, missing):
    metric = ClueGroundedQA(missing=missing)
    for batch in (questions[:3], questions[3:]):
        metric.update(*([question[place] for question in batch] for place in range(4)))
    rows = []
    for spans, trues, right, clue_right in questions:
        chosen, true = quarters(spans or []), quarters(trues)
        iou = len(chosen & true) / len(chosen | true) if chosen | true else 0.0
        rows.append((iou, right, clue_right, spans is not None))
    zero = missing == "zero"
    expected = {
        "miou": mean(iou for iou, *_, told in rows if zero or told),
        "rec@iou": mean(iou >= bound for iou, *_, told in rows if zero or told for bound in THRESHOLDS),
        "acc@iou": mean(
            right == 1 and told and iou >= bound
            for iou, right, _, told in rows
            if zero or (told and right is not None)
            for bound in THRESHOLDS
        ),
        "acc@long": mean(right == 1 for _, right, *_ in rows if zero or right is not None),
        "acc@clue": mean(right == 1 for *_, right, _ in rows if zero or right is not None),
    }
    long, clue = expected["acc@long"], expected["acc@clue"]
    bad = math.isnan(long) or math.isnan(clue) or clue == 0
    expected["crr"] = math.nan if bad else min(long, clue) / clue
    assert values(metric) == pytest.approx(expected, nan_ok=True, rel=1e-6)


def test_means_of_scores():
    spans, trues = [[0.0, 4.0], None, [2.0, 3.0]], [[[1.0, 5.0], [8.0, 9.0]], [[2.0, 3.0]], [[0.0, 6.0]]]
    metric = GroundedQA()
    metric.update(spans, trues, [1, 1, None])
    scores = metric.score(spans, trues, [1, 1, None])
    assert values(metric) == pytest.approx({key: score.mean().item() for key, score in scores.items()})
    metric = ClueGroundedQA()
    batch = [[[0.0, 4.0]], None, []], trues, torch.tensor([1, 0, 1]), torch.tensor([0, 1, 1])
    metric.update(*batch)
    found = values(metric)
    assert found.pop("crr") == 1.0
    assert found == pytest.approx({key: score.mean().item() for key, score in metric.score(*batch).items()})


def test_tensors_and_lists_agree():
    listed, tensor = GroundedQA(), GroundedQA()
    listed.update([[0.0, 4.0], None], [[[1.0, 5.0]], [[2.0, 3.0]]], [True, None])
    nan = math.nan
    tensor.update(
        torch.tensor([[0.0, 4.0], [nan, nan]], dtype=torch.float64),
        torch.tensor([[1.0, 5.0], [2.0, 3.0]], dtype=torch.float64),
        torch.tensor([1.0, nan]),
    )
    assert values(listed) == values(tensor)
    assert values(listed)["miop"] == 0.375
    clues = ClueGroundedQA()
    clues.update(torch.tensor([[[0.0, 4.0], [nan, nan]]]), torch.tensor([[[1.0, 5.0]]]), torch.ones(1), torch.ones(1))
    assert values(clues)["miou"] == pytest.approx(0.6)


def test_iop_of_a_moment_is_an_argument():
    point = [[3.0, 3.0]], torch.tensor([[2.0, 5.0]]), torch.tensor([1])
    for iop, expected in ((temporal_iop, 0.0), (partial(temporal_iop, point=1.0), 1.0)):
        metric = GroundedQA(iop=iop)
        metric.update(*point)
        assert values(metric)["acc@gqa@0.5"] == expected


def test_strict_and_the_threshold_in_float32():
    question = torch.tensor([[0.0, 7.0]]), torch.tensor([[0.0, 10.0]]), torch.tensor([1])
    for strict, expected in ((False, 1.0), (True, 0.0)):
        metric = GroundedQA(thresholds=[0.7], answer_thresholds=[0.7], answer_overlap="iou", strict=strict)
        metric.update(*question)
        assert values(metric)["iou@0.7"] == values(metric)["acc@gqa@0.7"] == expected
        clues = ClueGroundedQA(thresholds=[0.7], strict=strict)
        clues.update(question[0][:, None], question[1][:, None], question[2], question[2])
        assert values(clues)["rec@iou"] == values(clues)["acc@iou"] == expected


def test_half_precision_is_cast_up():
    metric = GroundedQA()
    batch = torch.tensor([[0.0, 4.0]]).bfloat16(), torch.tensor([[0.0, 3.0]]).bfloat16(), torch.ones(1)
    metric.update(*batch)
    assert metric.score(*batch)["miou"].dtype == torch.float32
    assert values(metric)["miou"] == 0.75


def test_crr_is_nan_where_nothing_is_right_from_the_clues():
    metric = ClueGroundedQA()
    metric.update([[[0.0, 1.0]]], [[[0.0, 1.0]]], [1], [0])
    found = values(metric)
    assert math.isnan(found.pop("crr"))
    assert found == {"miou": 1.0, "rec@iou": 1.0, "acc@iou": 1.0, "acc@long": 1.0, "acc@clue": 0.0}


@pytest.mark.parametrize("make", [GroundedQA, ClueGroundedQA])
def test_without_samples_the_values_are_nan(make):
    with pytest.warns(UserWarning, match=f"`{make.__name__}` saw no samples"):
        assert all(math.isnan(value) for value in values(make()).values())


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"`thresholds` holds 1\.5"):
        GroundedQA(thresholds=[1.5])
    with pytest.raises(ValueError, match="`answer_thresholds` is empty"):
        GroundedQA(answer_thresholds=[])
    with pytest.raises(ValueError, match="`answer_overlap` is 'giou'; it is 'iop' or 'iou'"):
        GroundedQA(answer_overlap="giou")
    with pytest.raises(ValueError, match="`missing` is 'drop'"):
        GroundedQA(missing="drop")
    with pytest.raises(ValueError, match="`thresholds` is empty"):
        ClueGroundedQA(thresholds=[])
    metric, span = GroundedQA(), [[0.0, 1.0]]
    with pytest.raises(ValueError, match=r"`target\[0\]\[0\]` is \[5.0, 3.0\]"):
        metric.update(span, torch.tensor([[5.0, 3.0]]), [1])
    with pytest.raises(ValueError, match=r"`right\[0\]` is 2; a right answer is 1"):
        metric.update(span, torch.tensor([[3.0, 5.0]]), torch.tensor([2]))
    with pytest.raises(ValueError, match=r"`right` has shape \(2,\) for 1 questions"):
        metric.update(span, torch.tensor([[3.0, 5.0]]), [1, 0])
    with pytest.raises(ValueError, match="`prediction` holds 1 answers for 2 targets"):
        metric.update(span, torch.zeros(2, 2), [1, 0])
    clues = ClueGroundedQA()
    with pytest.raises(ValueError, match=r"`clue_right\[0\]` is -1"):
        clues.update([span], [span], [1], torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"`clue_right` has shape \(2,\)"):
        clues.update([span], [span], [1], [1, 1])
    with pytest.raises(ValueError, match=r"`target\[0\]\[0\]` is \[0.0, inf\]"):
        clues.update([span], [[[0.0, math.inf]]], [1], [1])
    GroundedQA(validate_args=False).update(span, torch.tensor([[5.0, 3.0]]), [2])
