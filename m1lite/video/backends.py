"""Which backend reads and writes: torchcodec where FFmpeg's libraries load, PyAV elsewhere. Tried once per process.

On the CPU, H.264 and HEVC with frames out of order are read by PyAV even so, without those that nothing refers to.
"""

from __future__ import annotations

import logging
import threading
from functools import cache
from importlib import import_module
from typing import Literal

import torch

from m1lite.video._mp4 import SteadyTrack
from m1lite.video.base import Backend

logger = logging.getLogger(__name__)
_choosing = threading.RLock()

BackendName = Literal["torchcodec", "pyav"]


def find_backend(name: BackendName | None = None) -> Backend:
    """Load a backend by name, or the one that works here.

    Args:
        name: ``None`` takes torchcodec, or PyAV where torchcodec does not work.

    Raises:
        ValueError: if the name is unknown.
    """
    if name is None:
        with _choosing:  # `cache` alone lets two threads choose, and warn, at once
            return _working_backend()
    if name not in ("torchcodec", "pyav"):
        raise ValueError(f"`backend` {name!r} is unknown; use 'torchcodec', 'pyav' or None (the one that works here).")
    backend: Backend = import_module(f"m1lite.video._{name}").BACKEND
    return backend


def choose_backend(name: BackendName | None, track: SteadyTrack | None, device: str) -> Backend:
    """Load the backend that reads a file fastest; benchmarks/results/decode_cpu_202611.md shows the choice.

    Args:
        name: ``None`` chooses.
        track: the file's table of frames; without one PyAV would count the packets in Python.
        device: where to decode.

    Raises:
        ValueError: if the name is unknown.
    """
    skips = (
        track is not None
        and track.codec in (b"avc1", b"avc3", b"hvc1", b"hev1")
        and track.reordered
        and device == "cpu"
    )
    return find_backend("pyav" if name is None and skips else name)


@cache
def _working_backend() -> Backend:
    problem = _torchcodec_problem()
    if problem is None:
        return find_backend("torchcodec")
    logger.warning("torchcodec does not work here (%s); PyAV reads and writes the videos instead.", problem)
    return find_backend("pyav")


def _torchcodec_problem() -> str | None:
    """Write and read one tiny clip in memory: importing torchcodec succeeds even without FFmpeg's libraries."""
    try:
        from torchcodec.decoders import VideoDecoder
        from torchcodec.encoders import VideoEncoder

        frames = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
        clip = VideoEncoder(frames, frame_rate=1).to_tensor("mp4", codec="libx264", pixel_format="yuv444p")
        VideoDecoder(clip).get_frame_at(0)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__  # without the list of guesses
    return None
