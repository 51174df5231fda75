import random
from itertools import combinations, pairwise

import pytest
import torch

from m1lite.data.questions import questions
from m1lite.data.scenes import Event, SceneScript, SceneSpec, draw_scene, render
from m1lite.records import Box, Task
from m1lite.toolbox.perception import COLOURS, LANES, OBJECTS, detect

SPEC = SceneSpec()


def scenes(count, spec=SPEC):
    return [draw_scene(spec, random.Random(seed)) for seed in range(count)]


def test_every_rule_of_the_world_holds():
    for scene in scenes(300):
        assert SPEC.min_seconds <= scene.duration <= SPEC.max_seconds
        assert scene.fps in SPEC.frame_rates
        assert SPEC.min_objects <= len(scene.events) <= SPEC.max_objects
        starts = [event.start for event in scene.events]
        assert starts == sorted(starts)
        assert all(later - earlier >= 2 for earlier, later in pairwise(starts))
        names = [event.object for event in scene.events]
        assert len(set(names)) == len(names)
        assert set(names) <= set(OBJECTS)
        for event in scene.events:
            assert 0 <= event.start < event.end <= scene.duration
            assert SPEC.min_visible_seconds <= event.end - event.start <= SPEC.max_visible_seconds
        for one, other in combinations(scene.events, 2):
            seconds = set(range(one.start, one.end)) & set(range(other.start, other.end))
            if seconds:
                assert one.lane != other.lane
                assert one.object.split("-")[0] != other.object.split("-")[0]


def test_objects_stay_in_their_lane_and_move_at_constant_speed():
    for scene in scenes(60):
        for event in scene.events:
            boxes = [event.box_at(i / scene.fps) for i in range(event.start * scene.fps, event.end * scene.fps)]
            third = LANES.index(event.lane) * 64 / 3
            assert all(third <= box.left and box.right <= third + 64 / 3 + 1 for box in boxes)
            assert all(box.top >= 0 and box.bottom <= 64 for box in boxes)
            assert all(isinstance(side, int) for box in boxes for side in (box.left, box.top, box.right, box.bottom))
            speed = (event.last_top - event.first_top) / (event.end - event.start) / scene.fps
            for number, box in enumerate(boxes):
                assert abs(box.top - (event.first_top + speed * number)) <= 0.5
            assert abs(speed) > 0


def test_all_values_occur():
    drawn = scenes(400)
    events = [event for scene in drawn for event in scene.events]
    assert {scene.fps for scene in drawn} == set(SPEC.frame_rates)
    assert {scene.duration for scene in drawn} == set(range(20, 61))
    assert {event.object for event in events} == set(OBJECTS)
    assert {event.end - event.start for event in events} == set(range(3, 13))
    assert {event.side for event in events} == set(SPEC.object_sizes)
    assert {event.last_top > event.first_top for event in events} == {True, False}
    for count in range(3, 8):  # uniform, also where the video is short: 1/5 each, 5 standard errors
        assert abs(sum(len(scene.events) == count for scene in drawn) / 400 - 0.2) < 0.1
        short = [scene for scene in drawn if scene.duration < 30]
        assert any(len(scene.events) == count for scene in short)


def test_the_same_chance_gives_the_same_scene():
    assert draw_scene(SPEC, random.Random("a")) == draw_scene(SPEC, random.Random("a"))
    assert draw_scene(SPEC, random.Random("a")) != draw_scene(SPEC, random.Random("b"))


def test_render_draws_what_the_script_says():
    event = Event(
        object="red-square", lane="left", start=1, end=3, side=10, left=4, first_top=1, last_top=21
    )  # 10 pixels a second
    scene = SceneScript(duration=4, fps=4, size=64, background=56, events=(event,))
    pixels = render(scene)
    assert pixels.shape == (16, 3, 64, 64)
    assert pixels.dtype == torch.uint8
    expected = torch.full((16, 3, 64, 64), 56, dtype=torch.uint8)
    tops = {4: 1, 5: 4, 6: 6, 7: 8, 8: 11, 9: 14, 10: 16, 11: 18}  # halves round to even
    for frame, top in tops.items():
        expected[frame, :, top : top + 10, 4:14] = torch.tensor(COLOURS["red"], dtype=torch.uint8)[:, None, None]
    assert torch.equal(pixels, expected)


def test_perception_reads_a_rendered_scene_exactly():
    scene = scenes(1)[0]
    for index, detections in enumerate(detect(render(scene))):
        now = index / scene.fps
        expected = {(e.object, e.lane, e.box_at(now)) for e in scene.events if e.start <= now < e.end}
        assert {(each.object, each.lane, each.box) for each in detections} == expected


def test_box_outside_the_visit():
    event = Event(object="red-square", lane="left", start=1, end=3, side=10, left=4, first_top=1, last_top=21)
    assert event.box_at(1) == Box(left=4, top=1, right=14, bottom=11)
    with pytest.raises(ValueError, match=r"`second` 3 is outside the visit \[1, 3\) of 'red-square'"):
        event.box_at(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_seconds": 65}, r"from 1 to 64, got 20 and 65"),
        ({"min_seconds": 50, "max_seconds": 40}, r"ascending and from 1 to 64, got 50 and 40"),
        ({"min_objects": 1}, r"`min_objects` and `max_objects` must be ascending and from 2 to 24, got 1 and 7"),
        ({"max_visible_seconds": 21}, r"from 2 to 20, got 3 and 21"),
        ({"frame_rates": (0, 4)}, r"`frame_rates` must be whole numbers from 1, got \(0, 4\)"),
        ({"min_gap_seconds": 0}, r"`min_gap_seconds` must be at least 1, got 0"),
        ({"size": 63}, r"`size` must be even and from 16 to 64 pixels, got 63"),
        ({"object_sizes": (10, 20)}, r"`object_sizes` must be from 6 to 16 pixels .*, got \(10, 20\)"),
        ({"background": 300}, r"`background` must be from 0 to 80, got 300"),
    ],
)
def test_bad_constants_name_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        SceneSpec(**change)


def test_lists_of_a_configuration_are_taken():
    assert SceneSpec(frame_rates=[4, 5, 8], object_sizes=[10, 12, 14, 16]) == SPEC


def test_scenes_without_room_say_so():
    crowded = SceneSpec(min_seconds=20, max_seconds=20, min_objects=12, max_objects=12)
    with pytest.raises(ValueError, match=r"No room for 12 objects in 20 s .*lower `max_objects`"):
        draw_scene(crowded, random.Random(0))


def test_scenes_of_some_shapes_show_and_ask_about_these_alone():
    spec = SceneSpec(shapes=["square"], min_objects=3, max_objects=4)
    scenes = [draw_scene(spec, random.Random(seed)) for seed in range(30)]
    assert {event.object for scene in scenes for event in scene.events} == set(spec.objects)
    assert len(spec.objects) == 6
    for scene in scenes:
        for sample in questions(scene, "clip.mp4", random.Random(0), [Task.CHOICE], per_task=3):
            assert len(sample.options) == 4
            assert set(sample.options) <= set(spec.objects)
    with pytest.raises(ValueError, match="`shapes` must be some of square, circle, triangle, diamond, got"):
        SceneSpec(shapes=["star"])


def test_some_frames_are_those_of_the_whole_rendering():
    scene = draw_scene(SceneSpec(), random.Random(1))
    assert torch.equal(render(scene, [7, 0, 30]), render(scene)[[7, 0, 30]])
