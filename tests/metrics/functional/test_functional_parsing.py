"""Reading what a model wrote: by hand, against plain references, and against texts made to break it."""

import math
import random
import time

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m1lite.metrics.functional import (
    format_match,
    parse_boxes,
    parse_choice,
    parse_interval,
    parse_intervals,
    parse_number,
)
from m1lite.metrics.presets import _choice_readers as choice_readers
from m1lite.metrics.presets import r1
from m1lite.metrics.presets._videommmu_open import videommmu_open_right

OPTIONS = ["a red car", "two dogs", "the girl", "nothing"]

READERS = {
    "parse_interval": parse_interval,
    "parse_intervals": parse_intervals,
    "parse_boxes": parse_boxes,
    "parse_number": parse_number,
    "parse_choice": lambda text: parse_choice(text, OPTIONS),
    "parse_choice-26": lambda text: parse_choice(text, 26),
    "format_match": format_match,
    "stretched_format": lambda text: r1.stretched_format(text, ("think", "answer", "glue")),
    "blocks": lambda text: r1.blocks(text, "answer"),
    "eval_interval": r1.eval_interval,
    "reward_interval": r1.reward_interval,
    "time_r1_iou": lambda text: r1.time_r1_iou(text, (1.0, 2.0)),
    "time_r1_timestep_reward": r1.time_r1_timestep_reward,
    "time_r1_letter": r1.time_r1_letter,
    "longvt_time_reward": lambda text: r1.longvt_time_reward(text, (1.0, 2.0)),
    "videochat_r1_letter": r1.videochat_r1_letter,
    "video_r1_choice": lambda text: r1.video_r1_choice(text, "B"),
    "video_r1_numerical": lambda text: r1.video_r1_numerical(text, "3"),
    "video_r1_regression": lambda text: r1.video_r1_regression(text, "3"),
    "video_mme_letter": choice_readers.video_mme_letter,
    "mvbench_right": lambda text: choice_readers.mvbench_right(text, "(A) a red car"),
    "mlvu_right": lambda text: choice_readers.mlvu_right(text, "(A) a red car"),
    "video_holmes_letter": choice_readers.video_holmes_letter,
    "videommmu_letter": lambda text: choice_readers.videommmu_letter(text, OPTIONS),
    "mmr_v_letter": choice_readers.mmr_v_letter,
    "videommmu_open_right": lambda text: videommmu_open_right(text, ["3.5", "x", "dogs"]),
}

FRAGMENTS = [
    "<answer>", "</answer>", "<think>", "</think>", "<ANSWER>", "<answer", "<timestep>", "</timestep>", "<tool_call>",
    "[", "]", "(", ")", "{", "}", "((((", "]]]]", "[[1, 2], ", "(1, 2)", "1,000", "1:05", "00:01:05.5", "99:99", "12",
    "3.5", ".5", "5.", "5.2.3", "1e400", "-1e400", "1e-400", "nan", "NaN", "inf", "-inf", "٣", "३", "\uff15", "²",
    "½", "Ⅷ", "0x3", "1_000", " to ", "to", " and ", "-", "—", "\u2212", "~", ",", ";", ":", ".", "/", "%", " s",
    "seconds", "min", "A", "B", "D", "Z", "a", "I", "(B)", "B.", "answer is ", "Answer: ", "two dogs", "the girl",
    "None", "\\boxed{B}", " ", "\n", "\t", "\r", "\u00a0", "\u2028", "\x00", "\ud800", "\U0001f600", "İ", "ß", "\u017f",
    "\u212a", "9" * 400, "'", '"',
]  # fmt: skip
FINITE = st.floats(-1e6, 1e6, allow_nan=False)
SECONDS = st.floats(0, 1e6, allow_nan=False)


def is_sane(name, value):
    """Say whether a parser's result is of a documented form."""
    if value is None:
        return name.startswith("parse")
    if name in ("parse_interval", "parse_intervals", "parse_boxes"):
        rows = value.tolist() if value.ndim == 2 else [value.tolist()]
        fine = all(math.isfinite(number) for row in rows for number in row)
        width = 4 if name == "parse_boxes" else 2
        return (
            fine
            and value.dtype == torch.float64
            and value.shape[-1] == width
            and (width == 4 or all(start <= end for start, end in rows))
        )
    if name == "parse_number":
        return isinstance(value, float) and math.isfinite(value)
    if name.startswith("parse_choice"):
        return isinstance(value, int) and 0 <= value < (26 if name.endswith("26") else 4)
    return isinstance(value, bool)


