"""Answers in words: what is written is read back, and what cannot be read is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m1lite.agents.text_answers import TextAnswers
from m1lite.records import Answer, Box, Sample, Span, Status, Task

ANSWERS = {
    Task.GROUNDING: Answer(spans=(Span(start=4.5, end=17.83),)),
    Task.CHOICE: Answer(text="a cat"),
    Task.COUNTING: Answer(number=3),
    Task.GROUNDED_QA: Answer(text="a red square", spans=(Span(start=1.0, end=9.25),)),
    Task.TRACKING: Answer(
        boxes=(Box(left=0.0, top=1.0, right=2.5, bottom=3.0), Box(left=5.0, top=5.0, right=9.0, bottom=9.0))
    ),
    Task.CAPTION: Answer(events=("a ball falls", "it breaks")),
}


def sample(task):
    return Sample(
        id="q", video="v.mp4", duration=20, task=task, question="What?", answer=ANSWERS[task],
        options=("a dog", "a cat") if task is Task.CHOICE else (), times=(1.0, 2.5) if task is Task.TRACKING else (),
    )  # fmt: skip


@pytest.mark.parametrize("task", list(Task))
def test_what_is_written_is_read_back(task):
    answers, asked = TextAnswers(), sample(task)
    text = answers.write_answer(ANSWERS[task], asked)
    parsed = answers.parse_answer(f"<think>1 to 2, <answer>9 to 10</answer>?</think>{text}", asked)
    assert (parsed.value, parsed.status) == (ANSWERS[task], Status.OK)
    assert asked.question in answers.ask(asked)
    assert "<think>" in answers.ask(asked)
    assert "<think>" not in TextAnswers(think=False).ask(asked)


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        (Task.GROUNDING, "3 to 9", "The reply '3 to 9' has no <answer>"),
        (Task.GROUNDING, "<answer></answer>", "has no <answer>"),
        (Task.GROUNDING, "<answer>soon</answer>", "'soon' names no span"),
        (Task.GROUNDING, "<answer>9 to 3</answer>", "The span 9 to 3 needs 0 <= start <= end"),
        (Task.CHOICE, "<answer>C</answer>", "The answer 'C' must be one letter of A, B"),
        (Task.CHOICE, "<answer>A man</answer>", "must be one letter of A, B"),
        (Task.COUNTING, "<answer>2.5</answer>", "'2.5' must be a whole number"),
        (Task.GROUNDED_QA, "<answer>red</answer>", "has no <glue>"),
        (Task.GROUNDED_QA, "<answer>red</answer><glue>[3]</glue>", "'[3]' must be a list of pairs"),
        (Task.TRACKING, "<answer>[[1, 2, 3, 4]]</answer>", "must be a list of 2 boxes"),
        (Task.TRACKING, "<answer>[[1, 2, 3], [1, 2, 3, 4]]</answer>", "must be a list of 2 boxes"),
        (Task.TRACKING, "<answer>[[3, 2, 1, 4], [1, 2, 3, 4]]</answer>", "left at most right"),
        (Task.TRACKING, "<answer>" + "[" * 5000 + "</answer>", "must be a list of 2 boxes"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(task, text, message):
    parsed = TextAnswers().parse_answer(text, sample(task))
    assert (parsed.value, parsed.status) == (None, Status.INVALID_ANSWER)
    assert message in parsed.message


def test_choices_by_letter_and_by_content():
    for text in ("B", "(B)", "B. a cat", "a cat", "A CAT"):
        assert TextAnswers().parse_answer(f"<answer>{text}</answer>", sample(Task.CHOICE)).value == Answer(text="a cat")


@given(text=st.text(), task=st.sampled_from(list(Task)))
def test_no_text_raises(text, task):
    TextAnswers().parse_answer(f"<answer>{text}</answer><glue>{text}</glue>", sample(task))


def test_an_answer_without_what_the_task_asks_for_is_refused():
    with pytest.raises(ValueError, match="grounding question needs one of `spans`"):
        TextAnswers().write_answer(Answer(), sample(Task.GROUNDING))
