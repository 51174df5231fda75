"""Classical perception of coloured shapes: which objects do these pixels show, and where?

A colour mask, connected components, and a comparison with ideal shapes. Reads pixels only: no video files (video/), no
time and no questions (the tools beside this file), no truth (data/worlds.py draws with the constants defined here).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from m1lite.records import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 20, 20),
    "green": (0, 170, 60),
    "blue": (40, 70, 255),
    "yellow": (210, 200, 40),
    "purple": (170, 50, 200),
    "orange": (255, 120, 0),
}
"""Name to RGB. Any two differ by at least 155 in L1. Yellow is not bright: on a dark background, video compression
would eat the tips of a bright shape."""

SHAPES: tuple[str, ...] = ("square", "circle", "triangle", "diamond")
LANES: tuple[str, ...] = ("left", "middle", "right")
"""Vertical thirds of the picture."""

OBJECTS: tuple[str, ...] = tuple(f"{colour}-{shape}" for colour in COLOURS for shape in SHAPES)
"""Every object that can be named, one word each."""

MAX_COLOUR_DISTANCE = 100
"""Largest L1 distance (0 to 765) between a pixel and a colour that it still counts as. After H.264 at crf 18, 99.999 %
of an object's pixels stay within 85 of its colour, and the dim grey around it stays beyond 120."""
MIN_PIXELS = 12
"""Smaller components are compression artefacts, not objects."""
MIN_SHAPE_OVERLAP = 0.6
"""Smallest intersection over union with an ideal shape; anything less like a shape is not an object."""

_PALETTE: NDArray[np.int16] = np.array(list(COLOURS.values()), dtype=np.int16)  # (6, 3)
_MIN_SATURATION = int(np.ptp(_PALETTE, axis=1).min()) - MAX_COLOUR_DISTANCE


@dataclass(kw_only=True, slots=True, frozen=True)
class Detection:
    """One object in one frame."""

    object: str
    """One of ``OBJECTS``."""
    box: Box
    """Tight box in whole pixels."""
    lane: str
    """One of ``LANES``: the third of the picture that holds the box's centre."""


@lru_cache(maxsize=4096)
def shape_mask(shape: str, height: int, width: int) -> NDArray[np.bool_]:
    """Draw an ideal shape that fills a box.

    Args:
        shape: one of ``SHAPES``; the triangle points up.
        height: pixels, at least 1.
        width: pixels, at least 1.

    Returns:
        bool ``(height, width)``, read-only.

    Raises:
        ValueError: if the shape is unknown.

    Example:
        >>> shape_mask("diamond", 4, 4).astype(int)
        array([[0, 1, 1, 0],
               [1, 1, 1, 1],
               [1, 1, 1, 1],
               [0, 1, 1, 0]])
    """
    y = np.abs(2 * np.arange(height) + 1 - height)[:, None] / height  # 0 in the middle, just under 1 at the edge
    x = np.abs(2 * np.arange(width) + 1 - width)[None, :] / width
    if shape == "square":
        mask = np.ones((height, width), dtype=bool)
    elif shape == "circle":
        mask = x**2 + y**2 <= 1
    elif shape == "triangle":
        mask = x <= (np.arange(height)[:, None] + 1) / height
    elif shape == "diamond":
        mask = x + y <= 1 + 1e-9
    else:
        raise ValueError(f"`shape` {shape!r} is unknown; use one of {', '.join(SHAPES)}.")
    mask.flags.writeable = False
    return mask


def lane_of(box: Box, width: int) -> str:
    """Name the vertical third of a picture of ``width`` pixels that holds the box's centre."""
    third = int(len(LANES) * (box.left + box.right) / 2 / width)
    return LANES[min(max(third, 0), len(LANES) - 1)]