# ---------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("From 5 to 10 seconds", [5.0, 10.0]),
        ("from 5s to 10.25 sec.", [5.0, 10.25]),
        ("The event happens in the 24.3 - 30.4 seconds.", [24.3, 30.4]),
        ("between 3 and 9 seconds", [3.0, 9.0]),
        ("5\u201410", [5.0, 10.0]),
        ("5.0  to\n10.0", [5.0, 10.0]),
        ("[[5, 100]]", [5.0, 100.0]),
        ("(5s, 6.5 s)", [5.0, 6.5]),
        ("1,000 - 1,010.5", [1000.0, 1010.5]),
        ("1e1 until 2e1", [10.0, 20.0]),
        ("00:00:18 to 00:01:23.5", [18.0, 83.5]),
        ("1:05-1:20", [65.0, 80.0]),
        ("-5 to .5", [-5.0, 0.5]),
        ("5 -10", [5.0, 10.0]),
        ("7 to 7", [7.0, 7.0]),
        ("<think>1 to 2</think> 3 to 4", [3.0, 4.0]),
        ("<answer>1 to 2</answer> or <Answer>3 to 4</ANSWER> not 5 to 6", [3.0, 4.0]),
        ("<answer>1 to 2", [1.0, 2.0]),
        ("12.5 to 15, then 20 to 22", [20.0, 22.0]),
        ("10 to 5", None),
        ("5 to 10 minutes", None),
        ("2 min to 3 min", None),
        ("5 to 10%", None),
        ("5.2.3 to 6.1", None),
        ("5:75 to 6:00", None),
        ("nan to inf", None),
        ("1 to 1e400", None),
        ("5 10", None),
        ("from frame5 to 10", None),
        ("<think>1 to 2", None),
        ("<answer></answer> 1 to 2", None),
        ("", None),
    ],
)
def test_interval_by_hand(text, expected):
    found = parse_interval(text)
    assert (found if found is None else found.tolist()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[(1, 2), (3.5, 4)]", [[1.0, 2.0], [3.5, 4.0]]),
        ("1 to 2 and 3 to 4", [[1.0, 2.0], [3.0, 4.0]]),
        ("0:10 - 0:20; 30 - 40 s", [[10.0, 20.0], [30.0, 40.0]]),
        ("<answer> [] </answer>", []),
        ("nothing", None),
        ("1 to 2, 9 to 3", None),
        ("[(1, 2), (3, 1e999)]", None),
    ],
)
def test_intervals_by_hand(text, expected):
    found = parse_intervals(text)
    assert (found if found is None else found.tolist()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]]", [[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]]),
        ("(1,2,3,4)", [[1.0, 2.0, 3.0, 4.0]]),
        ('{"box": [-1, 2.5, 3e1, +4]} (see left)', [[-1.0, 2.5, 30.0, 4.0]]),
        ("<answer>[1,2,3,4]</answer> [5,6,7,8]", [[1.0, 2.0, 3.0, 4.0]]),
        ("[[1, 2, 3, 4], [1, 2, 3]]", None),
        ("[1, 2, 3, 1e999]", None),
        ("[1, 2, 3, nan]", None),
        ("1, 2, 3, 4", None),
        ("[]", None),
    ],
)
def test_boxes_by_hand(text, expected):
    found = parse_boxes(text)
    assert (found if found is None else found.tolist()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3.0), ("-3.5", -3.5), ("+3", 3.0), ("3 m", 3.0), ("3m", 3.0), ("**3**", 3.0), ("(3)", 3.0), ("3.", 3.0),
        ("about 1,250.5 m", 1250.5), ("x=-3", -3.0), ("2e3", 2000.0), (".5", 0.5), ("50%", 50.0),
        ("<think>4</think>3", 3.0), ("<answer>3</answer> of 9", 3.0),
        ("4 or 3", None), ("1/2", None), ("1,5", None), ("12:30", None), ("2-3", None), ("0x3", None), ("a1", None),
        ("three", None), ("nan", None), ("1e400", None), ("٣", None), ("", None),
    ],
)  # fmt: skip
def test_number_by_hand(text, expected):
    assert parse_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"), (" b ", "B"), ("(c)", "C"), ("A.", "A"), ("**B**", "B"), ("B) two dogs", "B"), ("B: x", "B"),
        ("\\boxed{A}", "A"), ("[C]", "C"), ("The answer is (B).", "B"), ("ANSWER: D", "D"), ("Best answer:D", "D"),
        ("The correct option is A", "A"), ("A is wrong. The answer is C.", "C"), ("选C", "C"), ("B, not A", "B"),
        ("As seen, I think it is B", "B"), ("It shows two dogs.", "B"), ("The answer is a red car", "A"),
        ("A red car", "A"), ("<think>A or D</think><answer>C</answer>", "C"), ("Answer: A. No! Answer: B", "B"),
        ("Both B and D", None), ("(A) or (B)", None), ("A/B", None), ("A because B is wrong", None), ("F", None),
        ("Because", None), ("Dogs bark", None), ("none of the above", None), ("two dogs and the girl", None),
        ("", None), (".", None), ("<think>B", None),
    ],
)  # fmt: skip
def test_choice_by_hand(text, expected):
    assert parse_choice(text, OPTIONS) == (None if expected is None else "ABCD".index(expected))


def test_choice_of_a_count_knows_no_texts():
    assert parse_choice("two dogs", 4) is None
    assert parse_choice("F", 6) == 5
    assert parse_choice("red car park", ["red car", "red car park"]) == 1


