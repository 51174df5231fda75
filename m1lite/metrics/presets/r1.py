"""How VideoChat-R1, Time-R1, Video-R1 and LongVT read and reward the texts their models write: text in, values out.

These are the official rules with their faults, for training and scoring like them; metrics/functional/parsing.py has
the sane ones. Where the official code fails on a text, the docstring says what is returned instead. Time is linear
in the length of the text, unlike that of the official patterns.
"""

from __future__ import annotations

import ast
import re
import warnings
from itertools import pairwise
from typing import Any

import torch

Interval = tuple[float, float]
"""Start and end in seconds."""

# The official pattern is (\d+\.?\d*) (to|and) (\d+\.?\d*). A number that fails at its first digit fails at the later
# ones too, so starting only at the first changes nothing and saves cubic time on a long run of digits.
_PAIR = re.compile(r"(?<!\d)(\d++\.?+\d*+) (?:to|and) (\d++\.?+\d*+)")
_PAIR_ANY_CASE = re.compile(_PAIR.pattern, re.IGNORECASE)
_TIMESTEP = re.compile(r"<timestep>\s*+\d++\.?+\d*+\s++to\s++\d++\.?+\d*+\s*+</timestep>", re.IGNORECASE)
_MAX_LITERAL = 4000
"""Longer answers are no list of a few numbers, and could keep Python's parser busy."""


_VIDEOCHAT_PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:Best option:",  # two phrases that a missing comma has made one
)


