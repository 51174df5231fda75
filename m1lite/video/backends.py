"""Which backend reads and writes: torchcodec where FFmpeg's libraries load, PyAV elsewhere. Tried once per process."""

from __future__ import annotations

import logging
import threading
from functools import cache
from importlib import import_module
from typing import Literal

import torch

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
