"""Cut a video into shots, with PySceneDetect on small frames. Needs the extra ``video``."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from m1lite.video.sampling import Window

if TYPE_CHECKING:
    from m1lite.video.reader import Frames, VideoReader

_HEIGHT = 144
_FRAMES_AT_ONCE = 256


def detect_shots(
    video: VideoReader, *, fps: float | None = None, min_seconds: float = 0.5, threshold: float = 3.0
) -> list[Window]:
    """Find where one shot ends and the next begins.

    A frame begins a shot where it differs from the one before much more than its neighbours differ from each other,
    so that fast motion is no cut.

    Args:
        video: is read once, at a height of 144 pixels and 256 frames at a time.
        fps: frames per second that are compared; ``None`` compares all. Fewer are faster, but a cut is then found only
            as exactly as they lie apart.
        min_seconds: no shot gets shorter than this, but perhaps the last; above 0.
        threshold: how many times larger than its neighbours' a difference must be; above 1.

    Returns:
        Half-open windows in seconds that cover the whole video, in order.

    Raises:
        ModuleNotFoundError: if the extra ``video`` is missing.
        ValueError: if an argument is out of range.
        VideoError: if the video cannot be read.

    References:
        PySceneDetect's ``AdaptiveDetector``, with its other settings as they are.
    """
    if not min_seconds > 0 or not threshold > 1 or (fps is not None and not fps > 0):
        raise ValueError(
            "`min_seconds` and `fps` must be above 0 and `threshold` above 1, "
            f"got {min_seconds}, {fps} and {threshold}."
        )
    try:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Detecting shots needs PySceneDetect: pip install 'm1lite[video]'.") from error
    duration, rate = video.metadata.duration, float(fps or video.metadata.fps)
    shortest = max(round(min_seconds * rate), 1)
    detector = AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=shortest)
    starts: list[float] = []
    cuts: list[float] = []
    step = _FRAMES_AT_ONCE / rate
    for number in range(int(duration / step) + 1):
        if number * step >= duration:
            break
        frames = _small_frames(video, number * step, min((number + 1) * step, duration), fps)
        for pixels, second in zip(frames.pixels.flip(1), frames.timestamps, strict=True):  # RGB to BGR
            starts.append(second)
            time = FrameTimecode(len(starts) - 1, rate)
            found = detector.process_frame(time, pixels.permute(1, 2, 0).contiguous().numpy())
            cuts += [starts[cut.frame_num] for cut in found]
    edges = [0.0, *(cut for cut in cuts if 0 < cut < duration), duration]
    return list(pairwise(edges))


def _small_frames(video: VideoReader, start: float, end: float, fps: float | None) -> Frames:
    height = min(_HEIGHT, video.metadata.height)
    width = max(round(video.metadata.width * height / video.metadata.height), 1)
    return video.frames_between(start, end, fps=fps, size=(height, width))
