import sys
from itertools import pairwise

import av
import numpy as np
import pytest

from m1lite.video.reader import open_video
from m1lite.video.shots import detect_shots


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """Shots of 2, 3, 1.5 and 2.5 seconds at 10 frames per second; in each, a picture of its own moves."""
    path = tmp_path_factory.mktemp("edited") / "edited.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "30"})
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        for shot, num_frames in enumerate([20, 30, 15, 25]):
            draw = np.random.default_rng(shot)
            coarse = draw.integers(0, 255, (6, 40, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
            for place in range(num_frames):
                pixels = np.ascontiguousarray(coarse[:, 2 * place : 2 * place + 128])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


EXPECTED = [(0, 2), (2, 5), (5, 6.5), (6.5, 9)]


def test_shots_are_found_to_the_frame(edited, backend):
    shots = detect_shots(open_video(edited, backend=backend))
    assert np.array(shots) == pytest.approx(np.array(EXPECTED), abs=1e-3)


def test_fewer_frames_find_them_less_exactly(edited):
    shots = detect_shots(open_video(edited), fps=5)
    assert np.array(shots) == pytest.approx(np.array(EXPECTED), abs=0.2)


def test_long_videos_are_read_in_parts(edited, monkeypatch):
    monkeypatch.setattr("m1lite.video.shots._FRAMES_AT_ONCE", 7)
    assert np.array(detect_shots(open_video(edited))) == pytest.approx(np.array(EXPECTED), abs=1e-3)


def test_short_shots_are_joined(edited):
    starts = [start for start, _ in detect_shots(open_video(edited), min_seconds=2.5)]
    assert all(later - earlier >= 2.5 for earlier, later in pairwise(starts))
    assert len(starts) < len(EXPECTED)


def test_a_video_without_cuts_is_one_shot(clip):
    assert detect_shots(open_video(clip)) == [(0.0, pytest.approx(2.4))]


def test_settings_are_checked(clip):
    with pytest.raises(ValueError, match=r"`threshold` above 1, got 0\.5, None and 1"):
        detect_shots(open_video(clip), threshold=1)
    with pytest.raises(ValueError, match=r"`min_seconds` and `fps` must be above 0 .* got 0, None"):
        detect_shots(open_video(clip), min_seconds=0)


def test_a_missing_extra_is_named(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs PySceneDetect: pip install 'm1lite\[video\]'"):
        detect_shots(open_video(clip))
