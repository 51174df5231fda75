"""What the R1 family reads and rewards: against the patterns its code states, on short texts, and by hand."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.metrics.presets import r1

PAIR = r"(\d+\.?\d*) (to|and) (\d+\.?\d*)"
PIECES = (
    ["<answer>", "</answer>", "<think>", "</think>", "<glue>", "</glue>", "<timestep>", "</timestep>", "٣"],
    [
        " to ",
        " and ",
        " TO ",
        " ",
        "\n",
        ".",
        "1",
        "2.5",
        "5.",
        "5.2.3",
        "12:30",
        "٣",
        "[1, 2]",
        "x",
        "1 to 2",
        "3 and 4",
    ],
)
TEXTS = st.lists(st.sampled_from([*PIECES[0], *PIECES[1]]), max_size=10).map("".join)


def last_pair(text, flags=0):
    pairs = re.findall(PAIR, text, flags)
    return (float(pairs[-1][0]), float(pairs[-1][2])) if pairs else None


@settings(deadline=None)
@given(TEXTS)
def test_blocks_are_those_of_the_lazy_pattern(text):
    assert r1.blocks(text, "answer") == re.findall("<answer>(.*?)</answer>", text, re.DOTALL)


@settings(deadline=None)
@given(TEXTS)
def test_intervals_are_those_of_the_official_pattern(text):
    assert r1.eval_interval(text) == last_pair(text)
    answers = re.findall("<answer>(.*?)</answer>", text, re.DOTALL)
    expected = last_pair(answers[-1], re.IGNORECASE) if answers else None
    assert r1.reward_interval(text) == expected
    reversed_ = expected is not None and expected[0] > expected[1]
    assert r1.reward_interval(text, ordered=True) == (None if reversed_ else expected)


@pytest.mark.parametrize("tags", [("think",), ("think", "answer"), ("think", "answer", "glue")])
@settings(deadline=None)
@given(text=TEXTS, whole=st.booleans())
def test_format_is_that_of_the_lazy_pattern(tags, text, whole):
    if whole:  # else hardly any text has the form
        text = "".join(f"<{tag}>{text}</{tag}>" for tag in tags)
    pattern = r"\s*".join(f"<{tag}>.*?</{tag}>" for tag in tags)
    assert r1.stretched_format(text, tags) == bool(re.fullmatch(pattern, text.strip(), re.DOTALL))


@settings(deadline=None)
@given(TEXTS)
def test_timestep_reward_is_for_the_last_thought(text):
    thoughts = re.findall("<think>(.*?)</think>", text, re.DOTALL)
    pattern = r"<timestep>\s*(\d+\.?\d*)\s+to\s+(\d+\.?\d*)\s*</timestep>"
    found = bool(thoughts) and bool(re.search(pattern, thoughts[-1], re.IGNORECASE))
    assert r1.time_r1_timestep_reward(text) == (0.2 if found else 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 to 10 to 15", (5.0, 10.0)),
        ("1 to 2 and 3 to 4", (3.0, 4.0)),
        ("5.2.3 to 6.1", (2.3, 6.1)),
        ("-5.0 to 10", (5.0, 10.0)),
        ("12:30 to 12:45", (30.0, 12.0)),
        ("5  to 10", None),
        ("5 TO 10", None),
    ],
)
def test_eval_interval_by_hand(text, expected):
    assert r1.eval_interval(text) == expected


@pytest.mark.parametrize(
    ("text", "iou"),
    [
        ("<answer>1 to 2</answer>", 1.0),
        ("<answer>0 to 4</answer>", 0.25),
        ("<answer>2 to 1</answer>", 0.0),
        ("1 to 2", 0.0),
        ("<answer>1 to 2</answer><answer>3 to 4</answer>", 0.0),
    ],
)
def test_time_r1_iou_by_hand(text, iou):
    assert r1.time_r1_iou(text, (1.0, 2.0)) == iou


def test_time_r1_iou_loses_bounds_that_are_no_number():
    targets = [(float("nan"), 2.0), (1.0, float("nan")), (0.0, float("inf"))]
    assert [r1.time_r1_iou("<answer>1 to 3</answer>", target) for target in targets] == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>a</think><answer>[1, 2]</answer>", (2.0, 1.0, 1.0)),
        ("<think>a</think><answer>[0, 4.0,]</answer>", (1.25, 0.25, 1.0)),
        ("<think>a</think><answer>['1', \"2\"]</answer>", (2.0, 1.0, 1.0)),
        ("<think>a</think><answer>(1, 2)</answer>", (1.0, 0.0, 1.0)),
        ("<think>a</think><answer>[1, 2, 3]</answer>", (1.0, 0.0, 1.0)),
        ("<think>a</think><answer>[1, 1e999]</answer>", (1.0, 0.0, 1.0)),
        ("<answer>[1, 2]</answer>", (1.0, 1.0, 0.0)),
        ("<think>a</think><answer>[1, 2]</answer> so", (1.0, 1.0, 0.0)),
        ("<think>a</think><tool_call>b</tool_call><think>c</think><answer>[1, 2]</answer>", (2.0, 1.0, 1.0)),
        ("<think>a</think><tool_call>b<think>c</think><answer>[1, 2]</answer>", (1.0, 1.0, 0.0)),
        ("so <think>a</think><tool_call>b</tool_call><answer>[1, 2]</answer>", (1.0, 1.0, 0.0)),
        ("<think><answer>[1, 2]</answer></think>", (0.0, 0.0, 0.0)),
        ("<think>a</think><answer>[01, 2]</answer>", (1.0, 0.0, 1.0)),
        ("<think>a</think><answer>['1.0 ', b'2'] # so</answer>", (2.0, 1.0, 1.0)),
        ("<think>a</think><answer>[True, 0x2]</answer>", (2.0, 1.0, 1.0)),
        ("<think>a</think><answer>['nan', 2]</answer>", (1.0, 0.0, 1.0)),
        ("<think>a</think><answer>[1, None]</answer>", (1.0, 0.0, 1.0)),
        (f"<think>a</think><answer>[1, {'2' * 400}]</answer>", (1.0, 0.0, 1.0)),
        (f"<think>a</think><answer>{'[' * 5000}</answer>", (1.0, 0.0, 1.0)),
    ],
)
def test_longvt_by_hand(text, reward):
    assert r1.longvt_time_reward(text, (1.0, 2.0)) == reward


@pytest.mark.parametrize(
    ("text", "letter"),
    [("The best option is G", "G"), ("Best answer:D", "B"), ("Best answer:Best option:D", "D"), ("H", ""), ("dad", "")],
)
def test_videochat_letter_by_hand(text, letter):
    assert r1.videochat_r1_letter(text) == letter


def test_time_r1_letter_by_hand():
    assert [r1.time_r1_letter(text) for text in ("(A) (Z)", "(a) b", "B", "", "(AB)")] == ["Z", "(", "B", "", "("]


def test_video_r1_by_hand():
    assert r1.video_r1_answer("<answer>A</answer><answer>B</answer>") == "A"
    assert r1.video_r1_answer("<answer> </answer>") == "<answer> </answer>"
    assert [r1.video_r1_choice(text, " B") for text in ("B\n", "<answer>\nB </answer>", "B.", "b")] == [1, 1, 0, 0]
    cases = [
        ("3", "3"),
        ("3.001", "3.0"),
        ("3.0", "3"),
        ("1,000", "1000."),
        ("1,000", "1000"),
        ("x", "3"),
        ("nan", "nan"),
    ]
    assert [r1.video_r1_numerical(*case) for case in cases] == [1, 1, 0, 1, 0, 0, 0]
    assert [r1.video_r1_regression(*case) for case in (("3", "3"), ("3 m", "3"), ("3", "x"), ("nan", "3"))] == [
        1,
        0,
        0,
        0,
    ]
    assert r1.video_r1_regression("1e300", "3") == 0.0


@settings(deadline=None)
@given(st.floats(-50, 50), st.integers(-20, 20).filter(bool))
def test_video_r1_regression_counts_thresholds(prediction, target):
    error = (torch.tensor(prediction).sub(target).abs() / (abs(target) + 1e-8)).item()
    expected = sum(error < 1 - threshold / 100 for threshold in range(50, 100, 5)) / 10
    at_a_threshold = any(abs(error - (1 - threshold / 100)) < 1e-5 for threshold in range(50, 100, 5))
    assert at_a_threshold or r1.video_r1_regression(str(prediction), str(target)) == pytest.approx(expected)
