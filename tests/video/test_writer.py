import threading

import pytest
import torch

from m1lite.video import writer
from m1lite.video.reader import VideoError, open_video
from m1lite.video.writer import write_video


def test_what_is_written_is_read_back(tmp_path, backend):
    frames = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    frames = frames.repeat_interleave(4, 2).repeat_interleave(6, 3)  # blocks, as noise does not survive compression
    write_video(tmp_path / "a.mp4", frames, fps=2.5, backend=backend)

    video = open_video(tmp_path / "a.mp4", backend=backend)

    assert video.metadata.num_frames == 5
    assert video.metadata.duration == pytest.approx(2.0)
    assert video.metadata.fps == pytest.approx(2.5)
    assert (video.metadata.height, video.metadata.width) == (32, 48)
    error = video.frames_at([0, 0.4, 0.8, 1.2, 1.6]).pixels.int() - frames.int()
    assert error.abs().float().mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.ffmpeg
def test_backends_read_each_other_alike(tmp_path, ramp):
    for one in ("torchcodec", "pyav"):
        write_video(tmp_path / f"{one}.mp4", ramp, fps=4, backend=one)
        seconds = [i / 4 for i in range(12)]
        first, second = (
            open_video(tmp_path / f"{one}.mp4", backend=other).frames_at(seconds) for other in ("torchcodec", "pyav")
        )
        assert (first.pixels.int() - second.pixels.int()).abs().max() <= 2
        assert first.timestamps == pytest.approx(second.timestamps)


def test_quality_follows_crf(tmp_path, backend):
    frames = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for crf in (0, 18, 51):
        write_video(tmp_path / f"{crf}.mp4", frames, fps=4, crf=crf, backend=backend)
    sizes = [(tmp_path / f"{crf}.mp4").stat().st_size for crf in (0, 18, 51)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]


def test_container_follows_the_ending(tmp_path, backend, ramp):
    write_video(tmp_path / "a.mkv", ramp, fps=4, backend=backend)
    assert (tmp_path / "a.mkv").read_bytes()[:4] == b"\x1a\x45\xdf\xa3"  # EBML
    assert open_video(tmp_path / "a.mkv", backend=backend).metadata.num_frames == 12


def test_frames_may_be_strided(tmp_path, backend, numbers, ramp):
    strided = ramp.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)[::3]
    assert not strided.is_contiguous()
    write_video(tmp_path / "a.mp4", strided, fps=1, backend=backend)
    assert numbers(open_video(tmp_path / "a.mp4", backend=backend).frames_at([0, 1, 2, 3]).pixels) == [0, 3, 6, 9]


def test_failure_leaves_the_old_file_and_no_rest(tmp_path, backend, ramp):
    path = tmp_path / "a.mp4"
    write_video(path, ramp, fps=4, backend=backend)
    before = path.read_bytes()

    with pytest.raises(VideoError, match=r"a\.mp4' \(12 frames of 31x47, yuv420p\)"):
        write_video(path, ramp[:, :, :31, :47], fps=4, pixel_format="yuv420p", backend=backend)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_interrupt_leaves_no_rest(tmp_path, ramp, monkeypatch):
    class Interrupted:
        @staticmethod
        def encode(path, frames, **kwargs):
            with open(path, "wb") as file:
                file.write(b"half")
            raise KeyboardInterrupt

    monkeypatch.setattr(writer, "find_backend", lambda name: Interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", ramp, fps=4)
    assert list(tmp_path.iterdir()) == []


def test_readers_never_see_half_a_file(tmp_path, backend, ramp):
    path = tmp_path / "a.mp4"
    write_video(path, ramp, fps=4, backend=backend)
    done = threading.Event()

    def rewrite():
        for _ in range(10):
            write_video(path, ramp, fps=4, backend=backend)
        done.set()

    thread = threading.Thread(target=rewrite)
    thread.start()
    reads = 0
    while not done.is_set() or reads == 0:
        assert open_video(path, backend=backend).metadata.num_frames == 12
        reads += 1
    thread.join()


def test_bad_arguments_name_the_value(tmp_path, ramp):
    path = tmp_path / "a.mp4"
    with pytest.raises(ValueError, match=r"got torch.float32 \(12, 3, 32, 48\)"):
        write_video(path, ramp.float(), fps=4)
    with pytest.raises(ValueError, match=r"got torch.uint8 \(3, 32, 48\)"):
        write_video(path, ramp[0], fps=4)
    with pytest.raises(ValueError, match=r"at least one frame, got torch.uint8 \(0, 3, 32, 48\)"):
        write_video(path, ramp[:0], fps=4)
    with pytest.raises(ValueError, match=r"`fps` must be above 0, got -1"):
        write_video(path, ramp, fps=-1)
    with pytest.raises(ValueError, match=r"`crf` must be from 0 \(lossless\) to 51 \(worst\), got 99"):
        write_video(path, ramp, fps=4, crf=99)
    with pytest.raises(VideoError, match=r"nowhere/a\.mp4': its folder does not exist"):
        write_video(tmp_path / "nowhere" / "a.mp4", ramp, fps=4)
    assert list(tmp_path.iterdir()) == []
