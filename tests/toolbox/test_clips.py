"""Tools that show frames: which frames they refer to, and what they say to calls that cannot be served."""

import pytest

from m1lite.records import Answer, MediaRef, Sample, Status, Task, ToolCall
from m1lite.toolbox import Toolbox, json_schema
from m1lite.toolbox.clips import ClipTools
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels

NAMES = ["video_clip", "crop_video", "zoom", "get_frames"]


@pytest.fixture(scope="module")
def call(clip):
    """Calls a tool on the clip of 8 s, which the sample says lasts 8.5 s."""
    frames = FrameCache(10_000_000)
    toolbox = Toolbox(ClipTools(max_frames=8)(NAMES), frames)
    sample = Sample(id="q", video=clip, duration=8.5, task=Task.GROUNDING, question="when", answer=Answer())

    def run(name, **args):
        (result,) = toolbox.run([(sample, ToolCall(tool=name, args=args))])
        if result.error is None:
            assert result.status is Status.OK
            for media in result.media:
                assert len(media_pixels(frames, media)) == len(media.timestamps)
        return result

    return run


def test_tools_refer_to_the_frames_asked_for(call, clip):
    shown = call("video_clip", start=2, end=4, fps=2)
    assert shown.media == (MediaRef(uri=clip, timestamps=(2.0, 2.5, 3.0, 3.5), size=(72, 96)),)
    assert shown.text == "4 frames at 2, 2.5, 3, 3.5 seconds"
    assert call("crop_video", start_time=1.5, end_time=4).media[0].timestamps == (1.5, 2.5, 3.5)
    assert call("get_frames", times=[5, 0.5, 5]).media[0].timestamps == (0.5, 5.0)
    part = call("zoom", start=1, end=2, box=[0.5, 0, 1, 0.25]).media[0]
    assert (part.timestamps, part.size, part.box) == ((1.0, 1.5), (18, 48), (0.5, 0.0, 1.0, 0.25))


def test_a_long_crop_is_thinned_and_a_dense_clip_refused(call):
    assert len(call("crop_video", start_time=0, end_time=8).media[0].timestamps) == 8
    assert len(ClipTools(max_frames=3)(["crop_video"])) == 1
    dense = call("video_clip", start=0, end=8, fps=30)
    assert dense.error == "That would be 240 frames, above the limit of 8; lower `fps` or take a shorter window."
    assert dense.status is Status.TOOL_ERROR


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("video_clip", {"start": 2, "end": 20}, "`end` 20 is past the video end 8.5"),
        ("video_clip", {"start": 9, "end": 8}, "`start` 9 is not before the video end 8.5"),
        ("video_clip", {"start": 5, "end": 3}, "`start` 5 must be before `end` 3"),
        ("video_clip", {"start": -1, "end": 3}, "`start` -1 is before the video"),
        ("video_clip", {"start": 0, "end": 3, "fps": 0}, "`fps` of `video_clip` must lie between 0.01 and 60"),
        ("video_clip", {"start": 0, "end": 3, "speed": 2}, "`video_clip` has no argument 'speed'; it takes start end"),
        ("video_clip", {"start": "0", "end": 3}, "`start` of `video_clip` must be a number, got '0' (str)"),
        ("video_clip", {"start": 8.2, "end": 8.4}, "The video ends at 8 seconds, before the first frame"),
        ("zoom", {"start": 0, "end": 1, "box": [0.5, 0, 0.5, 1]}, "`box` 0.5, 0, 0.5, 1 must be left, top, right"),
        ("zoom", {"start": 0, "end": 1, "box": [0, 0, 1]}, "`box` of `zoom` must hold 4 numbers, got [0, 0, 1]"),
        ("zoom", {"start": 0, "end": 1, "box": [0, 0, 1, "b"]}, "`box` of `zoom` must be a list of numbers"),
        ("get_frames", {"times": []}, "`times` of `get_frames` must hold at least 1 number, got []"),
        ("get_frames", {"times": 3}, "`times` of `get_frames` must be a list of numbers, got 3 (int)"),
        ("get_frames", {"times": [1, 9]}, "`times` holds 9, outside of the video, which lasts from 0 to 8.5"),
        ("get_frames", {"times": list(range(9))}, "That would be 9 frames, above the limit of 8; ask for fewer."),
    ],
)
def test_calls_that_cannot_be_served_are_answered_in_words(call, name, args, message):
    result = call(name, **args)
    assert message in result.error
    assert result.status is Status.TOOL_ERROR
    assert result.media == ()


def test_lists_of_numbers_have_a_schema():
    schemas = {one.name: json_schema(one)["function"]["parameters"]["properties"] for one in ClipTools()(NAMES)}
    assert schemas["get_frames"]["times"] == {
        "type": "array",
        "description": "seconds of the frames.",
        "items": {"type": "number"},
        "minItems": 1,
    }
    assert schemas["zoom"]["box"]["minItems"] == schemas["zoom"]["box"]["maxItems"] == 4
    assert schemas["video_clip"]["fps"]["default"] == 2.0


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="`max_frames` is 0"):
        ClipTools(max_frames=0)
    with pytest.raises(ValueError, match=r"no clip tools \['clip'\]; there are \['crop_video', 'get_frames'"):
        ClipTools()(["clip"])
