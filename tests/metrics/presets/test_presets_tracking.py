"""Official tracking protocols against loops over lists, and where the official code stops."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.metrics.presets import find_preset
from m1lite.metrics.presets._tracking_frames import pytracking_errors
from m1lite.metrics.presets.tracking import (
    PRESETS,
    videochat_r1_boxes,
    videochat_r1_tracking_format,
    videochat_r1_tracking_reward,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden_cases" / "golden_tracking.json").read_text())
BOXES = [[0.1, 0.1, 0.5, 0.5]] * 8


def iou(box, true):
    width = min(box[0] + box[2], true[0] + true[2]) - max(box[0], true[0])
    height = min(box[1] + box[3], true[1] + true[3]) - max(box[1], true[1])
    inter = max(0, width) * max(0, height)
    return inter / (box[2] * box[3] + true[2] * true[3] - inter)


def test_every_preset_is_found_by_its_name():
    for preset in PRESETS:
        assert find_preset(preset.name) is preset


@pytest.mark.parametrize("row", [row for row in GOLDEN["pytracking_seq"] if "error" in row], ids=lambda row: row["tag"])
def test_pytracking_stops_where_the_official_code_does(row):
    dataset = row["dataset"] if row["dataset"] in ("lasot", "uav") else "other"
    with pytest.raises(ValueError, match=r"`prediction|on LaSOT every frame needs one"):
        pytracking_errors(row["pred_ltwh"], row["gt_ltwh"], visible=row["target_visible"], dataset=dataset)


def test_pytracking_errors_name_the_value():
    boxes = [[1.0, 1, 2, 2], [1, 1, 2, 2]]
    with pytest.raises(ValueError, match=r"`prediction\[1\]` is \[1\.0, 1\.0, -2\.0, 2\.0\]"):
        pytracking_errors([boxes[0], [1.0, 1, -2, 2]], boxes)
    with pytest.raises(ValueError, match=r"`target\[1\]` is \[nan, 1\.0, 2\.0, 2\.0\]"):
        pytracking_errors(boxes, [boxes[0], [math.nan, 1, 2, 2]])
    with pytest.raises(ValueError, match="`visible` is None; on LaSOT"):
        pytracking_errors(boxes, boxes, dataset="lasot")
    with pytest.raises(ValueError, match="has 1 boxes for 2 frames; on LaSOT"):
        pytracking_errors(boxes[:1], boxes, visible=[1, 1], dataset="lasot")


def test_pytracking_repeats_cuts_and_fills():
    true = [[1.0, 1, 4, 4]] * 4
    found = pytracking_errors([[9.0, 9, 1, 1], [1, 1, 2, 4], [1, 1, 0, 4], [1, 1, 0, 0], [7, 7, 7, 7]], true)
    assert found.overlap.tolist() == pytest.approx([1.0, 0.5, 0.5, 0.5])  # the second box is repeated, the fifth cut
    assert pytracking_errors([[1.0, 1, 4, 4]], true).overlap.tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0])
    on_uav = pytracking_errors(true, [*true[:2], [math.nan] * 4, [0.0, 1, 4, 4]], dataset="uav")
    assert on_uav.valid.tolist() == [True, True, False, False]
    assert on_uav.center.tolist() == [0.0, 0.0, -1.0, -1.0]


def test_pytracking_counts_frames_without_a_true_box():
    sequence = {
        "prediction": [[10.0, 10, 20, 20]] * 4,
        "target": [[10.0, 10, 20, 20], [0, 0, 0, 0], [10, 10, 20, 20], [60, 10, 20, 20]],
    }
    found = find_preset("pytracking").score([sequence])
    # A missing true box has overlap -1 and distance inf, misses, and normalised distance -1, a hit.
    curve = [sum(overlap > step / 20 for overlap in (1, -1, 1, 0)) / 4 for step in range(21)]
    assert found == pytest.approx(
        {"AUC": 100 * sum(curve) / 21, "OP50": 50.0, "OP75": 50.0, "Precision": 50.0, "Norm Precision": 75.0}
    )
    unseen = {**sequence, "visible": [1, 0, 1, 1]}
    assert find_preset("pytracking_lasot").score([unseen])["Norm Precision"] == pytest.approx(50.0)
    assert find_preset("pytracking_uav").score([sequence])["Precision"] == pytest.approx(75.0)


def test_otb_counts_the_first_frame_and_each_sequence_once():
    chance = random.Random(0)
    items, expected = [], []
    for length in (3, 8):
        target = [[float(chance.randint(20, 60)) for _ in range(4)] for _ in range(length)]
        prediction = [[number + chance.randint(-15, 15) for number in box] for box in target] + [[0.0, 0, 1, 1]]
        items.append({"prediction": prediction, "target": target})
        overlaps = [1.0] + [iou(*pair) for pair in zip(prediction[1:], target[1:], strict=False)]
        curve = [sum(overlap > step / 20 for overlap in overlaps[:length]) / length for step in range(21)]
        expected.append((sum(curve) / 21, curve[10]))
    found = find_preset("otb").score(items)
    assert found["success_score"] == pytest.approx(sum(score for score, _ in expected) / 2)
    assert found["success_rate"] == pytest.approx(sum(rate for _, rate in expected) / 2)


def test_got10k_leaves_the_first_and_absent_frames_out():
    target = [[0.0, 0, 10, 10]] * 4
    run = [[50.0, 50, 1, 1], [0, 0, 10, 10], [-5, 0, 10, 10], [0, 0, 5, 10]]
    item = {"predictions": [run, target], "target": target, "cover": [8, 8, 8, 0], "resolution": [100, 100]}
    found = find_preset("got10k_val").score([item])
    assert found["ao"] == pytest.approx(1.0)  # the box that begins at -5 is moved to 0 and keeps its width
    assert found["succ_curve[100]"] == 0.0
    half = find_preset("got10k_val").score([{**item, "predictions": [run], "cover": [8, 0, 0, 1]}])
    assert (half["ao"], half["sr"], half["succ_curve[49]"]) == (pytest.approx(0.5), 0.0, 1.0)


def test_got10k_without_frames_is_nan():
    item = {"predictions": [[[0.0, 0, 1, 1]]], "target": [[0.0, 0, 1, 1]], "cover": [8], "resolution": [9, 9]}
    with pytest.warns(UserWarning, match="saw no samples"):
        assert math.isnan(find_preset("got10k_val").score([item])["ao"])


def test_videochat_r1_scores_anything_else_zero():
    right = f"<think>it moves</think>\n<answer>{BOXES}</answer>"
    preset = find_preset("videochat_r1_tracking")
    items = [{"answer": text, "target": BOXES} for text in (right, "no boxes", f"<answer>{BOXES[:7]}</answer>", "")]
    assert preset.score(items) == {"overlap": pytest.approx(0.25)}
    assert [videochat_r1_tracking_reward(item["answer"], item["target"]) for item in items] == pytest.approx(
        [1, 0, 0, 0]
    )
    assert videochat_r1_tracking_reward(right, BOXES[:7]) == videochat_r1_tracking_reward("", []) == 0.0


def test_videochat_r1_keeps_a_bound_that_is_no_number():
    boxes = [[0.1, math.nan, 0.5, 0.5], *BOXES[1:]]
    metric = find_preset("videochat_r1_tracking").metric()
    metric.update([torch.tensor(boxes)], [torch.tensor(BOXES)])
    assert math.isnan(metric.compute()["ao"])


@pytest.mark.parametrize(
    ("block", "is_format", "is_read"),
    [
        (str(BOXES), True, True),
        (str(BOXES).replace(" ", "\n"), True, True),
        (str(BOXES).replace("]]", "],]"), True, True),
        (str([[-0.1, 1, 2e3, 0.5]] * 8), True, True),
        (str([[1.5, "a", 0, 1]] * 8), True, False),
        (str([[10**400, 0, 1, 1]] * 8)[:3000] + "]" * 2, False, False),
        (str([[10**350, 0, 1, 1]] * 8), True, False),
        (str([tuple(box) for box in BOXES]), False, False),
        (str(BOXES[:7]), False, False),
        (str([[0.1, 0.2, 0.3]] * 8), False, False),
        (f"{BOXES} ", True, True),
        (f"the boxes are {BOXES}", False, False),
        ("__import__('os').getcwd()", False, False),
    ],
)
def test_videochat_r1_readers(block, is_format, is_read):
    text = f"<think>it moves</think> <answer>{block}</answer>"
    assert videochat_r1_tracking_format(text) is is_format
    boxes = videochat_r1_boxes(text)
    assert (boxes is not None) is is_read
    if boxes is not None:
        assert (boxes.shape, boxes.dtype) == ((8, 4), torch.float64)


@given(
    st.lists(
        st.sampled_from([*"[](){}-~+*'\"\\,.: \n\x009e", "not ", "lambda:", "1e400", "\u0661", *map(str, BOXES)]),
        max_size=400,
    )
)
@settings(deadline=None, max_examples=200)
def test_videochat_r1_readers_never_fail(pieces):
    text = f"<think></think><answer>{''.join(pieces)}</answer>"
    boxes = videochat_r1_boxes(text)
    assert boxes is None or boxes.shape == (8, 4)
    assert videochat_r1_tracking_format(text) in (True, False)


@pytest.mark.parametrize(
    "block",
    ["[" * 4000, "-" * 3999 + "1", "1+" * 1999 + "1", "9" * 1_000_000, "not " * 999 + "1", "<answer>" * 100_000],
)
def test_videochat_r1_readers_are_not_kept_busy(block):
    assert videochat_r1_boxes(f"<answer>{block}</answer>") is None
    assert videochat_r1_boxes(f"<answer>{block}") is None
