"""Open answers: normalising by hand, ROUGE against loops over lists."""

import builtins
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.metrics.functional import open_answer as module
from m1lite.metrics.functional import open_answer_match
from m1lite.metrics.functional.open_answer import normalize_answer

WORDS = st.lists(st.sampled_from(["red", "dog", "cat", "car", "go"]), max_size=6)  # too short for the stemmer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" The Red  car!", "red car"), ("A-B_c", "b c"), ("3.5", "3.5"), ("-3", "-3"), ("x-3", "x 3"), ("1:05", "1:05"),
        ("1,000,000.5", "1000000.5"), ("1,5", "1,5"), (".5", ".5"), ("-.5 m.", "-.5 m"), ("1/2", "1/2"), ("3.", "3"),
        ("Stra\u00dfe", "strasse"), ("\uff21\uff22\u00a0c", "ab c"), ("it's", "it s"), ("the an a", ""), ("...", ""),
    ],
)  # fmt: skip
def test_normalize_by_hand(text, expected):
    assert normalize_answer(text) == expected


@given(st.text())
def test_normalizing_twice_changes_nothing_more_and_never_fails(text):
    words = normalize_answer(text).split()
    assert not {"a", "an", "the", ""} & set(words)
    assert normalize_answer(text).strip() == normalize_answer(text)


def test_the_best_true_text_counts():
    found = open_answer_match(["Three", None, "4", "four"], [["3", "three"], ["x"], "four", ("4", "Four!")])
    assert found.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert found.dtype == torch.float64
    assert open_answer_match([], []).shape == (0,)


def f1(common, predicted, true):
    return 2 * common / (predicted + true) if common else 0.0


def ngram_f1(prediction, target, n):
    left = [tuple(target[i : i + n]) for i in range(len(target) - n + 1)]
    total, common = len(left), 0
    grams = [tuple(prediction[i : i + n]) for i in range(len(prediction) - n + 1)]
    for gram in grams:
        if gram in left:
            left.remove(gram)
            common += 1
    return f1(common, len(grams), total)


def longest_common(a, b):
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest_common(a[1:], b[1:])
    return max(longest_common(a[1:], b), longest_common(a, b[1:]))


@settings(deadline=None)  # the first call loads the package
@given(WORDS, WORDS)
def test_rouge_equals_plain_counting(prediction, target):
    pytest.importorskip("rouge_score")
    longest = f1(longest_common(prediction, target), len(prediction), len(target))
    expected = (ngram_f1(prediction, target, 1) + ngram_f1(prediction, target, 2) + longest) / 3
    found = open_answer_match([" ".join(prediction)], [" ".join(target)], measure="rouge")
    assert found.item() == pytest.approx(expected)


def test_rouge_without_its_package_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("rouge_score"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    module._rouge_scorer.cache_clear()
    for name in [name for name in sys.modules if name.startswith("rouge_score")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert open_answer_match(["a"], ["a"]).tolist() == [1.0]
    with pytest.raises(ImportError, match=r"needs the package rouge-score.*`pip install m1lite\[text\]`"):
        open_answer_match(["a"], ["a"], measure="rouge")


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="`measure` is 'bleu'; it must be 'exact' or 'rouge'"):
        open_answer_match(["a"], ["a"], measure="bleu")
    with pytest.raises(TypeError, match="`prediction` is the text 'cat'; give a list"):
        open_answer_match("cat", ["cat"])
    with pytest.raises(ValueError, match="`prediction` holds 1 answers for 2 targets"):
        open_answer_match(["cat"], ["cat", "dog"])
    with pytest.raises(ValueError, match=r"`target\[1\]` is \[\]; a sample needs one true text"):
        open_answer_match(["cat", "dog"], ["cat", []])
