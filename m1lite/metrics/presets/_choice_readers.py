"""How the official code of multiple-choice benchmarks reads an option out of a text, faults included.

Sane reading is :func:`m1lite.metrics.functional.parse_choice`. All of these take time linear in the length of the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from m1lite.metrics.presets.r1 import blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

_VIDEO_MME_PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",  # missing commas have made one phrase of two, here
    "Best answer:Best option:",  # and here
    "Answer:",
    "Option:",
    "The correct answer",
    "The correct option",
)

_HOLMES_LETTERS = "ABCDEF"
_MMR_V_LETTERS = "ABCDEFGHIJKL"


def video_mme_letter(text: str) -> str:
    """Return the letter A to D that Video-MME reads; "" for none, and such an answer leaves the denominator.

    The first capital A to D after fixed phrases have been cut out, also inside a word.

    References:
        ``extract_characters_regex`` of thanku-all/parse_answer afd52cfe eval_your_results.py.

    Example:
        >>> video_mme_letter("Because it is C"), video_mme_letter("two dogs")
        ('B', '')
    """
    text = text.strip()
    for phrase in _VIDEO_MME_PHRASES:
        text = text.replace(phrase, "")
    letter = re.search("[A-D]", text)
    return letter[0] if letter else ""


def mvbench_right(text: str, answer: str) -> bool:
    """Say whether MVBench counts an answer as right.

    Of both texts only what stands before the first blank counts, without case. It is right if the answer's, without
    dots, is part of the true one, or holds it: an empty answer is right for every question, ``A:`` is wrong for all.

    Args:
        text: what the model wrote.
        answer: the true option with its letter, ``(A) text``.

    References:
        ``check_ans`` of OpenGVLab/Ask-Anything 4dd8210b video_chat2/mvbench.ipynb.

    Example:
        >>> mvbench_right("B.", "(B) two dogs"), mvbench_right("", "(B) two dogs"), mvbench_right("B:", "(B) two dogs")
        (True, True, False)
    """
    chosen, right = text.lower().split(" ")[0], answer.lower().split(" ")[0]
    return chosen.replace(".", "") in right or right in chosen


def mlvu_right(text: str, answer: str) -> bool:
    """Say whether MLVU counts an answer as right.

    The character before the first ``)``, or without one the whole text, must be the true letter: ``B.`` is wrong.

    Args:
        text: what the model wrote; the official prompt ends with ``Best Option: (``.
        answer: the true option with its letter, ``(A) text``.

    References:
        ``check_ans`` of JUNJIE99/MLVU fd060c10 evaluation/multiple_choice_evaluation/choice_bench.py.

    Example:
        >>> mlvu_right("The answer is (B).", "(B) two dogs"), mlvu_right("B.", "(B) two dogs")
        (True, False)
    """
    right = answer[answer.index("(") + 1 : answer.index(")")]
    closing = text.find(")")
    chosen = text if closing < 0 else text[max(closing - 1, 0) : closing]
    return chosen == right


def video_holmes_letter(text: str) -> str:
    """Return the letter A to F that Video-Holmes reads, in the last ``<answer>`` block or the whole text.

    The first letter of the alphabet, not of the text, that is written ``A ``, ``A:`` or ``[A``; else that occurs at
    all, also inside a word; else ``WRONG``.

    References:
        the loop of ``evaluate`` of TencentARC/Video-Holmes 52ef8da2 evaluate.py.

    Example:
        >>> video_holmes_letter("<answer>B. because A is wrong</answer>"), video_holmes_letter("none")
        ('A', 'WRONG')
    """
    answers = blocks(text, "answer")
    answer = answers[-1].strip() if answers else text
    for letter in _HOLMES_LETTERS:
        if any(form in answer for form in (f"{letter} ", f"{letter}:", f"[{letter}")):
            return letter
    return next((letter for letter in _HOLMES_LETTERS if letter in answer), "WRONG")


def videommmu_letter(text: str, options: Sequence[str]) -> str | None:
    """Return the letter that VideoMMMU reads; "" where none is found, ``None`` for an empty text or ``API Error``.

    Letters written ``A.`` or ``A:`` anywhere, else ``(A)``, else ``A`` before a blank, else, in a text of more than
    five words, the text of an option. Of several the one whose form occurs last wins, the form being ``A.`` if any
    letter has it.

    Args:
        text: what the model wrote.
        options: the options' texts.

    References:
        ``parse_multi_choice_response`` of EvolvingLMMs-Lab/VideoMMMU 88b4ac3e lmms_eval/tasks/videommmu/utils.py.

    Example:
        >>> videommmu_letter("(A) or (B)", ["w", "x", "y"]), videommmu_letter("B)", ["w", "x", "y"])
        ('B', '')
    """
    if text in ("", "API Error"):
        return None
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    letters = [chr(ord("A") + index) for index in range(len(options))]
    dotted = [letter for letter in letters if f"{letter}." in text]
    marked = dotted + [letter for letter in letters if f"{letter}:" in text]
    if marked:
        return _last_of(marked, text, "{}." if dotted else "{}:")
    for written, sought in (("({})", "({})"), ("{} ", " {} ")):
        found = [letter for letter in letters if written.format(letter) in text]
        if found:
            return _last_of(found, text, sought)
    if len(text.split()) <= 5:
        return ""
    lowered = text.lower()
    places = {letter: lowered.rfind(option.lower()) for letter, option in zip(letters, options, strict=True)}
    best = max(places, key=lambda letter: places[letter], default="")
    return best if best and places[best] >= 0 else ""


def mmr_v_letter(text: str, final_answer: str | None = None) -> str | None:
    """Return the letter A to L that MMR-V scores, ``None`` for none.

    The stored final answer if it is a run of the alphabet A to L, and an empty one is; else the last letter in square
    or round brackets; else the last letter A to L of the text, small ones and those inside words too.

    Args:
        text: what the model wrote.
        final_answer: the answer that was stored apart, ``None`` if none was.

    References:
        ``extract_model_answer`` of GaryStack/MMR-V 87ac4e53 scripts/main-results.py.

    Example:
        >>> mmr_v_letter("It is [B] or (C)."), mmr_v_letter("I don't know"), mmr_v_letter("(C)", final_answer="")
        ('C', 'K', '')
    """
    if final_answer is not None:
        stored = final_answer.strip().upper()
        if stored in _MMR_V_LETTERS:
            return stored
    text = text.upper()
    bracketed = re.findall(r"[\[\(]([A-L])[\]\)]", text)
    if bracketed:
        return bracketed[-1]
    return next((letter for letter in reversed(text) if letter in _MMR_V_LETTERS), None)


def _last_of(letters: Sequence[str], text: str, form: str) -> str:
    """Return the letter whose form occurs last; the first of them where none does."""
    return max(letters, key=lambda letter: text.rfind(form.format(letter)))
