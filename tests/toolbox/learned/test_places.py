"""Where things are, by a detector that sees bright boxes drawn into real frames and a depth that grows to the right."""

import pytest
import torch

from m1lite.records import Box
from m1lite.toolbox.backends.detection import Found
from m1lite.toolbox.learned.places import Places, nearness_in

BOXES = {"ball": (2, 4, 22, 24), "dog": (40, 8, 60, 40)}


def detector(pixels, name):
    corners = BOXES.get(name)
    if corners is None:
        return [[] for _ in pixels]
    left, top, right, bottom = corners
    found = Found(score=0.5, box=Box(left=left, top=top, right=right, bottom=bottom))
    red = pixels[:, 0].float().mean((1, 2)) > pixels[:, 2].float().mean((1, 2))
    return [[found] if one or name == "dog" else [] for one in red.tolist()]


def depth(pixels):
    return torch.linspace(0, 1, pixels.shape[3]).expand(len(pixels), *pixels.shape[2:])


def test_lanes_boxes_and_nearness(call):
    tools = Places(detector, depth=depth, num_frames=2).tools
    result = call(tools, "spatial_tool", question="ball, dog,ball", start=0, end=4)
    lines = result.text.split("\n")
    assert lines[0] == (
        "t 1 ; ball left box 2 4 22 24 score 0.50 near 0.17 ; dog right box 40 8 60 40 score 0.50 near 0.78"
    )
    assert lines[1].startswith("t 3 ; ball left")


def test_without_depth_and_without_objects(call):
    tools = Places(detector, num_frames=1).tools
    assert call(tools, "spatial_tool", question="ball", start=13, end=15).text == "t 14 ; none"
    assert (
        call(tools, "spatial_tool", question="dog", start=13, end=15).text
        == "t 14 ; dog right box 40 8 60 40 score 0.50"
    )


def test_nearness_is_that_of_the_middle_of_a_box():
    near = torch.zeros(10, 10)
    near[4:6, 4:6] = 1.0
    assert nearness_in(near, Box(left=3, top=3, right=7, bottom=7)) == 1.0
    assert nearness_in(near, Box(left=9.5, top=9.5, right=10, bottom=10)) == 0.0


def test_refusals(call):
    tools = Places(detector).tools
    assert "`question` names 5 objects; name 1 to 4" in call(tools, "spatial_tool", question="a,b,c,d,e").error
    assert "`question` names 0 objects" in call(tools, "spatial_tool", question=",").error
    with pytest.raises(ValueError, match="`num_frames` and `max_objects` must be at least 1, got 0 and 3"):
        Places(detector, num_frames=0)
