"""Tell whether an MP4 or MOV file was cut off, from its box sizes alone: FFmpeg's own words do not say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_DATA_BOXES = (b"moov", b"moof", b"mdat")


def cut_off(path: Path) -> str | None:
    """Describe what is missing at the end of an MP4 file.

    Args:
        path: any file.

    Returns:
        ``None`` where nothing is missing, or the file is of another kind.
    """
    size = path.stat().st_size
    has_index = False
    with path.open("rb") as file:
        start = 0
        while start + 8 <= size:
            file.seek(start)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if start == 0 and kind != b"ftyp":
                return None
            if length == 1:  # the real length follows in 64 bits
                length = int.from_bytes(head[8:16], "big")
            if kind in _DATA_BOXES and length and start + length > size:
                name = kind.decode()
                return f"its box {name!r} should end at byte {start + length}, the file ends at byte {size}"
            has_index |= kind == b"moov"
            if length < 8:  # 0 reaches to the end of the file; anything else is padding
                break
            start += length
    return None if has_index else "its index, the box 'moov', is missing"
