"""Drawn plans: always valid, uniform where they say so, and telling where they are made to be."""

from collections import Counter
from random import Random
from typing import Annotated

import pytest

from m1lite.data.calls import RandomCalls, TellingCalls
from m1lite.records import Answer, Box, Sample, Span, Task, ToolResult
from m1lite.toolbox import Between, ToolContext, check_arguments, tool
from m1lite.toolbox.classical import CLASSICAL_TOOLS
from m1lite.toolbox.perception import OBJECTS

TOOLS = {entry.name: entry for entry in CLASSICAL_TOOLS}


def make_sample(task=Task.CHOICE, duration=47.0):
    question = {Task.COUNTING: "count objects", Task.TRACKING: "track red-square"}.get(task, "next red-square")
    answer = Answer(text="left", spans=(Span(start=9, end=15),), boxes=(Box(left=1, top=2, right=3, bottom=4),) * 2)
    sample = Sample(id="q", video="v", duration=duration, task=task, question=question, answer=answer)
    sample.options = ("blue-circle", "green-square") if task is Task.CHOICE else ()
    sample.times = (10.0, 13.0) if task is Task.TRACKING else ()
    return sample


def draw(name, count=4000, sample=None, **options):
    rng, calls = Random(3), RandomCalls(**options)
    return [calls.call(sample or make_sample(), TOOLS[name], rng).args for _ in range(count)]


def share(items):
    items = list(items)
    return sum(items) / len(items)


def test_tools_and_numbers_of_steps_are_uniform():
    rng, calls = Random(0), RandomCalls(max_steps=3)
    plans = [calls.plan(make_sample(), CLASSICAL_TOOLS, rng) for _ in range(6000)]
    lengths = Counter(len(plan.steps) for plan in plans)
    assert set(lengths) == {1, 2, 3}
    assert all(count == pytest.approx(2000, rel=0.1) for count in lengths.values())
    names = Counter(step.tool for plan in plans for step in plan.steps)
    assert set(names) == set(TOOLS)
    assert all(count == pytest.approx(1500, rel=0.15) for count in names.values())
    assert RandomCalls().plan(make_sample(), [], rng).steps == ()


@pytest.mark.parametrize("duration", [20.0, 47.0, 60.0])
@pytest.mark.parametrize("name", TOOLS)
def test_every_call_is_valid(name, duration):
    sample = make_sample(duration=duration)
    for args in draw(name, 500, sample):
        assert check_arguments(TOOLS[name], args) == args
        if "start" in args:
            assert 0 <= args["start"] < args["end"] <= duration
            assert name != "fine_browser" or args["end"] - args["start"] <= 12


def test_optional_arguments_are_given_half_of_the_time_and_windows_whole():
    drawn = draw("image_retrieval")
    assert share("top_k" in args for args in drawn) == pytest.approx(0.5, abs=0.03)
    assert share("start" in args for args in drawn) == pytest.approx(0.5, abs=0.03)
    assert all(("start" in args) == ("end" in args) for args in drawn)
    both = share("top_k" in args and "start" in args for args in drawn)
    assert both == pytest.approx(0.25, abs=0.03), "one does not depend on the other"
    counts = Counter(args["top_k"] for args in drawn if "top_k" in args)
    assert set(counts) == set(range(1, 9))
    assert min(counts.values()) > 0.75 * max(counts.values())


def test_half_of_the_words_are_named_in_the_question():
    words = Counter(args["event"] for args in draw("grounding_tool"))
    named = ("red-square", "blue-circle", "green-square")
    assert set(words) == set(OBJECTS)
    assert sum(words[word] for word in named) / 4000 == pytest.approx(0.5 + 0.5 * 3 / 24, abs=0.03)
    others = [words[word] for word in OBJECTS if word not in named]
    assert sum(others) / len(others) == pytest.approx(4000 * 0.5 / 24, rel=0.1)


def test_only_overview_tools_are_asked_about_objects():
    counting = make_sample(Task.COUNTING)
    assert share(args["question"] == "objects" for args in draw("rough_browser", sample=counting)) == pytest.approx(
        0.5, abs=0.03
    )
    assert not any(args["question"] == "objects" for args in draw("spatial_tool", sample=counting))


