"""Blind guessers against searches over everything they may guess, and the oracle on real videos."""

from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest

from m1lite.baselines import blind_result, mean_score, oracle, task_means
from m1lite.data.worlds import World, WorldSpec
from m1lite.records import Answer, Box, Sample, Span, Status, Task, ToolResult
from m1lite.rewards.scoring import score_answers

SYMBOLIC = World(spec=WorldSpec(num_train=30, num_val=20, num_test=20, tasks=tuple(Task)), folder=Path("/nowhere"))


def ask(name, task, answer, duration=40.0, **fields):
    return Sample(id=name, video=name, duration=duration, task=task, question="", answer=answer, **fields)


def when(name, start, end, duration=40.0):
    return ask(name, Task.GROUNDING, Answer(spans=(Span(start=start, end=end),)), duration)


def iou(start, end, span):
    inter = max(0.0, min(end, span.end) - max(start, span.start))
    return inter / (max(end, span.end) - min(start, span.start)) if inter else 0.0


def test_the_constant_span_is_the_best_on_train_as_a_share_of_the_duration():
    train = [when("a", 10, 20), when("b", 4, 10, 20), when("c", 24, 30, 60), when("d", 0, 2)]
    result = blind_result(Task.GROUNDING, train, train, [when("t", 30, 45, 60)], score_answers)
    best, share = max(
        (fmean(iou(a / 20 * s.duration, b / 20 * s.duration, s.answer.spans[0]) for s in train), (a / 20, b / 20))
        for a in range(20)
        for b in range(a + 1, 21)
    )
    assert result.name == "constant span"
    assert result.validation == pytest.approx(2 * best - 1)
    assert result.scores == pytest.approx({"t": 2 * iou(share[0] * 60, share[1] * 60, Span(start=30, end=45)) - 1})


def test_the_guesser_is_chosen_on_validation_and_not_on_test():
    train, whole = [when("a", 10, 20)], when("v", 0, 40)
    chosen = blind_result(Task.GROUNDING, train, [whole], [when("t", 10, 20)], score_answers)
    assert (chosen.name, chosen.validation) == ("whole video", 1.0)
    assert chosen.scores == pytest.approx({"t": 2 * 0.25 - 1})
    other = blind_result(Task.GROUNDING, train, [when("v", 10, 20)], [when("t", 0, 40)], score_answers)
    assert (other.name, other.validation) == ("constant span", 1.0)


@pytest.mark.parametrize("missing", range(3))
def test_a_split_without_the_task_has_no_baseline(missing):
    splits = [[when("a", 1, 2)] for _ in range(3)]
    splits[missing] = [ask("c", Task.COUNTING, Answer(number=3))]
    assert blind_result(Task.GROUNDING, *splits, score_answers) is None


def choice(name, right, options):
    return ask(name, Task.CHOICE, Answer(text=right), options=options)


def test_choice_guesses_a_place_or_what_is_often_right():
    train = [choice("a", "x", ("x", "y")), choice("b", "x", ("y", "x")), choice("c", "y", ("y", "z"))]
    val = [choice("v1", "x", ("x", "z", "y")), choice("v2", "x", ("z", "x", "y"))]
    frequent = blind_result(Task.CHOICE, train, val, [choice("t", "y", ("z", "y"))], score_answers)
    assert (frequent.name, frequent.validation, frequent.scores) == ("most frequent right option", 1.0, {"t": 1.0})
    last = [choice("v1", "z", ("x", "z")), choice("v2", "z", ("y", "z"))]
    placed = blind_result(Task.CHOICE, train, last, [choice("t", "z", ("z",))], score_answers)
    assert (placed.name, placed.scores) == ("option 2", {"t": 1.0}), "with fewer options the last one is taken"


def count(name, number, duration):
    return ask(name, Task.COUNTING, Answer(number=number), duration)


def test_counting_may_go_by_the_duration():
    train = [count("a", 3, 21), count("b", 3, 25), count("c", 6, 51), count("d", 6, 55), count("e", 4, 29)]
    val = [count("v1", 3, 24), count("v2", 6, 58)]
    test = [count("t1", 6, 50), count("t2", 3, 59), count("t3", 3, 99)]
    result = blind_result(Task.COUNTING, train, val, test, score_answers)
    assert result.name == "most frequent for the duration"
    assert result.scores == {"t1": 1.0, "t2": -1.0, "t3": 1.0}, "a new length takes the most frequent of all"
    fixed = blind_result(Task.COUNTING, train, [count("v", 6, 20)], test, score_answers)
    assert (fixed.name, fixed.scores) == ("always 6", {"t1": 1.0, "t2": -1.0, "t3": -1.0})


def track(name, *corners):
    boxes = tuple(Box(left=a, top=b, right=c, bottom=d) for a, b, c, d in corners)
    return ask(name, Task.TRACKING, Answer(boxes=boxes), times=tuple(float(n) for n in range(len(boxes))))


