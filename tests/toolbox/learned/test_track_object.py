"""An object of the synthetic world followed from its box, and what a tracker is shown."""

from dataclasses import replace

import pytest

from m1lite.data.worlds import SceneSpec, WorldSpec, build_world
from m1lite.records import Box, Task, ToolCall
from m1lite.toolbox import Toolbox
from m1lite.toolbox.learned.tracking import Tracking
from m1lite.toolbox.shape_tracker import track_shape
from m1lite.video.cache import FrameCache


@pytest.fixture(scope="module")
def frames():
    return FrameCache(2**27)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    scenes = SceneSpec(min_seconds=20, max_seconds=26, frame_rates=(4,), max_objects=5)
    spec = WorldSpec(num_train=2, num_val=1, num_test=1, train_per_task=2, tasks=(Task.TRACKING,), scenes=scenes)
    return build_world(spec, tmp_path_factory.mktemp("tracking"))


@pytest.fixture
def tracked(world, frames):
    """Give every question of the world about boxes, with a function that follows its object from the first of them."""

    def follow(sample, **args):
        toolbox = Toolbox(Tracking(track_shape, fps=2).tools, frames)
        return toolbox.run([(sample, ToolCall(tool="track_object", args=args))])[0]

    return world.split("train"), follow


def corners(box):
    return [box.left, box.top, box.right, box.bottom]


def test_boxes_are_those_of_the_world(tracked):
    samples, follow = tracked
    for sample in samples:
        first, *later = zip(sample.times, sample.answer.boxes, strict=True)
        result = follow(sample, start=first[0], box=corners(first[1]), times=[second for second, _ in later])
        lines = result.text.split("\n")
        assert len(lines) == len(later)
        for line, (second, box) in zip(lines, later, strict=True):
            mark, told, word, *found = line.split()
            assert (mark, float(told), word) == ("t", second, "box")
            assert [float(one) for one in found] == pytest.approx(corners(box), abs=2)


def test_an_object_that_is_not_there_any_more(tracked):
    samples, follow = tracked
    sample = samples[0]
    box = corners(sample.answer.boxes[0])
    last = sample.duration - 0.3
    assert follow(sample, start=sample.times[0], box=box, times=[last]).text.endswith(" none")
    empty = follow(sample, start=last, box=[0, 0, 1, 1], times=[last + 0.1])
    assert empty.text.split()[2:] == ["none"]


def test_what_a_tracker_is_shown(world, frames):
    sample = world.split("train")[0]
    shown = []

    def note(pixels, box):
        shown.append((pixels, box))
        return [Box(left=place, top=0, right=60, bottom=60) for place in range(len(pixels))]

    toolbox = Toolbox(Tracking(note, fps=2, max_frames=8).tools, frames)

    def call(**args):
        return toolbox.run([(sample, ToolCall(tool="track_object", args=args))])[0]

    assert call(start=1, box=[0, 0, 9, 9], times=[3, 2]).text == "t 2 box 2 0 60 60\nt 3 box 4 0 60 60"
    pixels, box = shown[0]
    assert box == Box(left=0, top=0, right=9, bottom=9)
    assert (pixels == frames.frames_at(sample.video, [1, 1.5, 2, 2.5, 3]).pixels).all()
    call(start=0, box=[0, 0, 9, 9], times=[14])  # for so long, 2 frames a second would be 29
    assert (shown[1][0] == frames.frames_at(sample.video, [2 * place for place in range(8)]).pixels).all()
    short = replace(sample, duration=sample.duration + 50)  # a file may be shorter than its question says
    beyond = ToolCall(tool="track_object", args={"start": 1, "box": [0, 0, 9, 9], "times": [sample.duration + 9]})
    assert "must lie from `start` 1 to below" in toolbox.run([(short, beyond)])[0].error
    for args, error in [
        ({"start": 99, "box": [0, 0, 9, 9], "times": [99]}, "`start` 99 must lie from 0 to below"),
        ({"start": 5, "box": [0, 0, 9, 9], "times": [7, 4]}, "`times` holds 4; it must lie from `start` 5 to below"),
        ({"start": 1, "box": [9, 0, 9, 9], "times": [2]}, "`box` 9 0 9 9 must be left, top, right and bottom in pix"),
        ({"start": 1, "box": [0, 0, 9, 9000], "times": [2]}, "left below right and top below bottom"),
        ({"start": 1, "box": [0, 0, 9, 9], "times": [2, 3, 4, 5, 6, 7, 8, 9]}, "`times` holds 8 seconds; give fewer"),
        ({"start": 1, "box": [0, 0, 9], "times": [2]}, "`box` of `track_object` must hold 4 numbers"),
    ]:
        assert error in call(**args).error
    with pytest.raises(ValueError, match=r"`fps` must be above 0 and `max_frames` at least 2, got 4\.0 and 1"):
        Tracking(note, max_frames=1)
