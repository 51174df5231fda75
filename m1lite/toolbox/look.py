"""What the classical tools see: the objects in the frames at given seconds, from decoded pixels or from anywhere else.

A ``Look`` is any function of a video and seconds; ``Perception`` is the one that decodes, detects and remembers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from m1lite.toolbox.perception import Detection, detect

if TYPE_CHECKING:
    from m1lite.video.cache import FrameCache

Look = Callable[[str, Sequence[float]], list[list[Detection]]]
"""``look(video, seconds)``: the detections in the frame shown at each second, one list per second, left to right."""

_FRAMES_AT_ONCE = 64


class Perception:
    """A ``Look`` that decodes only the frames asked for, detects objects in their pixels and remembers what it saw.

    Safe to call from several threads; two of them may detect the same frame at the same time.

    Args:
        frames: decodes; holds pixels, while this holds detections.
        max_frames: frames remembered over all videos; the video not looked at for longest is forgotten first.
    """

    def __init__(self, frames: FrameCache, *, max_frames: int = 200_000) -> None:
        if max_frames < 1:
            raise ValueError(f"`max_frames` must be at least 1, got {max_frames}.")
        self._frames = frames
        self._max_frames = max_frames
        self._seen: OrderedDict[str, dict[float, list[Detection]]] = OrderedDict()
        self._num_seen = 0
        self._lock = Lock()

    def __call__(self, video: str, seconds: Sequence[float]) -> list[list[Detection]]:
        """Return the detections in the frame shown at each of ``seconds``.

        Raises:
            VideoError: if the video cannot be read; names the file.
        """
        with self._lock:
            known = dict(self._seen.get(video, {}))
        missing = sorted(second for second in set(seconds) if second not in known)
        for first in range(0, len(missing), _FRAMES_AT_ONCE):
            chunk = missing[first : first + _FRAMES_AT_ONCE]
            found = detect(self._frames.frames_at(video, chunk).pixels)
            known.update(zip(chunk, found, strict=True))
        self._remember(video, {second: known[second] for second in missing})
        return [known[second] for second in seconds]

    def __repr__(self) -> str:
        return f"Perception(videos={len(self._seen)}, frames={self._num_seen})"

    def _remember(self, video: str, fresh: dict[float, list[Detection]]) -> None:
        with self._lock:
            seen = self._seen.setdefault(video, {})
            self._seen.move_to_end(video)
            self._num_seen += len(fresh.keys() - seen.keys())
            seen.update(fresh)
            while self._num_seen > self._max_frames and len(self._seen) > 1:
                _, forgotten = self._seen.popitem(last=False)
                self._num_seen -= len(forgotten)


def sightings(look: Look, video: str, seconds: Sequence[float]) -> dict[str, list[float]]:
    """Return when each object is seen, objects in the order of first sight (left to right within a frame).

    Args:
        look: sees the objects.
        video: path or URI.
        seconds: ascending times of the frames to look at.

    Returns:
        Object to the ascending seconds, out of ``seconds``, at which it is seen.
    """
    seen: dict[str, list[float]] = {}
    for second, detections in zip(seconds, look(video, seconds), strict=True):
        for name in dict.fromkeys(detection.object for detection in detections):
            seen.setdefault(name, []).append(second)
    return seen
