from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import ndimage

from m1lite.records import Box
from m1lite.toolbox.perception import (
    COLOURS,
    LANES,
    MAX_COLOUR_DISTANCE,
    OBJECTS,
    SHAPES,
    _components,
    detect,
    lane_of,
    shape_mask,
)

GREY = 56


def picture(*placed, height=64, width=64):
    """Draw (object, top, left, height, width) on grey: (1, 3, H, W)."""
    pixels = torch.full((1, 3, height, width), GREY, dtype=torch.uint8)
    for name, top, left, tall, wide in placed:
        colour, shape = name.split("-")
        mask = torch.tensor(shape_mask(shape, tall, wide))
        patch = pixels[0, :, top : top + tall, left : left + wide]
        patch[:, mask] = torch.tensor(COLOURS[colour], dtype=torch.uint8)[:, None]
    return pixels


def found(pixels):
    return [
        (each.object, each.lane, each.box.top, each.box.left, each.box.bottom, each.box.right)
        for each in detect(pixels)[0]
    ]


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("side", [8, 9, 16, 31])
def test_every_object_is_named_and_boxed(name, side):
    pixels = picture((name, 5, 20, side, side))
    lane = LANES[int((20 + side / 2) // (64 / 3))]
    assert found(pixels) == [(name, lane, 5, 20, 5 + side, 20 + side)]


def test_objects_come_from_left_to_right():
    pixels = picture(("blue-circle", 40, 45, 12, 12), ("red-square", 3, 2, 10, 10), ("green-diamond", 20, 25, 14, 14))
    assert found(pixels) == [
        ("red-square", "left", 3, 2, 13, 12),
        ("green-diamond", "middle", 20, 25, 34, 39),
        ("blue-circle", "right", 40, 45, 52, 57),
    ]


def test_one_list_per_frame():
    frames = torch.cat([picture(), picture(("red-square", 3, 2, 10, 10)), picture()])
    assert [len(each) for each in detect(frames)] == [0, 1, 0]
    assert detect(frames[:0]) == []


def test_touching_objects_of_two_colours_stay_apart():
    pixels = picture(("red-square", 3, 2, 10, 10), ("orange-square", 3, 12, 10, 10))
    assert [name for name, *_ in found(pixels)] == ["red-square", "orange-square"]


def test_two_of_a_kind_are_two():
    pixels = picture(("red-square", 3, 2, 10, 10), ("red-square", 30, 2, 10, 10))
    assert [top for _, _, top, *_ in found(pixels)] == [3, 30]


def test_wide_pictures_and_long_objects():
    pixels = picture(("purple-triangle", 100, 500, 40, 90), height=240, width=640)
    assert found(pixels) == [("purple-triangle", "right", 100, 500, 140, 590)]


def test_specks_lines_and_greys_are_no_objects():
    pixels = picture(("red-square", 3, 2, 3, 3), height=64, width=64)
    assert found(pixels) == []
    lines = picture()
    lines[0, :, 10, :] = torch.tensor(COLOURS["blue"], dtype=torch.uint8)[:, None]
    lines[0, :, :, 30] = torch.tensor(COLOURS["blue"], dtype=torch.uint8)[:, None]
    assert found(lines) == []  # a cross fills its box too little to be any shape
    greys = torch.arange(256, dtype=torch.uint8)[None, None, None].expand(1, 3, 64, 256)
    assert found(greys) == []


def test_colours_shift_up_to_the_limit():
    pixels = picture(("green-square", 10, 10, 12, 12)).int()
    part = MAX_COLOUR_DISTANCE // 3
    assert [name for name, *_ in found((pixels + part).clamp(0, 255).to(torch.uint8))] == ["green-square"]
    assert found((pixels + part + 2).clamp(0, 255).to(torch.uint8)) == []


def test_palette_is_well_apart():
    distances = [np.abs(np.subtract(*pair)).sum() for pair in combinations(COLOURS.values(), 2)]
    assert min(distances) == 155
    assert min(np.abs(np.array(colour) - GREY).sum() for colour in COLOURS.values()) > 1.5 * MAX_COLOUR_DISTANCE
    assert len(set(OBJECTS)) == 24


def test_components_match_scipy():
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([-1, 0, 1], dtype=np.int8), p=[0.3, 0.45, 0.25], size=(3, 60, 60))
    ours = {
        (frame, colour, box.top, box.left, box.bottom, box.right, mask.tobytes())
        for frame, colour, box, mask in _components(labels)
    }
    expected = set()
    for frame, colour in np.ndindex(3, 2):
        numbered, _ = ndimage.label(labels[frame] == colour)
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
            mask = numbered[rows, columns] == number
            if mask.sum() >= 12:
                corners = (rows.start, columns.start, rows.stop, columns.stop)
                expected.add((frame, colour, *corners, mask.tobytes()))
    assert len(expected) > 10
    assert ours == expected


@pytest.mark.parametrize(
    ("shape", "share"), [("square", 1), ("circle", np.pi / 4), ("triangle", 0.5), ("diamond", 0.5)]
)
def test_shapes_fill_the_share_that_geometry_says(shape, share):
    assert shape_mask(shape, 200, 120).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", range(6, 20))
def test_shapes_reach_all_sides_and_are_symmetric(shape, side):
    mask = shape_mask(shape, side, side)
    assert mask.any(0).all()
    assert mask.any(1).all()
    assert (mask == mask[:, ::-1]).all()


def test_lanes_are_thirds():
    lanes = [lane_of(Box(left=x, top=0, right=x, bottom=1), 60) for x in (0, 19, 20, 39, 40, 60)]
    assert lanes == ["left", "left", "middle", "middle", "right", "right"]


def test_bad_input_names_the_value():
    with pytest.raises(ValueError, match="'hexagon' is unknown; use one of square, circle, triangle, diamond"):
        shape_mask("hexagon", 5, 5)
    with pytest.raises(ValueError, match=r"got torch.float32 \(1, 3, 64, 64\)"):
        detect(picture().float())
    with pytest.raises(ValueError, match=r"got torch.uint8 \(3, 64, 64\)"):
        detect(picture()[0])
