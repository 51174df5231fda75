"""Read the tables of an MP4 or MOV file, not its pictures: what was cut off, what is a bomb, when every frame shows.

A table of frames here saves reading through the whole file, which is how FFmpeg learns the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_DATA_BOXES = (b"moov", b"moof", b"mdat")
_PARENTS = (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_MAX_BOXES = 100_000
_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Box:
    """One box of the file."""

    kind: bytes
    start: int
    """First byte of its content."""
    end: int
    depth: int


@dataclass(frozen=True, slots=True)
class SteadyTrack:
    """A video track whose frames all last equally long, the first of them shown at second 0."""

    codec: bytes
    """Four letters, such as ``b"avc1"`` for H.264."""
    num_frames: int
    timescale: int
    """Ticks per second."""
    frame_ticks: int
    """Ticks that one frame lasts."""
    key_places: NDArray[np.int64]
    """Places of the key frames in showing order, ascending."""
    key_delays: NDArray[np.int64]
    """Ticks from the decoding time to the showing time of each key frame."""
    reordered: bool
    """Whether frames are shown in another order than they are stored in."""

    @property
    def frame_seconds(self) -> float:
        """Seconds that one frame lasts."""
        return self.frame_ticks / self.timescale

    def seconds(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Give the second at which the frames at some places start."""
        starts: NDArray[np.float64] = places * np.float64(self.frame_ticks) / self.timescale
        return starts


def cut_off(file: BinaryIO, size: int) -> str | None:
    """Describe what is missing at the end of an MP4 file of ``size`` bytes.

    Returns:
        ``None`` where nothing is missing, or the file is of another kind.
    """
    if not _is_mp4(file):
        return None
    has_index = False
    for box in _boxes(file, 0, size, depth=_MAX_DEPTH):
        if box.kind in _DATA_BOXES and box.end > size:
            name = box.kind.decode()
            return f"its box {name!r} should end at byte {box.end}, the file ends at byte {size}"
        has_index |= box.kind == b"moov"
    return None if has_index else "its index, the box 'moov', is missing"


def claimed_samples(file: BinaryIO, size: int) -> tuple[int, int]:
    """Give how many samples the tables of an MP4 file claim to hold, without holding them.

    FFmpeg reserves memory for as many as the header says: a file of a kilobyte may ask for gigabytes.

    Returns:
        The most frames of a video track or a fragment, and the fewest bytes that the largest track needs, if a sample
        takes a byte or more; zeros where the file is of another kind.
    """
    most, needed, handler = 0, 0, b""
    for box in _boxes(file, 0, size) if _is_mp4(file) else ():
        if box.kind in (b"trak", b"moof"):
            handler = b""
        elif box.kind == b"hdlr":
            handler = _bytes(file, box, 8, 4)
        elif box.kind in (b"stsz", b"stz2", b"trun"):
            one, count = (1, *_numbers(file, box, 4, 1)) if box.kind == b"trun" else _numbers(file, box, 4, 2)
            needed = max(needed, count * max(one if box.kind == b"stsz" else 1, 1))
            # Sound without compression has a sample for each wave, so many samples are no sign of harm there.
            most = max(most, 0 if handler == b"soun" else count)
    return most, needed


def steady_track(file: BinaryIO, size: int) -> SteadyTrack | None:
    """Read the one video track of an MP4 file, if its frames follow each other at a constant rate.

    Returns:
        ``None`` if the file is of another kind, in fragments, cut by an edit list, has no or several video tracks, or
        its frames do not lie on a grid that begins at 0; such a file has to be read through.
    """
    if not _is_mp4(file):
        return None
    tracks: list[dict[bytes, Box]] = []
    movie: dict[bytes, Box] = {}
    for box in _boxes(file, 0, size):
        if box.kind == b"trak":
            tracks.append({})
        (tracks[-1] if tracks and box.depth > 1 else movie)[box.kind] = box
    pictures = [track for track in tracks if b"hdlr" in track and _bytes(file, track[b"hdlr"], 8, 4) == b"vide"]
    if len(pictures) != 1 or b"moof" in movie or not {b"mdhd", b"stsd", b"stts", b"stsz"} <= pictures[0].keys():
        return None
    return _steady(file, pictures[0], movie.get(b"mvhd"))