@pytest.mark.parametrize(("options", "count"), [([], 0), (27, 27), (-1, -1)])
def test_choice_needs_options(options, count):
    with pytest.raises(ValueError, match=f"`options` gives {count} options; there must be 1 to 26"):
        parse_choice("A", options)


@pytest.mark.parametrize(
    ("text", "strict", "stretched"),
    [
        ("<think>a</think><answer>b</answer>", True, True),
        (" \n<think></think>\n\n <answer></answer>\n", True, True),
        ("<think>a</think><answer>b</answer><answer>c</answer>", False, True),
        ("<think>a</think>so<answer>b</answer>", False, False),
        ("<answer>b</answer><think>a</think>", False, False),
        ("<think>a<answer>b</answer></think>", False, False),
        ("<think>a</think><answer>b", False, False),
        ("<THINK>a</THINK><ANSWER>b</ANSWER>", False, False),
        ("<think>a</think><answer>b</answer>.", False, False),
        ("", False, False),
    ],
)
def test_format_by_hand(text, strict, stretched):
    assert format_match(text) is strict
    assert r1.stretched_format(text) is stretched


def test_format_of_other_tags():
    assert format_match("<plan>a</plan>", ["plan"])
    assert not format_match("<plan>a</plan><plan>b</plan>", ["plan"])
    assert r1.stretched_format("<a>1</a><b>2</b> <c>3</c>", ("a", "b", "c"))
    assert not r1.stretched_format("<a>1</a><c>3</c>", ("a", "b", "c"))


# ------------------------------------------------------------------------------------- what is written is read back


@settings(deadline=None)
@given(st.tuples(SECONDS, SECONDS).map(sorted), st.sampled_from(["{} to {}", "[{}, {}]", "({},{})s", "at {}s-{}s."]))
@example([0.0, 1e-7], "{} to {}")
def test_a_written_interval_is_read_back(span, form):
    text = f"<think>9 to 10</think><answer>{form.format(*span)}</answer>"
    assert parse_interval(text).tolist() == span
    assert parse_intervals(text).tolist() == [span]


@settings(deadline=None)
@given(st.lists(st.tuples(SECONDS, SECONDS).map(sorted)))
def test_written_intervals_are_read_back(spans):
    assert parse_intervals(str([tuple(span) for span in spans])).tolist() == spans


@settings(deadline=None)
@given(st.lists(st.lists(FINITE, min_size=4, max_size=4), min_size=1))
def test_written_boxes_are_read_back(boxes):
    assert parse_boxes(str(boxes)).tolist() == boxes


@settings(deadline=None)
@given(FINITE, st.sampled_from(["{}", "<answer> {} </answer>", "about {} m", "={}"]))
def test_a_written_number_is_read_back(number, form):
    assert parse_number(form.format(number)) == number


@settings(deadline=None)
@given(st.integers(0, 25), st.sampled_from(["{}", "({})", "{}. text", "The answer is {}.", "Answer: **{}**", "[{}]"]))
def test_a_written_choice_is_read_back(index, form):
    assert parse_choice(form.format("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[index]), 26) == index


# -------------------------------------------------------------------------------------------------- safe on any text


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_no_text_raises(text):
    for name, read in READERS.items():
        value = read(text)
        assert not name.startswith(("parse", "format")) or is_sane(name, value), (name, text, value)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32))
def test_a_hundred_thousand_adversarial_texts(seed):
    # Hypothesis draws the seed; drawing each of the texts itself would take many times longer than reading it.
    chance = random.Random(seed)
    for _ in range(1000):
        text = "".join(chance.choices(FRAGMENTS, k=chance.choice((1, 2, 3, 5, 8, 13))))
        for name, read in READERS.items():
            value = read(text)
            assert not name.startswith(("parse", "format")) or is_sane(name, value), (name, text, value)


REPEATED = [
    "1", "1.", "1,000", "1:00:", "5 to ", "5 ", "1e", "-", " ", "\n", "[", "(", "[1,", "(A", "A ", "A.", "<answer>",
    "</answer>", "<think>", "</think>", "<think></think>", "<timestep>1 to ", "answer ", "answer is", "is ", "so\n",
    ",000", "[[", "1 to 2 ", "B) ", "<tool_call>", "٣", ".", "='", "\\boxed{",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("piece", REPEATED)
def test_time_is_linear_in_length(piece):
    # 100,000 characters take some 50 ms; a quadratic pattern would take minutes.
    text = piece * (100_000 // len(piece))
    for wrapped in (text, f"<answer>{text}", f"<answer>{text}</answer>", f"{text} to {text}"):
        for name, read in READERS.items():
            started = time.perf_counter()
            read(wrapped)
            assert time.perf_counter() - started < 10, name


@pytest.mark.slow
@pytest.mark.parametrize("text", ["9" * 1_000_000, "0." + "9" * 1_000_000, "٣" * 1_000_000, "9" * 1_000_000 + "x"])
def test_a_megabyte_of_digits(text):
    for name, read in READERS.items():
        for wrapped in (text, f"<answer>{text} to {text}</answer>"):
            started = time.perf_counter()
            read(wrapped)
            assert time.perf_counter() - started < 20, name
