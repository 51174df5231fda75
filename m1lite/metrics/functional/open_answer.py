"""Open answers: how well a free text agrees with the true ones. No judge here; that is a model's work."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
# A mark inside a number (3.5, 1:05, 1/2) or a sign before one is kept, since without it the number would be another.
_MARK = re.compile(r"(?<=\d)[.,:/](?=\d)|(?<!\w)\.(?=\d)|(?<![\w.])-(?=\.?\d)|([^\w\s]|_)")
_ARTICLES = {"a", "an", "the"}


def normalize_answer(text: str) -> str:
    """Write a text so that answers that say the same in the same words are equal.

    Compatible characters become one (NFKC), capitals small; marks go, but for those inside numbers and a sign before
    one; so do commas between thousands, the articles a, an, the, and surplus blanks.

    Args:
        text: any text.

    Returns:
        Words with one blank between; "" if there are none.

    References:
        Rajpurkar et al. 2016, arXiv:1606.05250 (SQuAD), whose script takes marks out of numbers as well: 3.5 is 35.

    Example:
        >>> normalize_answer(" The Red  car, at 1,000.5 m!")
        'red car at 1000.5 m'
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = _MARK.sub(lambda mark: " " if mark[1] else mark[0], text)
    return " ".join(word for word in text.split() if word not in _ARTICLES)


def open_answer_match(
    prediction: Sequence[str | None],
    target: Sequence[str | Sequence[str]],
    *,
    measure: Literal["exact", "rouge"] = "exact",
) -> Tensor:
    r"""Score how well answers in free text agree with the true ones.

    ``"exact"`` is 1 if both are equal after :func:`normalize_answer`, else 0. ``"rouge"`` is the mean of three F1
    values, of the words, the pairs of words, and the longest common subsequence of both, with word stems:

    .. math:: (\mathrm{ROUGE}_1 + \mathrm{ROUGE}_2 + \mathrm{ROUGE}_L) / 3

    Args:
        prediction: N texts, ``None`` for no answer.
        target: N texts, or sequences of texts of which the one that agrees best counts.
        measure: what to measure. ROUGE takes time with the product of both lengths.

    Returns:
        float64 ``(N,)`` in [0, 1], on the CPU; 0 for no answer, and by ROUGE for a text without Latin letters or digits
        (it splits words there).

    Raises:
        TypeError: if either is one text instead of a sequence of them.
        ValueError: if the lengths differ, a target has no texts, or there is no such measure.
        ImportError: for ROUGE without the package that computes it.

    References:
        ROUGE: Lin 2004, aclanthology.org/W04-1013, by the package ``rouge-score``. Their mean is the reward that
        tulerfeng/Video-R1 59d65c34 src/r1-v/src/open_r1/grpo.py pays for free-form answers.

    Example:
        >>> open_answer_match(["The cat.", "a dog", None], ["cat", ["cat", "bird"], "cat"])
        tensor([1., 0., 0.], dtype=torch.float64)
        >>> open_answer_match(["a man runs"], ["a man is running"], measure="rouge").round(decimals=3)
        tensor([0.7050], dtype=torch.float64)
    """
    if measure not in ("exact", "rouge"):
        raise ValueError(f"`measure` is {measure!r}; it must be 'exact' or 'rouge'.")
    for name, side in (("prediction", prediction), ("target", target)):
        if isinstance(side, str):
            raise TypeError(f"`{name}` is the text {side[:40]!r}; give a list with one entry per sample.")
    if len(prediction) != len(target):
        raise ValueError(
            f"`prediction` holds {len(prediction)} answers for {len(target)} targets; give one, or None, for each."
        )
    score = _is_same if measure == "exact" else _rouge
    scores = []
    for row, (answer, truth) in enumerate(zip(prediction, target, strict=True)):
        truths = [truth] if isinstance(truth, str) else list(truth)
        if not truths:
            raise ValueError(f"`target[{row}]` is {truth!r}; a sample needs one true text at least.")
        scores.append(0.0 if answer is None else max(score(answer, text) for text in truths))
    return torch.tensor(scores, dtype=torch.float64)


def _is_same(answer: str, truth: str) -> float:
    return float(normalize_answer(answer) == normalize_answer(truth))


def _rouge(answer: str, truth: str) -> float:
    scores = _rouge_scorer().score(truth, answer)
    return sum(scores[name].fmeasure for name in _ROUGE_TYPES) / len(_ROUGE_TYPES)


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ImportError(
            "`measure='rouge'` needs the package rouge-score, which is not installed; `pip install m1lite[text]`."
        ) from error
    return RougeScorer(_ROUGE_TYPES, use_stemmer=True)
