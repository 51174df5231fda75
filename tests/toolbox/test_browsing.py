import pytest

from m1lite.toolbox.perception import OBJECTS


def test_rough_browser_counts_in_the_order_of_first_sight(scene):
    expected = "seen 4 red-square blue-circle green-triangle yellow-diamond"
    assert scene.text("rough_browser", question="objects") == expected
    assert scene.seconds == list(range(0, 47, 2))


def test_objects_first_seen_together_are_named_from_left_to_right(make_scene, make_event):
    events = (make_event("red-square", "right", 2, 9), make_event("blue-circle", "left", 4, 9))
    scene = make_scene(events=events)
    assert scene.text("rough_browser", question="objects") == "seen 2 red-square blue-circle"
    assert scene.text("rough_browser", question="objects", start=5) == "seen 2 blue-circle red-square"


def test_rough_browser_about_one_object(scene):
    assert scene.text("rough_browser", question="red-square") == "seen 1 red-square"
    assert scene.text("rough_browser", question="red-square", start=15) == "seen 0"
    assert scene.text("rough_browser", question="purple-circle") == "seen 0"


def test_rough_browser_misses_what_falls_between_its_frames(scene):
    assert scene.text("rough_browser", question="objects", start=8, end=10) == "seen 0"  # looks at 8 only


def test_fine_browser_gives_spans_clipped_to_its_window(scene):
    assert scene.text("fine_browser", question="objects", start=8, end=20) == "red-square 9 15 blue-circle 12 20"
    assert scene.text("fine_browser", question="objects", start=10, end=14) == "red-square 10 14 blue-circle 12 14"
    assert scene.text("fine_browser", question="blue-circle", start=8, end=14) == "blue-circle 12 14"
    assert scene.text("fine_browser", question="objects", start=20, end=30) == "none"


def test_fine_browser_looks_four_times_a_second(scene):
    scene.text("fine_browser", question="objects", start=8, end=10)
    assert scene.seconds == [8, 8.25, 8.5, 8.75, 9, 9.25, 9.5, 9.75]


def test_fine_browser_refuses_long_windows(scene):
    message = scene.error("fine_browser", question="objects", start=8, end=21)
    assert "The window from 8 to 21 is 13 seconds long; `fine_browser` looks at 12 at most" in message
    assert scene.seconds == []


@pytest.mark.parametrize("tool", ["rough_browser", "fine_browser"])
def test_questions_that_name_nothing_are_refused(scene, tool):
    message = scene.error(tool, question="how many", start=1, end=2)
    assert "`question` 'how many' is not `objects` or one object" in message
    assert message.endswith(f"such as {OBJECTS[0]}.")
