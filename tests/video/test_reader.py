import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from m1lite.video.reader import Frames, VideoError, open_video
from m1lite.video.writer import write_video


def write_with_av(path, grey_levels, pts, *, rate=10, options=None, muxer_options=None):
    """Write 32x48 grey frames at chosen timestamps (in tenths of a second)."""
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv444p"
        stream.codec_context.time_base = Fraction(1, 10)
        for level, when in zip(grey_levels, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), level, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = when, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_metadata(clip, backend):
    found = open_video(clip, backend=backend).metadata
    assert found.duration == pytest.approx(2.4)
    assert found.fps == pytest.approx(5)
    assert (found.num_frames, found.height, found.width) == (12, 32, 48)


def test_frame_shown_at_each_second(clip, backend, numbers):
    seconds = [0, 0.19, 0.2, 0.21, 1.0, 1.39, 2.2, 2.3999]
    frames = open_video(clip, backend=backend).frames_at(seconds)
    assert numbers(frames.pixels) == [0, 0, 1, 1, 5, 6, 11, 11]
    assert frames.timestamps == pytest.approx([0, 0, 0.2, 0.2, 1.0, 1.2, 2.2, 2.2])
    assert frames.pixels.dtype == torch.uint8
    assert repr(frames) == "Frames(pixels=(8, 3, 32, 48), timestamps=0..2.2)"


def test_start_of_a_frame_despite_rounding(clip, backend, numbers):
    video = open_video(clip, backend=backend)
    below = [0.7 - 0.1, 1.1 - 0.3 - 0.2, sum([0.1] * 8)]  # each just below or at 0.6, 0.6, 0.8
    assert any(second < round(second, 1) for second in below)
    assert numbers(video.frames_at(below).pixels) == [3, 3, 4]


def test_seconds_in_any_order_and_repeated(clip, backend, numbers):
    video = open_video(clip, backend=backend)
    assert numbers(video.frames_at([2, 0, 1, 0, 2]).pixels) == [10, 0, 5, 0, 10]
    assert numbers(video.frames_at([0.4]).pixels) == [2]  # and back again
    assert len(video.frames_at([]).pixels) == 0
    assert video.frames_at([], size=(4, 6)).pixels.shape == (0, 3, 4, 6)


def test_the_end_shows_the_last_frame_and_no_more(clip, backend, numbers):
    video = open_video(clip, backend=backend)
    assert numbers(video.frames_at([2.4]).pixels) == [11]
    with pytest.raises(ValueError, match=r"`seconds` holds 2\.5, but the video '.*clip\.mp4' lasts from 0 to 2\.4"):
        video.frames_at([0, 2.5])
    with pytest.raises(ValueError, match=r"`seconds` holds -0\.1,"):
        video.frames_at([-0.1])
    with pytest.raises(ValueError, match=r"`seconds` holds nan,"):
        video.frames_at([float("nan")])


def test_resize_is_area_like(tmp_path, backend):
    halves = torch.zeros(2, 3, 32, 48, dtype=torch.uint8)
    halves[..., 24:] = 200
    write_video(tmp_path / "a.mp4", halves, fps=1, backend=backend)
    video = open_video(tmp_path / "a.mp4", backend=backend)
    small = video.frames_at([0, 1], size=(8, 12)).pixels
    assert small.shape == (2, 3, 8, 12)
    assert small.dtype == torch.uint8
    assert (small[..., :5].int()).abs().max() <= 6
    assert (small[..., 7:].int() - 200).abs().max() <= 6
    assert torch.equal(video.frames_at([0], size=(32, 48)).pixels, video.frames_at([0]).pixels)
    with pytest.raises(ValueError, match=r"`size` must be a height and a width of at least 1, got \(0, 12\)"):
        video.frames_at([0], size=(0, 12))


def test_variable_frame_rate(varying, backend, numbers):
    video = open_video(varying, backend=backend)
    frames = video.frames_at([0.05, 0.1, 0.9, 1.0, 2.9, 3.0])
    assert numbers(frames.pixels) == [0, 1, 1, 2, 2, 3]
    assert frames.timestamps == pytest.approx([0, 0.1, 0.1, 1.0, 1.0, 3.0])
    assert video.metadata.num_frames == 4


def test_time_zero_is_the_first_frame(tmp_path, backend, numbers):
    path = tmp_path / "a.ts"  # MPEG transport streams may start late
    write_with_av(path, range(0, 200, 20), range(50, 60), options={"bf": "0"})
    video = open_video(path, backend=backend)
    assert video.metadata.duration == pytest.approx(1.0, abs=0.01)
    frames = video.frames_at([0, 0.5, 0.9])
    assert numbers(frames.pixels) == [0, 5, 9]
    assert frames.timestamps == pytest.approx([0, 0.5, 0.9])


def test_streams_that_seek_by_decoding_time(tmp_path, numbers):
    """The frames of this MPEG-TS file are reordered and it has no index (torchcodec 0.17 finds none of them)."""
    path = tmp_path / "a.ts"
    write_with_av(path, range(0, 200, 20), range(50, 60))
    frames = open_video(path, backend="pyav").frames_at([0, 0.5, 0.9])
    assert numbers(frames.pixels) == [0, 5, 9]


