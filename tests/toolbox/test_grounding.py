import pytest

from m1lite.toolbox.grounding import seen_span


def test_grounding_tool_gives_the_span_to_the_second(scene):
    assert scene.text("grounding_tool", event="red-square") == "red-square 9 15"
    assert scene.text("grounding_tool", event="yellow-diamond") == "yellow-diamond 40 47"
    assert scene.text("grounding_tool", event="purple-circle") == "none"


def test_grounding_tool_clips_to_its_window(scene):
    assert scene.text("grounding_tool", event="red-square", start=11) == "red-square 11 15"
    assert scene.text("grounding_tool", event="red-square", start=11, end=13) == "red-square 11 13"
    assert scene.text("grounding_tool", event="red-square", end=9) == "none"
    assert scene.text("grounding_tool", event="red-square", start=15) == "none"


def test_grounding_tool_looks_four_times_a_second_in_its_window_only(scene):
    scene.text("grounding_tool", event="red-square", start=46)
    assert scene.seconds == [46, 46.25, 46.5, 46.75]


def test_grounding_tool_takes_objects_only(scene):
    assert "`event` 'objects' is not one object" in scene.error("grounding_tool", event="objects")
    assert "`end` 99 is past the video end 47" in scene.error("grounding_tool", event="red-square", end=99)


@pytest.mark.parametrize(("seen", "span"), [([9.25], "9 10"), ([9.5, 11.0], "10 11"), ([10.5, 11.25], "11 12")])
def test_spans_round_half_up(seen, span):
    assert seen_span(seen, 4.0) == span
