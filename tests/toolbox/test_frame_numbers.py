"""Frames by their number, on a real video of 16 frames in 8 s."""

import pytest

from m1lite.records import Answer, Sample, Status, Task, ToolCall
from m1lite.toolbox import Toolbox
from m1lite.toolbox.frame_numbers import frame_tool
from m1lite.video.cache import FrameCache


@pytest.fixture
def call(clip):
    """Runs one call on the clip, which may be said to be longer than it is."""
    tools = [frame_tool(name, num_frames=4, num_frames_long=6) for name in ("choose_frames", "get_frame_number")]
    toolbox = Toolbox(tools, FrameCache(10_000_000))

    def run(tool, duration=8.0, **args):
        sample = Sample(id="q", video=clip, duration=duration, task=Task.CHOICE, question="?", answer=Answer())
        (result,) = toolbox.run([(sample, ToolCall(tool=tool, args=args))])
        return result

    return run


def test_frames_are_chosen_evenly_and_shown_with_their_numbers(call):
    result = call("choose_frames", start_frame=2, end_frame=14)
    assert result.text == "Frames 2, 6, 10, 14"
    (media,) = result.media
    assert media.timestamps == (1.25, 3.25, 5.25, 7.25), "the middle of each frame's half second"
    assert media.size == (72, 96)
    assert call("choose_frames", start_frame=5, end_frame=6).text == "Frames 5, 6"
    assert call("choose_frames", start_frame=5, end_frame=5).text == "Frames 5"
    assert call("choose_frames", duration=301.0, start_frame=0, end_frame=15).text == "Frames 0, 3, 6, 9, 12, 15"


def test_a_time_has_a_number(call):
    assert call("get_frame_number", time="00:03").text == "At 00:03 the frame number is 6"
    assert call("get_frame_number", time=" 0:00:07 ").text == "At 0:00:07 the frame number is 14"


@pytest.mark.parametrize(
    ("tool", "args", "message"),
    [
        ("choose_frames", {"start_frame": 9, "end_frame": 3}, "`start_frame` 9 and `end_frame` 3 must be 0 <= start"),
        ("choose_frames", {"start_frame": 0, "end_frame": 16}, "<= 15, the last frame"),
        ("get_frame_number", {"time": "soon"}, "`time` 'soon' must be minutes and seconds"),
        ("get_frame_number", {"time": "00:08"}, "`time` 00:08 is past the video, which lasts 8 seconds"),
    ],
)
def test_refusals_are_read(call, tool, args, message):
    result = call(tool, **args)
    assert result.status is Status.TOOL_ERROR
    assert message in result.error


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"There is no frame tool 'zoom'; there are \['choose_frames'"):
        frame_tool("zoom")