def detect(pixels: Tensor) -> list[list[Detection]]:
    """Find the coloured shapes in each frame.

    Args:
        pixels: uint8 ``(N, 3, H, W)``, RGB.

    Returns:
        One list per frame, from left to right (then top to bottom).

    Raises:
        ValueError: if ``pixels`` has another shape or dtype.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.dtype != torch.uint8:
        raise ValueError(f"`pixels` must be uint8 (N, 3, H, W), got {pixels.dtype} {tuple(pixels.shape)}.")
    width = pixels.shape[3]
    found: list[list[Detection]] = [[] for _ in range(len(pixels))]
    for frame, colour, box, mask in _components(_colour_labels(pixels.numpy())):
        shape = _classify(mask)
        if shape is not None:
            name = f"{list(COLOURS)[colour]}-{shape}"
            found[frame].append(Detection(object=name, box=box, lane=lane_of(box, width)))
    for detections in found:
        detections.sort(key=lambda detection: (detection.box.left, detection.box.top))
    return found


def _colour_labels(pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Label each pixel with the index of its colour, -1 where it has none. ``(N, 3, H, W)`` -> ``(N, H, W)``."""
    labels = np.full((len(pixels), *pixels.shape[2:]), -1, dtype=np.int8)
    # Grey pixels are too far from every colour; dropping them first leaves a few percent to compare with the palette.
    red, green, blue = (
        pixels[:, 0],
        pixels[:, 1],
        pixels[:, 2],
    )  # spelt out: numpy's reduction over axis 1 is 10x slower
    brightest = np.maximum(np.maximum(red, green), blue)
    darkest = np.minimum(np.minimum(red, green), blue)
    candidates = np.nonzero(brightest - darkest >= _MIN_SATURATION)
    frame, row, column = candidates
    colours = pixels[frame, :, row, column].astype(np.int16)  # (P, 3)
    distances = np.abs(colours[:, None] - _PALETTE).sum(axis=2)  # (P, 6)
    nearest = distances.argmin(axis=1)
    labels[candidates] = np.where(distances.min(axis=1) <= MAX_COLOUR_DISTANCE, nearest, -1)
    return labels


def _components(labels: NDArray[np.int8]) -> Iterator[tuple[int, int, Box, NDArray[np.bool_]]]:
    """Yield (frame, colour, tight box, mask in the box) of each 4-connected component of one colour."""
    frame, row, column = np.nonzero(labels >= 0)  # in reading order, so the pixels of a run stand together
    if not len(frame):
        return
    colour = labels[frame, row, column]
    # A run is a horizontal stretch of one colour. Joining runs instead of pixels keeps the Python loop short.
    first = np.ones(len(frame), dtype=bool)
    first[1:] = (np.diff(frame) != 0) | (np.diff(row) != 0) | (np.diff(column) != 1) | (np.diff(colour) != 0)
    starts = np.nonzero(first)[0]
    lengths = np.diff(np.append(starts, len(frame)))
    runs = list(
        zip(*(part[starts].tolist() for part in (frame, colour, row, column)), lengths.tolist(), strict=True)
    )  # (frame, colour, row, left, length)
    for members in _join(runs):
        if sum(length for *_, length in members) < MIN_PIXELS:
            continue
        top, bottom = min(run[2] for run in members), max(run[2] for run in members) + 1
        left, right = min(run[3] for run in members), max(run[3] + run[4] for run in members)
        mask = np.zeros((bottom - top, right - left), dtype=bool)
        for _, _, y, x, length in members:
            mask[y - top, x - left : x - left + length] = True
        yield members[0][0], members[0][1], Box(left=left, top=top, right=right, bottom=bottom), mask


Run = tuple[int, int, int, int, int]
"""Frame, colour, row, left column, length."""


def _join(runs: list[Run]) -> list[list[Run]]:
    """Group runs that touch: same frame and colour, neighbouring rows, at least one shared column (union-find)."""
    parent = list(range(len(runs)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    by_row: dict[tuple[int, int, int], list[int]] = {}
    for index, (frame, colour, row, left, length) in enumerate(runs):
        for above in by_row.get((frame, colour, row - 1), ()):
            other_left, other_length = runs[above][3:]
            if left < other_left + other_length and other_left < left + length:
                parent[root(above)] = root(index)
        by_row.setdefault((frame, colour, row), []).append(index)
    groups: dict[int, list[Run]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(root(index), []).append(run)
    return list(groups.values())


def _classify(mask: NDArray[np.bool_]) -> str | None:
    """Name the ideal shape that overlaps most with a component, or ``None`` where none does well."""
    ideals = {shape: shape_mask(shape, *mask.shape) for shape in SHAPES}
    overlaps = {shape: (mask & ideal).sum() / (mask | ideal).sum() for shape, ideal in ideals.items()}
    best = max(overlaps, key=lambda shape: overlaps[shape])
    return best if overlaps[best] >= MIN_SHAPE_OVERLAP else None
