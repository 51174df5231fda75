"""Every way to choose frames gives the frames that decoding from the start gives; children and devices."""

import multiprocessing

import av
import numpy as np
import pytest
import torch

from m1lite.video.reader import VideoError, open_video


def moving(path, *, codec="libx264", rate=10, num_frames=90, options=None):
    """Write noise that moves, so that no two frames are alike, with frames out of order."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 96 + num_frames, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"g": "20", "bf": "3", **(options or {})})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for place in range(num_frames):
            pixels = np.ascontiguousarray(noise[:, place : place + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def one_after_the_other(path):
    """Decode a whole file from its start: frames and the seconds at which they start."""
    with av.open(str(path)) as container:
        frames = [(frame.pts * frame.time_base, frame) for frame in container.decode(video=0)]
        keys = [float(time) for time, frame in frames if frame.key_frame]
        pixels = np.stack([frame.to_ndarray(format="rgb24") for _, frame in frames])
    starts = [float(time - frames[0][0]) for time, _ in frames]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), starts, keys


HOW = {
    "h264": {},
    "h264 pyramid": {"options": {"bf": "4", "x264-params": "b-pyramid=normal:open-gop=1"}},
    "h264 in order": {"options": {"bf": "0"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=20:log-level=error"}},
}


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("how", list(HOW))
def test_every_choice_of_frames_is_exact(tmp_path, backend, how, ending):
    path = moving(tmp_path / f"a.{ending}", **HOW[how])
    expected, starts, _ = one_after_the_other(path)
    draw = np.random.default_rng(1)
    choices = [list(range(90)), [89], [0], [19, 20, 21], [45, 44, 43], *draw.integers(0, 90, (6, 5)).tolist()]
    video = open_video(path, backend=backend)
    for wanted in choices:
        frames = video.frames_at([starts[place] + 0.04 for place in wanted])
        assert frames.timestamps == pytest.approx([starts[place] for place in wanted], abs=1e-3)
        apart = (frames.pixels.int() - expected[wanted].int()).abs().float().mean((1, 2, 3))
        assert apart.max() < 2  # another frame is 50 away or more


@pytest.mark.parametrize("how", ["h264", "h264 pyramid", "hevc"])
def test_frames_that_nothing_refers_to_are_left_out_by_themselves(tmp_path, how):
    """The fastest backend is chosen, and what it leaves out changes no other frame by a single bit."""
    path = moving(tmp_path / "a.mp4", **HOW[how])
    video = open_video(path)
    assert type(video._decoder).__name__ == "PyavDecoder"
    expected, starts, _ = one_after_the_other(path)
    given = []
    decode = video._decoder._pictures
    video._decoder._pictures = lambda packet: given.append(packet) or decode(packet)
    for wanted in ([3], [7, 33], [50, 51, 52], [18, 39, 59, 79], list(range(90))):
        given.clear()
        assert torch.equal(video.frames_at([starts[place] for place in wanted]).pixels, expected[wanted])
        if wanted == [18, 39, 59, 79]:  # each at the end of its group of 20
            assert len(given) < 60


@pytest.mark.ffmpeg
def test_other_files_are_read_by_torchcodec(tmp_path):
    for how, ending in (("h264 in order", "mp4"), ("h264", "mkv"), ("hevc", "mkv")):
        path = moving(tmp_path / f"{how}.{ending}", **HOW[how])
        assert type(open_video(path)._decoder).__name__ == "TorchcodecDecoder"


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("how", list(HOW))
def test_nearest_key_frames(tmp_path, backend, how, ending):
    path = moving(tmp_path / f"a.{ending}", **HOW[how])
    expected, starts, keys = one_after_the_other(path)
    video = open_video(path, backend=backend)
    assert video.key_seconds() == pytest.approx(keys, abs=1e-3)
    asked = [8.9, 0, 0.9, 3.05, 1.1, 5.0, 5.0]
    frames = video.frames_at(asked, nearest_key=True)
    nearest = [min(keys, key=lambda key: (abs(key - second), key)) for second in asked]
    assert frames.timestamps == pytest.approx(nearest, abs=1e-3)
    places = [min(range(90), key=lambda place: abs(starts[place] - second)) for second in nearest]
    assert (frames.pixels.int() - expected[places].int()).abs().float().mean((1, 2, 3)).max() < 2
    assert video.frames_at(asked, nearest_key=True, size=(16, 24)).pixels.shape == (7, 3, 16, 24)
    assert len(video.frames_at([], nearest_key=True)) == 0


def test_windows(clip, backend, numbers):
    video = open_video(clip, backend=backend)
    assert numbers(video.frames_between(0.4, 1.0).pixels) == [2, 3, 4]
    assert numbers(video.frames_between(0.41, 1.01).pixels) == [3, 4, 5]
    assert numbers(video.frames_between(0, 2.4).pixels) == list(range(12))
    assert len(video.frames_between(0.41, 0.42)) == 0
    at_rate = video.frames_between(0.5, 2.4, fps=2, size=(8, 12))
    assert at_rate.timestamps == pytest.approx([0.4, 1.0, 1.4, 2.0])
    assert at_rate.pixels.shape == (4, 3, 8, 12)
    with pytest.raises(ValueError, match=r"A window needs 0 <= start < end \(seconds\), got start=2, end=1"):
        video.frames_between(2, 1)
    with pytest.raises(ValueError, match=r"`seconds` holds 2\.6, but the video"):
        video.frames_between(2, 2.6)
    with pytest.raises(ValueError, match=r"`fps` must be at most 1000, got 2000"):
        video.frames_between(0, 1, fps=2000)


def test_windows_of_a_variable_rate(varying, backend, numbers):
    video = open_video(varying, backend=backend)
    frames = video.frames_between(0.05, 2)
    assert numbers(frames.pixels) == [1, 2]
    assert frames.timestamps == pytest.approx([0.1, 1.0])


def test_believing_the_header(tmp_path, clip, backend, numbers):
    for path in (clip, moving(tmp_path / "a.mkv")):
        exact, quick = (open_video(path, backend=backend, exact=choice) for choice in (True, False))
        assert quick.metadata.num_frames == exact.metadata.num_frames
        assert torch.equal(quick.frames_at([1, 2.2]).pixels, exact.frames_at([1, 2.2]).pixels)


@pytest.mark.ffmpeg
def test_colours_of_high_definition(tmp_path):
    """The standard that a file names is followed: BT.709 and BT.601 differ by up to 20 levels in pure colours."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1", "colorspace": "bt709"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv444p"
        pixels = np.zeros((64, 96, 3), dtype=np.uint8)
        pixels[:, :32, 0], pixels[:, 32:64, 1], pixels[:, 64:, 2] = 200, 200, 200
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv444p", dst_colorspace="ITU709")))
        container.mux(stream.encode(None))
    for backend in ("torchcodec", "pyav"):
        shown = open_video(path, backend=backend).frames_at([0.1]).pixels[0].permute(1, 2, 0).numpy()
        assert np.abs(shown[20:40, [10, 45, 80]].astype(int) - pixels[20:40, [10, 45, 80]]).max() <= 6, backend


