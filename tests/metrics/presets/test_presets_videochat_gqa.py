"""VideoChat-R1's rewards for grounded answers: lists of spans, letters and the format, by hand and at their edges."""

import ast
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.presets.videochat_gqa import (
    parse_glue,
    videochat_r1_glue_iou,
    videochat_r1_gqa_answer,
    videochat_r1_gqa_format,
)

PIECES = st.sampled_from(["[", "]", "(", ")", ", ", ",", "1", "2.5", "07", "07.5", "00", " ", "\n", "(1, 2)", "(3, 1)"])


def glue(text):
    return f"<glue>{text}</glue>"


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("[(1.5, 4)]", [(1.5, 4.0)]),
        ("[(8,9), (1,\n2),]", [(8.0, 9.0), (1.0, 2.0)]),
        ("[]", []),
        ("[(5, 5)]\n", [(5.0, 5.0)]),
        ("[(07.5, 8), (00, 1)]", [(7.5, 8.0), (0.0, 1.0)]),
        ("[(07, 8)]", None),
        ("[(4, 1)]", None),
        ("[,]", None),
        ("[[1, 4]]", None),
        ("(1, 4)", None),
        (" [(1, 4)]", None),
        ("[(1., 4)]", None),
        ("[(-1, 4)]", None),
        ("[(1 , 4)]", None),
        ("[(1, 4)(5, 6)]", None),
        ("[(\uff11, 4)]", None),
        ("[(1, 1" + "0" * 400 + ".0)]", None),
        ("[(1, " + "1" * 5000 + ")]", None),
        ("", None),
    ],
)
def test_valid_lists(text, spans):
    assert parse_glue(glue(text)) == spans


@given(st.lists(PIECES, max_size=12).map("".join))
def test_what_is_valid_is_a_python_list_of_those_pairs(text):
    found = parse_glue(glue(text))
    if found is not None:
        assert ast.literal_eval(text) == found
        assert all(start <= end for start, end in found)


def test_only_the_first_block_counts_and_it_must_be_closed():
    assert parse_glue(glue("[(1, 2)]") + glue("[]")) == [(1.0, 2.0)]
    assert parse_glue(glue("x") + glue("[(1, 2)]")) is None
    assert parse_glue("<glue>[(1, 2)]") is None
    assert parse_glue("[(1, 2)]") is None


def test_iou_of_spans():
    assert videochat_r1_glue_iou(glue("[(1, 3), (2, 5)]"), [[1, 9]]) == 0.5
    assert videochat_r1_glue_iou(glue("[(1, 3)]"), []) == 0.0
    assert videochat_r1_glue_iou(glue("[]"), []) == videochat_r1_glue_iou(glue("[(5, 5)]"), [[6, 6]]) == 1.0
    assert videochat_r1_glue_iou("I cannot say", [[1, 9]]) == 0.0


@pytest.mark.parametrize(
    ("text", "target", "score"),
    [
        ("<answer>C</answer>", "(C)", 1.0),
        ("<answer>The best answer is (C).</answer>", "C", 1.0),
        ("<answer>Because of C</answer>", "C", 0.0),
        ("<answer>B</answer><answer>C</answer>", "C", 0.0),
        ("<answer>a dog</answer>", "", 1.0),
        ("<answer>C", "C", 0.0),
        ("C", "C", 0.0),
    ],
)
def test_answers(text, target, score):
    assert videochat_r1_gqa_answer(text, target) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>so</think>\n<answer>C</answer> <glue>[(1, 3)]</glue>\n", 1.0),
        ("<think></think><answer>B</answer><answer>C</answer><glue>[]</glue>", 1.0),
        ("<think></think><answer>C</answer><glue>[(3, 1)]</glue>", 0.0),
        ("<think></think><answer>C</answer><glue>[]</glue><glue>x</glue>", 1.0),
        ("<think></think><answer>C</answer>", 0.0),
        ("<think></think> so <answer>C</answer><glue>[]</glue>", 0.0),
        ("<think></think><glue>[]</glue><answer>C</answer>", 0.0),
        ("<answer>C</answer><glue>[]</glue>", 0.0),
    ],
)
def test_format(text, score):
    assert videochat_r1_gqa_format(text) == score


@pytest.mark.parametrize(
    "text",
    [
        "<glue>" * 100_000,
        "<glue>[" + "(1, 2), " * 60_000 + "(3, 4)",
        glue("[" + "(1, 2), " * 60_000 + "x"),
        glue("[(" + "1" * 1_000_000 + ", 2)]"),
        "<think></think>" * 40_000 + " " * 100_000,
        "[" * 1_000_000,
    ],
    ids=["unclosed", "long list", "broken list", "digits", "blanks", "brackets"],
)
def test_long_texts_take_no_long_time(text):
    start = time.perf_counter()
    assert videochat_r1_glue_iou(text, [[1, 2]]) == 0.0
    assert videochat_r1_gqa_answer(text, "A") == 0.0
    assert videochat_r1_gqa_format(text) == 0.0
    assert time.perf_counter() - start < 20  # a pattern that backtracks would take hours
