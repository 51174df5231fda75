"""The spatial tool on decoded pixels: lanes, boxes at two seconds, what is not seen, what is refused."""

import pytest


def test_spatial_tool_gives_the_lane(scene):
    assert scene.text("spatial_tool", question="red-square") == "red-square left"
    assert scene.text("spatial_tool", question="blue-circle", start=10) == "blue-circle right"
    assert scene.text("spatial_tool", question="green-triangle", end=31) == "green-triangle middle"
    assert scene.text("spatial_tool", question="purple-circle") == "none"


def test_spatial_tool_gives_boxes_at_both_ends_of_a_window(scene):
    text = scene.text("spatial_tool", question="red-square", start=10, end=14)
    assert text == "red-square left red-square box 3 4 17 18 box 3 12 17 26"
    assert scene.seconds == [10, 11, 12, 13, 10, 14]


@pytest.mark.parametrize(
    ("start", "end", "boxes"), [(8, 9, "none box 3 2 17 16"), (14, 20, "box 3 12 17 26 none"), (5, 25, "none none")]
)
def test_an_end_that_does_not_show_the_object_is_none(scene, start, end, boxes):
    text = scene.text("spatial_tool", question="red-square", start=start, end=end)
    assert text == f"red-square left red-square {boxes}"


def test_a_window_that_does_not_show_the_object_is_none(scene):
    assert scene.text("spatial_tool", question="red-square", start=20, end=25) == "none"


def test_the_end_of_the_video_shows_its_last_frame(scene):
    text = scene.text("spatial_tool", question="yellow-diamond", start=45, end=47)
    assert text == "yellow-diamond left yellow-diamond box 3 12 17 26 box 3 15 17 29"


def test_spatial_tool_takes_objects_only(scene):
    assert "`question` 'objects' is not one object" in scene.error("spatial_tool", question="objects")
    assert "`start` 9 must be before `end` 8" in scene.error("spatial_tool", question="red-square", start=9, end=8)