def test_seeks_between_key_frames(tmp_path, backend):
    levels = [(7 * i) % 250 for i in range(60)]
    write_with_av(tmp_path / "a.mp4", levels, range(60), options={"g": "7", "bf": "2"})
    video = open_video(tmp_path / "a.mp4", backend=backend)
    for wanted in ([59, 3], [13, 14, 15], [6, 7, 8, 20, 21], [0, 58]):
        pixels = video.frames_at([index / 10 for index in wanted]).pixels
        assert pixels.float().mean((1, 2, 3)).tolist() == pytest.approx([levels[index] for index in wanted], abs=2)


def test_phone_videos_are_upright(tmp_path, backend):
    """A file that says `turn me by 90 degrees` comes out turned, with the size to match."""
    pixels = torch.zeros(3, 3, 32, 48, dtype=torch.uint8)
    pixels[..., :16, :24] = 200  # bright top left
    write_video(tmp_path / "a.mp4", pixels, fps=1)
    content = (tmp_path / "a.mp4").read_bytes()
    one, minus = (65536).to_bytes(4, "big"), (-65536).to_bytes(4, "big", signed=True)
    zero, w = bytes(4), (1 << 30).to_bytes(4, "big")
    upright = one + zero + zero + zero + one + zero + zero + zero + w
    clockwise = zero + one + zero + minus + zero + zero + zero + zero + w
    place = content.rindex(upright)  # the track's matrix; the movie's own comes first
    (tmp_path / "b.mp4").write_bytes(content[:place] + clockwise + content[place + len(upright) :])

    video = open_video(tmp_path / "b.mp4", backend=backend)

    assert (video.metadata.height, video.metadata.width) == (48, 32)
    frame = video.frames_at([0]).pixels[0, 0].int()
    corners = {"top left": frame[4, 4], "top right": frame[4, -4], "bottom left": frame[-4, 4]}
    assert max(corners, key=corners.get) == "top right"


# --- files that cannot be read: each says which file, what was found and what to do -------------------------------


def test_missing_file(tmp_path, backend):
    with pytest.raises(VideoError, match=r"gone\.mp4': the file does not exist\. Check the path"):
        open_video(tmp_path / "gone.mp4", backend=backend)
    with pytest.raises(VideoError, match=r"it is a folder, not a file\. Give the path of one video file"):
        open_video(tmp_path, backend=backend)


def test_empty_file(tmp_path, backend):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(VideoError, match=r"a\.mp4': the file is empty \(0 bytes\)\. Download, copy or record"):
        open_video(tmp_path / "a.mp4", backend=backend)


def test_file_cut_before_its_index(tmp_path, clip, backend):
    content = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: content.index(b"mdat") + 40])
    match = r"cut\.mp4': the file is truncated \(its box 'mdat' should end at byte \d+, the file ends at byte "
    with pytest.raises(VideoError, match=match + str(path.stat().st_size)):
        open_video(path, backend=backend)
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(VideoError, match=r"truncated \(its index, the box 'moov', is missing\)"):
        open_video(path, backend=backend)


def test_file_cut_after_its_index(tmp_path, backend):
    path = tmp_path / "a.mp4"
    write_with_av(path, range(0, 200, 20), range(10), muxer_options={"movflags": "faststart"})
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    path.write_bytes(content[:-30])
    with pytest.raises(VideoError, match=r"a\.mp4': the file is truncated \(its box 'mdat' should end"):
        open_video(path, backend=backend)


def test_file_with_damaged_frames(tmp_path, backend):
    """The index is whole, the pictures are noise."""
    path = tmp_path / "a.mp4"
    write_with_av(path, range(0, 200, 20), range(10))
    content = bytearray(path.read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[start:end] = np.random.default_rng(0).bytes(end - start)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"Cannot read the video '.*a\.mp4': .*(damaged|decoded)"):
        open_video(path, backend=backend).frames_at([0.5])


def test_file_of_another_kind(tmp_path, backend):
    (tmp_path / "a.mp4").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(VideoError, match=r"a\.mp4': it is not a video file or its start is damaged \(Invalid data"):
        open_video(tmp_path / "a.mp4", backend=backend)
    (tmp_path / "b.mp4").write_text("this is not a video\n" * 100)
    with pytest.raises(VideoError, match=r"b\.mp4': it is not a video file but text\. Give a file that holds"):
        open_video(tmp_path / "b.mp4", backend=backend)


def test_sound_without_picture(tmp_path, backend):
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match=r"a\.m4a': it has no video stream, only audio\. Give a file that has a pic"):
        open_video(path, backend=backend)


def test_unknown_backend(clip):
    with pytest.raises(ValueError, match="`backend` 'opencv' is unknown; use 'torchcodec', 'pyav' or None"):
        open_video(clip, backend="opencv")


def test_frames_check_their_lengths():
    with pytest.raises(ValueError, match="2 frames but 1 timestamps"):
        Frames(pixels=torch.zeros(2, 3, 4, 4, dtype=torch.uint8), timestamps=[0.0])


def test_import_loads_no_backend():
    code = "import sys, m1lite.video.cache, m1lite.video.writer; print({'torchcodec', 'av'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