def _steady(file: BinaryIO, track: dict[bytes, Box], movie: Box | None) -> SteadyTrack | None:
    _, count = _numbers(file, track[b"stsz"], 4, 2)
    timescale = _timescale(file, track[b"mdhd"])
    durations = _table(file, track[b"stts"], 2)
    even = len(durations) == 1 or (len(durations) == 2 and durations[1, 0] == 1)  # the last frame may last longer
    if not (
        even
        and timescale
        and 0 < count < 2**31
        and durations[:, 0].sum(dtype=np.int64) == count
        and durations[0, 1] > 0
    ):
        return None
    ticks = int(durations[0, 1])
    places = np.arange(count, dtype=np.int32)
    delays = np.zeros(count, dtype=np.int32)
    if b"ctts" in track:
        offsets = _table(file, track[b"ctts"], 2)
        if (
            offsets[:, 0].sum(dtype=np.int64) != count or offsets[:, 1].max() >= 2**31
        ):  # negative delays shift decoding times
            return None
        delays = np.repeat(offsets[:, 1].astype(np.int32), offsets[:, 0])
    first = int(delays[0])
    if not _plays_all(file, track, movie, first=first, seconds=count * ticks / timescale, frame=ticks / timescale):
        return None
    places += (delays - first) // ticks
    on_grid = not ((delays - first) % ticks).any() and places.min() == 0 and places.max() == count - 1
    if not on_grid or (np.bincount(places, minlength=count) != 1).any():
        return None
    stored = _table(file, track[b"stss"], 1)[:, 0].astype(np.int64) - 1 if b"stss" in track else np.arange(count)
    if not len(stored) or stored.min() < 0 or stored.max() >= count:
        return None
    order = np.argsort(places[stored])
    return SteadyTrack(
        codec=_bytes(file, track[b"stsd"], 12, 4),
        num_frames=count,
        timescale=timescale,
        frame_ticks=ticks,
        key_places=places[stored][order].astype(np.int64),
        key_delays=delays[stored][order].astype(np.int64),
        reordered=bool((delays != first).any()),
    )


def _plays_all(
    file: BinaryIO, track: dict[bytes, Box], movie: Box | None, *, first: int, seconds: float, frame: float
) -> bool:
    """Tell whether the edit list shows all frames from the first on, which is shown at ``first`` without it."""
    if b"elst" not in track:
        return first == 0
    box = track[b"elst"]
    version, entries = _bytes(file, box, 0, 1), _numbers(file, box, 4, 1)[0]
    if version != b"\0" or entries != 1 or movie is None:
        return False
    length, start, rate = _numbers(file, box, 8, 3)
    shown = length / (_timescale(file, movie) or 1)
    return start == first and rate == 1 << 16 and shown > seconds - frame / 2


def _is_mp4(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(8)[4:] == b"ftyp"


def _boxes(file: BinaryIO, start: int, end: int, *, depth: int = 0) -> Iterator[Box]:
    """Walk through the boxes between two places; with ``depth`` at its limit, only through the outer ones."""
    shallow = depth == _MAX_DEPTH
    stack, found = [(start, end, 0 if shallow else depth)], 0
    while stack:
        start, end, level = stack.pop()
        while start + 8 <= end and found < _MAX_BOXES:
            file.seek(start)
            head = file.read(16)
            length, kind, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
            if length == 1:  # the real length follows in 64 bits
                length, content = int.from_bytes(head[8:16], "big"), start + 16
            if length == 0:  # to the end of the file
                length = end - start
            if length < 8:  # padding
                break
            found += 1
            yield Box(kind, content, start + length, level)
            if kind in _PARENTS and not shallow and level < _MAX_DEPTH:
                stack.append((start + length, end, level))  # later
                start, end, level = content, min(start + length, end), level + 1
                continue
            start += length


def _bytes(file: BinaryIO, box: Box, offset: int, count: int) -> bytes:
    file.seek(box.start + offset)
    return file.read(max(min(count, box.end - box.start - offset), 0))


def _numbers(file: BinaryIO, box: Box, offset: int, count: int) -> list[int]:
    """Read unsigned 32-bit numbers; those beyond the box are 0."""
    content = _bytes(file, box, offset, 4 * count).ljust(4 * count, b"\0")
    return [int.from_bytes(content[4 * index : 4 * index + 4], "big") for index in range(count)]


def _table(file: BinaryIO, box: Box, columns: int) -> NDArray[np.uint32]:
    """Read the rows of unsigned 32-bit numbers ``(rows, columns)`` that follow their count."""
    rows = _numbers(file, box, 4, 1)[0]
    content = _bytes(file, box, 8, 4 * columns * rows)
    whole = len(content) // (4 * columns)
    return np.frombuffer(content[: 4 * columns * whole], dtype=">u4").reshape(whole, columns)


def _timescale(file: BinaryIO, box: Box) -> int:
    """Read the ticks per second of a movie or media header, which has 64-bit times in version 1."""
    return _numbers(file, box, 20 if _bytes(file, box, 0, 1) == b"\1" else 12, 1)[0]
