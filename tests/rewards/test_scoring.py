"""Scores of answers against plain Python, one answer at a time, and by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.records import Answer, Box, Sample, Span, Task
from m1lite.rewards import scoring
from m1lite.rewards.scoring import score_answer, score_answers

NUMBERS = st.integers(0, 20)
PAIRS = st.tuples(NUMBERS, NUMBERS).map(sorted)
SPANS = PAIRS.map(lambda pair: Span(start=pair[0], end=pair[1]))
BOXES = st.tuples(PAIRS, PAIRS).map(
    lambda sides: Box(left=sides[0][0], top=sides[1][0], right=sides[0][1], bottom=sides[1][1])
)
WORDS = st.sampled_from(["left", "Left ", "middle", "red-square"])
ANSWERS = st.builds(
    Answer,
    text=st.none() | WORDS,
    number=st.none() | NUMBERS,
    spans=st.lists(SPANS, max_size=1).map(tuple),
    boxes=st.lists(BOXES, max_size=3).map(tuple),
    events=st.lists(WORDS, max_size=5).map(tuple),
)
TRUTHS = st.builds(
    Answer,
    text=WORDS,
    number=NUMBERS,
    spans=st.lists(SPANS, min_size=1, max_size=1).map(tuple),
    boxes=st.lists(BOXES, min_size=1, max_size=3).map(tuple),
    events=st.lists(WORDS, min_size=1, max_size=5).map(tuple),
)
ROWS = st.lists(st.tuples(st.sampled_from(Task), TRUTHS, st.none() | ANSWERS), max_size=15)


def sample_of(task, truth):
    return Sample(id="s", video="v", duration=30, task=task, question="q", answer=truth)


def span_iou(truth, answer):
    if not answer.spans:
        return 0.0
    true, span = truth.spans[0], answer.spans[0]
    hull = max(true.end, span.end) - min(true.start, span.start)
    return max(0.0, min(true.end, span.end) - max(true.start, span.start)) / hull if hull else 0.0


def box_iou(true, box):
    width = min(true.right, box.right) - max(true.left, box.left)
    height = min(true.bottom, box.bottom) - max(true.top, box.top)
    inter = max(0, width) * max(0, height)
    union = sum((b.right - b.left) * (b.bottom - b.top) for b in (true, box)) - inter
    return inter / union if union else 0.0


def plain(text):
    return None if text is None else text.strip().lower()


def event_f1(truth, answer):
    rest, told = [plain(event) for event in truth.events], 0
    for event in answer.events:
        if plain(event) in rest:
            rest.remove(plain(event))
            told += 1
    return 2 * told / (len(truth.events) + len(answer.events))


def reference(task, truth, answer):
    if answer is None:
        return 0.0
    right = float(plain(answer.text) == plain(truth.text))
    same_boxes = len(truth.boxes) == len(answer.boxes)
    overlaps = [box_iou(*pair) for pair in zip(truth.boxes, answer.boxes, strict=False)]
    return {
        Task.GROUNDING: span_iou(truth, answer),
        Task.CHOICE: right,
        Task.COUNTING: float(answer.number == truth.number),
        Task.GROUNDED_QA: right * span_iou(truth, answer),
        Task.TRACKING: sum(overlaps) / len(truth.boxes) if same_boxes else 0.0,
        Task.CAPTION: event_f1(truth, answer),
    }[task]


@given(ROWS)
@settings(deadline=None, max_examples=150)
def test_batches_equal_the_reference_and_single_answers(rows):
    samples = [sample_of(task, truth) for task, truth, _ in rows]
    answers = [answer for *_, answer in rows]
    expected = [reference(*row) for row in rows]
    for _ in range(2):  # computed, then remembered
        assert score_answers(samples, answers) == pytest.approx(expected, abs=1e-6)
    scoring._MEMO.clear()
    assert [score_answer(*pair) for pair in zip(samples, answers, strict=True)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("task", list(Task))
def test_the_truth_scores_one_and_an_empty_answer_zero(task):
    truth = Answer(
        text="left",
        number=3,
        spans=(Span(start=1, end=4),),
        boxes=(Box(left=0, top=0, right=2, bottom=2),) * 2,
        events=("red-square", "blue-circle"),
    )
    assert score_answers([sample_of(task, truth)] * 3, [truth, Answer(), None]) == [1.0, 0.0, 0.0]


def test_grounding_by_hand():
    sample = sample_of(Task.GROUNDING, Answer(spans=(Span(start=9, end=15),)))
    assert score_answer(sample, Answer(spans=(Span(start=12, end=18),))) == pytest.approx(1 / 3)


def test_a_repeated_event_counts_once():
    sample = sample_of(Task.CAPTION, Answer(events=("a", "b")))
    assert score_answer(sample, Answer(events=("b", "a"))) == 1.0
    assert score_answer(sample, Answer(events=("a",) * 8)) == pytest.approx(2 * (1 / 8) * (1 / 2) / (1 / 8 + 1 / 2))


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(scoring, "_MEMO", {})
    monkeypatch.setattr(scoring, "_MEMO_LIMIT", 3)
    sample = sample_of(Task.COUNTING, Answer(number=2))
    for number in range(10):
        assert score_answer(sample, Answer(number=number)) == float(number == 2)
        assert len(scoring._MEMO) <= 3


@pytest.mark.parametrize("answer", [None, Answer(number=1)])
def test_a_sample_without_truth_is_refused_with_its_name(answer):
    sample = sample_of(Task.GROUNDED_QA, Answer(text="left"))
    with pytest.raises(ValueError, match=r"Sample 's' \(grounded_qa\) has no `answer\.spans`"):
        score_answer(sample, answer)
    with pytest.raises(ValueError, match="0 answers for 1 samples"):
        score_answers([sample], [])