def test_tracking_guesses_one_box_for_every_time():
    train = [track("a", (0, 0, 10, 10), (2, 4, 12, 14)), track("b", (30, 40, 50, 60))]
    middle, field = (2, 4, 12, 14), (0, 0, 50, 60)
    for truth, name in ((middle, "median box"), (field, "whole field")):
        result = blind_result(Task.TRACKING, train, [track("v", truth)], [track("t", truth, truth)], score_answers)
        assert (result.name, result.scores) == (name, {"t": 1.0})


def test_grounded_qa_and_caption_guess_what_is_frequent():
    def where(name, text, start):
        return ask(name, Task.GROUNDED_QA, Answer(text=text, spans=(Span(start=start, end=start + 10),)))

    train = [where("a", "left", 10), where("b", "left", 10), where("c", "right", 10)]
    result = blind_result(Task.GROUNDED_QA, train, [where("v", "right", 10)], [where("t", "right", 10)], score_answers)
    assert (result.name, result.scores) == ("right and constant span", {"t": 1.0})

    def listed(name, *events):
        return ask(name, Task.CAPTION, Answer(events=events))

    train = [listed("a", "p", "q", "r", "s"), listed("b", "p", "q", "r")]
    result = blind_result(
        Task.CAPTION, train, [listed("v", "p", "q", "r")], [listed("t", "q", "p", "r")], score_answers
    )
    assert (result.name, result.scores) == ("3 most frequent events", {"t": 1.0})


@pytest.mark.parametrize("task", list(Task))
def test_every_task_of_the_world_has_a_baseline_that_knows_no_video(task):
    train, val, test = (SYMBOLIC.split(name) for name in ("train", "val", "test"))
    result = blind_result(task, train, val, test, score_answers)
    asked = [sample for sample in test if sample.task is task]
    assert result.task == task.value
    assert result.scores.keys() == {sample.id for sample in asked}
    assert -1 <= fmean(result.scores.values()) < 0.8
    blinded = [Sample(**{**fields(sample), "video": "other"}) for sample in asked]
    assert blind_result(task, train, val, blinded, score_answers).scores == result.scores


def fields(sample):
    return {name: getattr(sample, name) for name in Sample.__dataclass_fields__}


def test_means():
    samples = [when("a", 0, 10), when("b", 0, 20), count("c", 3, 20)]
    assert task_means(samples, [1.0, 0.5, 0.0]) == {"grounding": 0.5, "counting": -1.0}
    assert mean_score(samples[:2], lambda sample: Answer(spans=(Span(start=0, end=10),)), score_answers) == 0.75


def test_the_oracle_reads_real_videos(world, world_toolbox):
    """The tools tell all but what they do not see: spans, lanes and counts are exact, order is by the rough look."""
    samples = world.every_question("test")
    answers = oracle(samples, world_toolbox.run, seed=1)
    assert {sample.task for sample in samples} == {Task.GROUNDING, Task.CHOICE, Task.COUNTING, Task.GROUNDED_QA}
    for sample, answer in zip(samples, answers, strict=True):
        if sample.task is not Task.CHOICE:
            assert answer == sample.answer
    means = task_means(samples, score_answers(samples, answers))
    assert means["choice"] > 0.9


def test_the_oracle_reads_boxes_and_lists():
    tracking = track("a", (3, 4, 9, 10), (5, 4, 11, 10))
    tracking.question = "track red-square"
    caption = ask("b", Task.CAPTION, Answer(events=("red-square", "blue-circle")))
    caption.question = "list objects"
    calls = []

    def run_tools(asked):
        calls.extend(asked)
        texts = ["red-square left red-square box 3 4 9 10 box 5 4 11 10", "seen 2 red-square blue-circle"]
        return [ToolResult(text=text) for text in texts]

    assert oracle([tracking, caption], run_tools) == [tracking.answer, caption.answer]
    assert calls[0][1].args == {"question": "red-square", "start": 0.0, "end": 1.0}


def test_the_oracle_guesses_where_the_tools_do_not_tell():
    samples = []
    for number in range(200):
        samples.append(choice(str(number), "x", ("w", "x", "y", "z")))
        samples[-1].question = "next red-square"
    answers = oracle(samples, lambda calls: [ToolResult(text="seen 1 red-square") for _ in calls], seed=3)
    guessed = Counter(answer.text for answer in answers)
    assert guessed.keys() == set("wxyz")
    assert min(guessed.values()) > 25
    assert oracle(samples, lambda calls: [ToolResult(text="none") for _ in calls], seed=3) == answers


def test_the_oracle_survives_tools_that_fail():
    samples = [sample for sample in SYMBOLIC.split("test") if sample.task is not Task.CHOICE]
    assert {sample.task for sample in samples} == set(Task) - {Task.CHOICE}
    failed = ToolResult(error="too late", status=Status.TOOL_TIMEOUT)
    answers = oracle(samples, lambda calls: [failed for _ in calls])
    assert set(answers) == {Answer()}
