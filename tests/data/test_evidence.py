"""What counts as showing the answer, by hand and against plain readings of the words."""

import pytest

from m1lite.data.evidence import shown, subject
from m1lite.records import Answer, Box, Sample, Span, Task

SPAN = (Span(start=9, end=15),)
BOXES = (Box(left=3, top=4, right=9, bottom=10), Box(left=5, top=4, right=11, bottom=10))


def make_sample(task, question, answer):
    return Sample(id="q", video="v", duration=47, task=task, question=question, answer=answer)


WHEN = make_sample(Task.GROUNDING, "when red-square", Answer(spans=SPAN))
NEXT = make_sample(Task.CHOICE, "next red-square", Answer(text="blue-circle"))
COUNT = make_sample(Task.COUNTING, "count objects", Answer(number=4))
WHERE = make_sample(Task.GROUNDED_QA, "where red-square", Answer(text="left", spans=SPAN))
TRACK = make_sample(Task.TRACKING, "track red-square", Answer(boxes=BOXES))
LIST = make_sample(Task.CAPTION, "list objects", Answer(events=("red-square", "blue-circle")))


@pytest.mark.parametrize(
    ("sample", "texts"),
    [
        (WHEN, ["red-square 9 15"]),
        (WHEN, ["none", "blue-circle 2 8 red-square 9 15 red-circle 11 14"]),
        (NEXT, ["seen 3 green-square red-square blue-circle"]),
        (NEXT, ["red-square 9 15 blue-circle 12 20"]),
        (COUNT, ["seen 4 a b c d"]),
        (WHERE, ["red-square left", "red-square 9 15"]),
        (WHERE, ["red-square 9 15", "red-square left red-square box 1 2 3 4 box 2 2 4 4"]),
        (TRACK, ["red-square left red-square box 3 4 9 10 box 5 4 11 10"]),
        (LIST, ["none", "seen 2 red-square blue-circle"]),
    ],
)
def test_shown(sample, texts):
    assert shown(sample, texts)


@pytest.mark.parametrize(
    ("sample", "texts"),
    [
        (WHEN, []),
        (WHEN, ["none"]),
        (WHEN, ["red-square 9 1"]),
        (WHEN, ["red-square 9 155"]),
        (WHEN, ["dark-red-square 9 15"]),
        (WHEN, ["blue-circle 9 15", "red-square 9 14"]),
        (WHEN, ["red-square clip 9 15"]),
        (NEXT, ["seen 2 blue-circle red-square"]),
        (NEXT, ["seen 3 red-square green-square blue-circle"]),
        (NEXT, ["t 5 red-square blue-circle"]),
        (NEXT, ["t 2 blue-circle red-square t 5 blue-circle green-square t 9 none"]),
        (NEXT, ["t 2 red-square blue-square t 9 blue-circle"]),
        (NEXT, ["seen 0"]),
        (NEXT, ["none", ""]),
        (NEXT, ["red-square left"]),
        (NEXT, ["red-square clip 8 16"]),
        (NEXT, ["blue-circle 8 11 red-square 9 15"]),
        (COUNT, ["seen 3 a b c"]),
        (COUNT, ["seen 40"]),
        (COUNT, ["a t 4"]),
        (WHERE, ["red-square left"]),
        (WHERE, ["red-square 9 15"]),
        (WHERE, ["red-square 9 15", "red-square right"]),
        (WHERE, ["red-square 9 15", "blue-circle left"]),
        (TRACK, ["red-square left"]),
        (TRACK, ["red-square left red-square box 3 4 9 10 box 5 4 11 11"]),
        (TRACK, ["blue-circle left blue-circle box 3 4 9 10 box 5 4 11 10"]),
        (LIST, ["seen 2 blue-circle red-square"]),
        (LIST, ["seen 3 red-square blue-circle red-circle"]),
    ],
)
def test_not_shown(sample, texts):
    assert not shown(sample, texts)


def test_the_subject_is_the_questions_last_word():
    assert [subject(sample) for sample in (WHEN, COUNT, TRACK)] == ["red-square", "objects", "red-square"]
