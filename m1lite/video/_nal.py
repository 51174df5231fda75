"""Tell from a packet of H.264 or HEVC whether another frame may refer to its frame. Reads headers only."""

from __future__ import annotations

_H264_SLICES = range(1, 6)
_HEVC_SLICES = range(32)
_HEVC_NON_REFERENCE = range(0, 16, 2)
"""Types of slices that no picture of the same temporal layer refers to (H.265, table 7-1)."""


def length_bytes(codec: str, extradata: bytes) -> int | None:
    """Read how the units of a stream are separated, from its parameters in an MP4 or Matroska file.

    Args:
        codec: FFmpeg's name.
        extradata: the box ``avcC`` or ``hvcC``.

    Returns:
        Bytes of the length before each unit; ``None`` where `is_unreferenced` cannot tell: for other codecs and
        layouts, and for HEVC with temporal layers, whose higher ones refer to what the lower ones do not.
    """
    if codec == "h264" and len(extradata) > 6 and extradata[0] == 1:
        return (extradata[4] & 3) + 1
    if codec == "hevc" and len(extradata) > 22 and extradata[0] == 1 and (extradata[21] >> 3) & 7 == 1:
        return (extradata[21] & 3) + 1
    return None


def is_unreferenced(codec: str, packet: bytes | memoryview, size: int) -> bool:
    """Tell whether a frame can be left out without changing any other.

    Args:
        codec: ``"h264"`` or ``"hevc"``.
        packet: one frame; units, each after its length.
        size: bytes of that length, from `length_bytes`.

    Example:
        >>> disposable, reference = bytes([0, 0, 0, 2, 0x01, 9]), bytes([0, 0, 0, 2, 0x41, 9])
        >>> is_unreferenced("h264", disposable, 4), is_unreferenced("h264", reference, 4)
        (True, False)
    """
    found, place = False, 0
    while place + size < len(packet):
        length = int.from_bytes(packet[place : place + size], "big")
        head = packet[place + size]
        if codec == "h264":
            is_slice, is_needed = (head & 31) in _H264_SLICES, head & 0x60 != 0
        else:
            is_slice, is_needed = head >> 1 & 63 in _HEVC_SLICES, (head >> 1 & 63) not in _HEVC_NON_REFERENCE
        if is_slice and is_needed:
            return False
        found |= is_slice
        place += size + length
    return found
