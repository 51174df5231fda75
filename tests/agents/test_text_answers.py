"""Answers in words: what is written is read back, and what cannot be read is said."""

from dataclasses import replace

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
        (Task.GROUNDED_QA, "red [(1, 2)]", "has no <glue>"),
        (Task.TRACKING, f"<answer>[[1, 2, 3, {10**400}], [1, 2, 3, 4]]</answer>", "left at most right"),
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


def test_a_choice_in_a_sentence_is_read_and_an_article_chooses_nothing():
    asked = sample(Task.CHOICE)
    for text in ("The answer is B", "Best option: (B)", "It is a cat."):
        assert TextAnswers().parse_answer(f"<answer>{text}</answer>", asked).value == Answer(text="a cat")
    assert TextAnswers().parse_answer("<answer>A man is seen</answer>", asked).value is None
    worded = TextAnswers(letters=False)
    assert "One of: a dog; a cat." in worded.ask(asked)
    assert worded.write_answer(Answer(text="a cat"), asked) == "<answer>a cat</answer>"
    assert worded.parse_answer("<answer>A Cat</answer>", asked).value == Answer(text="a cat")


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("<answer>red</answer>", Answer(text="red"), "has no <glue>"),
        ("<answer>red</answer><glue>[3]</glue>", Answer(text="red"), "'[3]' must be a list of pairs"),
        ("<answer>red</answer><glue>[(9, 3)]</glue>", Answer(text="red"), "The span 9 to 3 needs 0 <= start"),
        ("<glue>[(1, 2), (3, 4.5)]</glue>", Answer(spans=(Span(start=1, end=2), Span(start=3, end=4.5))), "<answer>"),
    ],
)  # fmt: skip
def test_a_grounded_answer_keeps_the_part_that_can_be_read(text, value, message):
    parsed = TextAnswers().parse_answer(text, sample(Task.GROUNDED_QA))
    assert (parsed.value, parsed.status) == (value, Status.INVALID_ANSWER)
    assert message in parsed.message
    none = TextAnswers().parse_answer("<answer>red</answer><glue>[ ]</glue>", sample(Task.GROUNDED_QA))
    assert (none.value, none.status) == (Answer(text="red"), Status.OK), "no span at all is a list of spans"


def test_grounded_answers_are_chosen_where_there_are_options_and_may_leave_out_the_spans():
    asked = replace(sample(Task.GROUNDED_QA), options=("a blue square", "a red square"))
    two = replace(ANSWERS[Task.GROUNDED_QA], spans=(Span(start=1, end=2), Span(start=5, end=6)))
    text = TextAnswers().write_answer(two, asked)
    assert text == "<answer>B</answer><glue>[(1.00, 2.00), (5.00, 6.00)]</glue>"
    assert TextAnswers().parse_answer(text, asked).value == two
    assert "letter" in TextAnswers().ask(asked)
    alone = TextAnswers(glue=False)
    assert "glue" not in alone.ask(sample(Task.GROUNDED_QA))
    assert alone.write_answer(two, sample(Task.GROUNDED_QA)) == "<answer>a red square</answer>"
    assert alone.parse_answer("<answer>it is red</answer>", sample(Task.GROUNDED_QA)).value == Answer(text="it is red")


def test_boxes_as_shares_are_pixels_of_the_video_again():
    asked, shares = replace(sample(Task.TRACKING), size=(100, 200)), TextAnswers(shares=True)
    text = shares.write_answer(ANSWERS[Task.TRACKING], asked)
    assert text.startswith("<answer>[[0.0, 0.01, 0.0125, 0.03], ")
    for read, box in zip(shares.parse_answer(text, asked).value.boxes, ANSWERS[Task.TRACKING].boxes, strict=True):
        assert [read.left, read.top, read.right, read.bottom] == pytest.approx(
            [box.left, box.top, box.right, box.bottom]
        )
    assert "from 0 to 1" in shares.ask(asked)
    with pytest.raises(ValueError, match="Sample 'q' has no `size`"):
        shares.ask(sample(Task.TRACKING))


def test_thoughts_may_name_their_moments():
    assert "<timestep>" in TextAnswers(timesteps=True).ask(sample(Task.CHOICE))
    assert "<timestep>" not in TextAnswers(timesteps=True, think=False).ask(sample(Task.CHOICE))


@given(text=st.text(), task=st.sampled_from(list(Task)))
def test_no_text_raises(text, task):
    TextAnswers().parse_answer(f"<answer>{text}</answer><glue>{text}</glue>", sample(task))


def test_an_answer_without_what_the_task_asks_for_is_refused():
    with pytest.raises(ValueError, match="grounding question needs one of `spans`"):
        TextAnswers().write_answer(Answer(), sample(Task.GROUNDING))