def test_windows_are_uniform():
    drawn = [(args["start"], args["end"]) for args in draw("time_step_retrieval", 20_000, make_sample(duration=5.0))]
    pairs = Counter(drawn)
    assert len(pairs) == 15, "all pairs of the 6 seconds 0 to 5"
    assert all(count == pytest.approx(20_000 / 15, rel=0.12) for count in pairs.values())


def test_half_of_a_tracking_questions_windows_are_its_times():
    drawn = [(args["start"], args["end"]) for args in draw("time_step_retrieval", sample=make_sample(Task.TRACKING))]
    assert share(window == (10, 13) for window in drawn) == pytest.approx(0.5, abs=0.03)


def test_a_number_without_limits_cannot_be_drawn():
    @tool
    def zoom(context: ToolContext, *, factor: float) -> ToolResult:
        """Zoom.

        Args:
            context: the video.
            factor: how much.
        """
        return ToolResult()

    with pytest.raises(ValueError, match="`factor` of `zoom` has no limits"):
        RandomCalls().call(make_sample(), zoom, Random(0))


def test_other_kinds_of_arguments_are_drawn():
    @tool
    def look(context: ToolContext, *, share: Annotated[float, Between(2, 4)], fast: bool) -> ToolResult:
        """Look.

        Args:
            context: the video.
            share: how much.
            fast: whether to hurry.
        """
        return ToolResult()

    drawn = [RandomCalls().call(make_sample(), look, Random(seed)).args for seed in range(60)]
    assert {args["share"] for args in drawn} == {2, 3, 4}
    assert {args["fast"] for args in drawn} == {True, False}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_steps": 0}, "got 0 and 24 words"),
        ({"words": ()}, "got 2 and 0 words"),
        ({"named_probability": 1.2}, "`named_probability` is 1.2"),
        ({"optional_probability": -1}, "`optional_probability` is -1"),
    ],
)
def test_impossible_settings_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        RandomCalls(**options)


@pytest.mark.parametrize("task", list(Task))
def test_telling_plans_call_what_tells(task):
    sample = make_sample(task)
    telling = {
        Task.GROUNDING: {"grounding_tool", "fine_browser"},
        Task.CHOICE: {"rough_browser"},
        Task.COUNTING: {"rough_browser"},
        Task.GROUNDED_QA: {"grounding_tool", "fine_browser", "spatial_tool"},
        Task.TRACKING: {"spatial_tool"},
        Task.CAPTION: {"rough_browser"},
    }[task]
    for seed in range(200):
        plan = TellingCalls().plan(sample, CLASSICAL_TOOLS, Random(seed))
        names = {step.tool for step in plan.steps}
        assert telling <= names if task is Task.GROUNDED_QA else names & telling
        for step in plan.steps:
            assert check_arguments(TOOLS[step.tool], step.args) == step.args
    lengths = Counter(
        len(TellingCalls(other_probability=0).plan(sample, CLASSICAL_TOOLS, Random(s)).steps) for s in range(50)
    )
    assert set(lengths) == ({3} if task is Task.GROUNDED_QA else {1})


@pytest.mark.parametrize("span", [(9, 15), (0, 3), (44, 47), (3, 15), (5, 30)])
def test_a_fine_look_covers_as_much_of_the_span_as_it_can(span):
    sample = make_sample(Task.GROUNDING)
    sample.answer = Answer(spans=(Span(start=span[0], end=span[1]),))
    windows = set()
    for seed in range(300):
        (step,) = TellingCalls(other_probability=0).plan(sample, [TOOLS["fine_browser"]], Random(seed)).steps
        start, end = step.args["start"], step.args["end"]
        assert 0 <= start <= span[0]
        assert min(span[1], start + 12) <= end <= 47
        assert end - start <= 12
        windows.add((start, end))
    assert len(windows) > 3 or span[1] - span[0] >= 12


def test_an_agent_whose_tools_cannot_tell_plans_at_random():
    tools = [TOOLS["video_retrieval"], TOOLS["global_sampling"]]
    names = {TellingCalls().plan(make_sample(), tools, Random(seed)).steps[0].tool for seed in range(20)}
    assert names == {"video_retrieval", "global_sampling"}
