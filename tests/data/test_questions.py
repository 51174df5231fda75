import random
from collections import Counter

import pytest

from m1lite.data.questions import questions
from m1lite.data.scenes import Event, SceneScript, SceneSpec, draw_scene
from m1lite.records import Answer, Box, Span, Task


def visit(name, lane, start, end, left=4):
    return Event(object=name, lane=lane, start=start, end=end, side=10, left=left, first_top=1, last_top=51)


SCENE = SceneScript(
    duration=40,
    fps=4,
    size=64,
    background=56,
    events=(
        visit("red-square", "left", 2, 7),
        visit("blue-circle", "right", 5, 10, left=48),
        visit("green-diamond", "left", 20, 30),
    ),
)


def ask(*tasks, scene=SCENE, seed=0, per_task=1):
    return questions(scene, "videos/clip.mp4", random.Random(seed), tasks, per_task=per_task)


def by_subject(task):
    """All questions of a task about the scene, keyed by the object they ask about."""
    return {sample.question.split()[1]: sample for sample in ask(task, per_task=9)}


def test_grounding_asks_for_the_span():
    asked = by_subject(Task.GROUNDING)
    assert {name: sample.answer for name, sample in asked.items()} == {
        "red-square": Answer(spans=(Span(start=2, end=7),)),
        "blue-circle": Answer(spans=(Span(start=5, end=10),)),
        "green-diamond": Answer(spans=(Span(start=20, end=30),)),
    }
    assert asked["red-square"].question == "when red-square"


def test_grounded_qa_asks_for_the_lane_and_the_span():
    sample = by_subject(Task.GROUNDED_QA)["blue-circle"]
    assert sample.question == "where blue-circle"
    assert sample.answer == Answer(text="right", spans=(Span(start=5, end=10),))


def test_choice_asks_for_the_successor():
    asked = by_subject(Task.CHOICE)
    assert {name: sample.answer.text for name, sample in asked.items()} == {
        "red-square": "blue-circle",
        "blue-circle": "green-diamond",  # the last one has no successor and is not asked
    }
    assert asked["red-square"].question == "next red-square"


def test_options_hold_the_right_one_once_and_the_video_s_own_first():
    positions = Counter()
    for seed in range(200):
        (sample,) = ask(Task.CHOICE, seed=seed)
        right, subject = sample.answer.text, sample.question.split()[1]
        assert len(set(sample.options)) == len(sample.options) == 4
        assert subject not in sample.options
        others = {"red-square", "blue-circle", "green-diamond"} - {subject}
        assert others <= set(sample.options)
        positions[sample.options.index(right)] += 1
    assert set(positions) == {0, 1, 2, 3}
    assert max(positions.values()) < 2 * min(positions.values())


def test_options_come_from_the_video_alone_where_it_has_enough():
    for seed in range(30):
        scene = draw_scene(SceneSpec(min_objects=7), random.Random(seed))
        (sample,) = ask(Task.CHOICE, scene=scene, seed=seed)
        assert set(sample.options) <= {event.object for event in scene.events}


def test_counting_and_caption_are_about_the_whole_video():
    counting, caption = ask(Task.COUNTING, Task.CAPTION, per_task=5)
    assert (counting.question, counting.answer) == ("count objects", Answer(number=3))
    assert caption.question == "list objects"
    assert caption.answer == Answer(events=("red-square", "blue-circle", "green-diamond"))


def test_tracking_asks_for_two_whole_seconds_of_the_visit():
    seen = set()
    for seed in range(60):
        (sample,) = ask(Task.TRACKING, seed=seed)
        event = next(event for event in SCENE.events if event.object == sample.question.split()[1])
        first, second = sample.times
        assert event.start <= first < second < event.end
        assert first == int(first)
        for when, box in zip(sample.times, sample.answer.boxes, strict=True):
            top = round(1 + 50 * (when - event.start) / (event.end - event.start))
            assert box == Box(left=event.left, top=top, right=event.left + 10, bottom=top + 10)
        seen.add(sample.question)
    assert seen == {"track red-square", "track blue-circle", "track green-diamond"}


def test_samples_name_the_video():
    samples = ask(*Task, per_task=2)
    assert len({sample.id for sample in samples}) == len(samples) == 2 + 2 + 1 + 2 + 2 + 1
    assert samples[0].id == "clip-grounding-0"
    assert {sample.video for sample in samples} == {"videos/clip.mp4"}
    assert {sample.duration for sample in samples} == {40}
    assert samples[0].tags == {"source": "world", "length": "medium", "objects": "3"}
    assert [sample.task for sample in ask(*Task)] == list(Task)


def test_several_questions_of_a_task_ask_about_different_objects():
    for task in (Task.GROUNDING, Task.GROUNDED_QA, Task.TRACKING):
        assert len({sample.question for sample in ask(task, per_task=3)}) == 3
    assert len({sample.question for sample in ask(Task.CHOICE, per_task=3)}) == 2


def test_the_same_chance_gives_the_same_questions():
    assert ask(*Task, seed=1) == ask(*Task, seed=1)
    assert ask(*Task, seed=1) != ask(*Task, seed=2)


def test_two_objects_are_enough_for_every_task():
    spec = SceneSpec(min_objects=2, max_objects=2)
    for seed in range(20):
        samples = ask(*Task, scene=draw_scene(spec, random.Random(seed)), seed=seed)
        assert [sample.task for sample in samples] == list(Task)


def test_bad_count_names_the_value():
    with pytest.raises(ValueError, match="`per_task` must be at least 1, got 0"):
        ask(Task.CHOICE, per_task=0)