@pytest.mark.ffmpeg
def test_a_table_that_is_wrong_is_found_out(varying, numbers):
    """The frames that come are compared with the table; where they differ, the file is read through."""
    from m1lite.video._mp4 import SteadyTrack
    from m1lite.video._torchcodec import TorchcodecDecoder

    even = np.array([0])
    track = SteadyTrack(b"hvc1", 4, timescale=10, frame_ticks=8, key_places=even, key_delays=even, reordered=True)
    decoder = TorchcodecDecoder(lambda: str(varying), "varying.mkv", track=track)
    pixels, starts = decoder.frames_at([0.05, 0.9, 1.0])
    assert numbers(pixels) == [0, 1, 2]
    assert starts == pytest.approx([0, 0.1, 1.0])


@pytest.mark.ffmpeg
def test_the_device_reaches_the_decoder(clip, monkeypatch):
    from m1lite.video import _torchcodec

    seen = []

    class Watched(_torchcodec.VideoDecoder):
        def __init__(self, source, **settings):
            seen.append(settings["device"])
            super().__init__(source, **{**settings, "device": "cpu"})

    monkeypatch.setattr(_torchcodec, "VideoDecoder", Watched)
    open_video(clip, device="cuda:1")
    assert seen == ["cuda:1"]


@pytest.mark.ffmpeg
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(clip):
    with pytest.raises(
        VideoError, match=r"clip\.mp4': no GPU for device='cuda' \(.*\)\. Decode on the CPU: device='cpu'"
    ):
        open_video(clip, device="cuda")


def test_pyav_has_no_gpu(clip):
    with pytest.raises(ValueError, match="`device` 'cuda' is out of reach: PyAV decodes on 'cpu'"):
        open_video(clip, backend="pyav", device="cuda")


def _read_in_child(video, results):
    before = video._own_decoder
    pixels = video.frames_at([0, 1, 2]).pixels
    results.put((video._own_decoder is not before, (pixels.float().mean((1, 2, 3)) / 20).round().int().tolist()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_opens_the_file_anew(clip, backend, numbers):
    video = open_video(clip, backend=backend)
    video.frames_at([1])
    decoder = video._own_decoder
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [context.Process(target=_read_in_child, args=(video, results)) for _ in range(2)]
    for child in children:
        child.start()
    assert numbers(video.frames_at([0.2, 2.2]).pixels) == [1, 11]  # while the children read
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert [results.get() for _ in children] == [(True, [0, 5, 10])] * 2
    assert video._own_decoder is decoder