def blocks(text: str, tag: str) -> list[str]:
    """Return the contents of all closed blocks of a tag, from left to right; a block ends at the first closing tag.

    Example:
        >>> blocks("<answer>A</answer> <answer>B<answer>C</answer>", "answer")
        ['A', 'B<answer>C']
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    contents = []
    start = text.find(opening)
    while start >= 0:
        start += len(opening)
        end = text.find(closing, start)
        if end < 0:
            break
        contents.append(text[start:end])
        start = text.find(opening, end + len(closing))
    return contents


def read_literal(written: str) -> Any:
    """Read what a model wrote as a Python literal; None where it is none, or has more than 4000 characters.

    Example:
        >>> read_literal("[1, '2']"), read_literal("1 to 2") is None
        ([1, '2'], True)
    """
    if len(written) > _MAX_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about odd escapes in what the model wrote
            return ast.literal_eval(written)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def stretched_format(text: str, tags: tuple[str, ...] = ("think", "answer")) -> bool:
    """Say whether a text is blocks of these tags in this order, by the rule of the R1 family.

    A block may hold any text, tags too, if only the whole can be cut so: ``...</answer><answer>...</answer>`` passes.
    Blanks around the text and between blocks are let through (Video-R1 itself does not strip the text first).

    References:
        ``format_reward`` of OpenGVLab/VideoChat-R1 73b2ea9a and xiaomi-research/time-r1 7f2b5944.

    Example:
        >>> stretched_format("<think>a</think> <answer>1</answer><answer>2</answer>")
        True
        >>> stretched_format("<think>a</think> so <answer>1</answer>")
        False
    """
    text = text.strip()
    first, last = f"<{tags[0]}>", f"</{tags[-1]}>"
    if not (text.startswith(first) and text.endswith(last)):
        return False
    position, end = len(first), len(text) - len(last)
    for closing, opening in pairwise(tags):
        joint = re.compile(rf"</{closing}>\s*+<{opening}>").search(text, position, max(position, end))
        if joint is None:
            return False
        position = joint.end()  # the earliest joint leaves the most room for the next
    return position <= end


def eval_interval(text: str) -> Interval | None:
    """Read the span that VideoChat-R1's and Time-R1's evaluation reads.

    The last ``<number> to <number>`` or ``<number> and <number>``, with one blank on each side, lower case, anywhere in
    the text, thoughts included. The order is not checked, signs and clock times are not understood.

    References:
        ``parse_timestamp_output`` of OpenGVLab/VideoChat-R1 73b2ea9a src_eval/evaluate_grounding.py; ``extract_answer``
        of xiaomi-research/time-r1 7f2b5944 evaluate.py.

    Example:
        >>> eval_interval("<think>3.0 to 4.0</think> I cannot say.")
        (3.0, 4.0)
        >>> eval_interval("5s to 10s") is None
        True
    """
    return _last_pair(_PAIR, text)


def reward_interval(text: str, *, ordered: bool = False) -> Interval | None:
    """Read the span that VideoChat-R1's and Time-R1's training rewards.

    As :func:`eval_interval`, but in any case, and in the last ``<answer>`` block only.

    Args:
        text: what the model wrote.
        ordered: refuse a start after the end. True in VideoChat-R1's grounding script; False in its script of several
            tasks and in Time-R1.

    References:
        ``parse_timestamp_output`` of OpenGVLab/VideoChat-R1 73b2ea9a src/open_r1/grpo_tg.py and grpo_tasks.py;
        xiaomi-research/time-r1 7f2b5944 main.py.

    Example:
        >>> reward_interval("<answer>5 TO 10</answer>")
        (5.0, 10.0)
        >>> reward_interval("5 to 10") is None
        True
    """
    answers = blocks(text, "answer")
    pair = _last_pair(_PAIR_ANY_CASE, answers[-1]) if answers else None
    return None if pair is None or (ordered and pair[0] > pair[1]) else pair


def time_r1_iou(text: str, target: Interval) -> float:
    """Return Time-R1's reward for a span: its temporal IoU, 0 where none is read.

    Where both spans are the same point the official code fails, or pays what the sample before was paid; this is 0.

    References:
        ``iou_timestamp_reward`` of xiaomi-research/time-r1 7f2b5944 main.py.

    Example:
        >>> time_r1_iou("<answer>1 to 3</answer>", (1.0, 2.0))
        0.5
    """
    pair = reward_interval(text)
    return 0.0 if pair is None else _iou(pair, target)


def time_r1_timestep_reward(text: str) -> float:
    """Return Time-R1's 0.2 for one or more ``<timestep>a to b</timestep>`` in the last block of thought, else 0.

    References:
        ``reward_timestep_pair`` of xiaomi-research/time-r1 7f2b5944 main.py, with its defaults.

    Example:
        >>> time_r1_timestep_reward("<think><timestep>1 to 2</timestep></think>")
        0.2
    """
    thoughts = blocks(text, "think")
    return 0.2 if thoughts and _TIMESTEP.search(thoughts[-1]) else 0.0


def longvt_time_reward(text: str, target: Interval) -> tuple[float, float, float]:
    """Return LongVT's reward for a span in its Time-R1 form: total, IoU and format, where total is their sum.

    The answer, after the last ``<answer>``, must be a Python list of two numbers, quoted or not (see
    :func:`read_literal`). The format needs as many opening as closing tags and, without tool calls, the form of
    :func:`stretched_format`.

    References:
        ``compute_score_time_r1`` of EvolvingLMMs-Lab/LongVT 08d755b9 custom_rewards/vl_agent.py.

    Example:
        >>> longvt_time_reward("<think>so</think><answer>[1, 3]</answer>", (1.0, 2.0))
        (1.5, 0.5, 1.0)
    """
    after_thought = text.split("</think>")[-1]
    answered = "<answer>" in after_thought and "</answer>" in after_thought
    answer = text.split("<answer>")[-1].split("</answer>")[0].strip() if answered else ""
    pair = _literal_pair(answer)
    iou = 0.0 if pair is None else _iou(pair, target)
    form = float(_has_longvt_form(text, after_thought))
    return iou + form, iou, form


def videochat_r1_letter(text: str) -> str:
    """Return the letter A to G that VideoChat-R1 reads, in training and evaluation; "" for none.

    The first capital A to G after fixed phrases have been cut out, also inside a word: ``Answer: D`` gives A.

    References:
        ``extract_characters_regex`` of OpenGVLab/VideoChat-R1 73b2ea9a src/open_r1/grpo_tasks.py (there on the first
        ``<answer>`` block) and src_eval/evaluate_gqa.py.

    Example:
        >>> videochat_r1_letter("The best answer is (C)"), videochat_r1_letter("Answer: D")
        ('C', 'A')
    """
    text = text.strip()
    for phrase in _VIDEOCHAT_PHRASES:
        text = text.replace(phrase, "")
    letter = re.search("[A-G]", text)
    return letter[0] if letter else ""


def time_r1_letter(text: str) -> str:
    """Return the letter that Time-R1 scores: the last capital in round brackets, else the first character; "" for none.

    References:
        ``mcq_is_correct`` of xiaomi-research/time-r1 7f2b5944 src/vllm_inference/eval_all.py, which fails on "".

    Example:
        >>> time_r1_letter("(A) or rather (B)"), time_r1_letter("C. a dog")
        ('B', 'C')
    """
    letters = re.findall(r"\(([A-Z])\)", text)
    return letters[-1] if letters else text[:1]


def video_r1_answer(text: str) -> str:
    """Return what Video-R1's evaluation takes for the answer: the first closed block; without one, or if empty, all.

    References:
        ``extract_answer`` and ``reward_fn`` of tulerfeng/Video-R1 59d65c34 src/eval_bench.py.

    Example:
        >>> video_r1_answer("<think>x</think><answer> B </answer>")
        'B'
    """
    answers = blocks(text, "answer")
    return (answers[0].strip() if answers else "") or text


def video_r1_choice(text: str, target: str) -> float:
    """Return 1.0 if the answer is the true text to the letter (blanks around it aside): ``B.`` is not ``B``.

    References:
        as :func:`video_r1_answer`.

    Example:
        >>> video_r1_choice("<answer>B</answer>", "B"), video_r1_choice("B.", "B")
        (1.0, 0.0)
    """
    return float(video_r1_answer(text).strip() == target.strip())


def video_r1_numerical(text: str, target: str) -> float:
    """Return 1.0 if the numbers agree to 2 decimals and both, or neither, are written with a point or comma.

    References:
        as :func:`video_r1_answer`.

    Example:
        >>> video_r1_numerical("3.001", "3.0"), video_r1_numerical("3.0", "3")
        (1.0, 0.0)
    """
    answer = video_r1_answer(text)
    if any(mark in target for mark in ".,") != any(mark in answer for mark in ".,"):
        return 0.0
    value, truth = _video_r1_number(answer), _video_r1_number(target)
    return float(value is not None and truth is not None and round(value, 2) == round(truth, 2))


def video_r1_regression(text: str, target: str) -> float:
    """Return Video-R1's mean relative accuracy of a number, 0 where either is none.

    Strict, and in float32 throughout, so that an error of just 10 % gives 0.8 or 0.9 by chance of rounding.

    References:
        ``mean_relative_accuracy`` and ``reward_fn`` of tulerfeng/Video-R1 59d65c34 src/eval_bench.py.

    Example:
        >>> round(video_r1_regression("<answer>9</answer>", "12"), 2)
        0.5
    """
    value, truth = _video_r1_number(video_r1_answer(text)), _video_r1_number(target)
    return 0.0 if value is None or truth is None else _relative_accuracy(value, truth)


def _last_pair(pattern: re.Pattern[str], text: str) -> Interval | None:
    pairs = pattern.findall(text)
    return (float(pairs[-1][0]), float(pairs[-1][1])) if pairs else None


def _literal_pair(written: str) -> Interval | None:
    found = read_literal(written)
    if not isinstance(found, list) or len(found) != 2:
        return None
    try:
        return float(found[0]), float(found[1])
    except (TypeError, ValueError, OverflowError):
        return None


def _iou(prediction: Interval, target: Interval) -> float:
    # The order of arguments is the official one: Python's min and max drop or keep NaN by it.
    (start, end), (true_start, true_end) = prediction, target
    hull = max(end, true_end) - min(start, true_start)
    return max(0.0, min(end, true_end) - max(start, true_start)) / hull if hull > 0 else 0.0


def _has_longvt_form(text: str, after_thought: str) -> bool:
    counts = {tag: (text.count(f"<{tag}>"), text.count(f"</{tag}>")) for tag in ("think", "tool_call")}
    counts["answer"] = (after_thought.count("<answer>"), after_thought.count("</answer>"))
    if any(opened != closed for opened, closed in counts.values()) or not (counts["think"][0] and counts["answer"][0]):
        return False
    if not counts["tool_call"][0]:
        return stretched_format(text)
    return text.strip().startswith("<think>") and text.strip().endswith("</answer>")


def _video_r1_number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _relative_accuracy(prediction: float, target: float) -> float:
    """Return the share of thresholds 0.5, 0.55 … 0.95 with relative error < 1 - threshold."""
    value, truth = torch.tensor(prediction, dtype=torch.float32), torch.tensor(target, dtype=torch.float32)
    error = (value - truth).abs() / (truth.abs() + 1e-8)
    thresholds = torch.arange(0.5, 0.95 + 0.05 / 2, 0.05, dtype=torch.float32)
    return (error < 1 - thresholds).float().mean().item()
