import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from m1lite.video import backends
from m1lite.video.backends import find_backend
from m1lite.video.reader import open_video
from m1lite.video.writer import write_video


@pytest.fixture(autouse=True)
def forget_the_choice():
    backends._working_backend.cache_clear()
    yield
    backends._working_backend.cache_clear()


@pytest.fixture
def hidden_ffmpeg(monkeypatch):
    """What torchcodec does without FFmpeg's libraries: it imports, and fails at first use."""
    import torchcodec.encoders

    def fail(*args, **kwargs):
        raise RuntimeError("Could not load libtorchcodec. Likely causes:\n 1. FFmpeg is not properly installed")

    monkeypatch.setattr(torchcodec.encoders.VideoEncoder, "__init__", fail)


@pytest.mark.ffmpeg
def test_torchcodec_is_taken_where_it_works(caplog):
    with caplog.at_level(logging.INFO):
        assert find_backend().name == "torchcodec"
    assert caplog.records == []


def test_pyav_takes_over_and_says_so_once(hidden_ffmpeg, caplog, tmp_path):
    with caplog.at_level(logging.INFO):
        write_video(tmp_path / "a.mp4", torch.zeros(4, 3, 16, 16, dtype=torch.uint8), fps=2)
        video = open_video(tmp_path / "a.mp4")
    assert type(video._decoder).__name__ == "PyavDecoder"
    assert video.metadata.num_frames == 4
    assert [record.getMessage() for record in caplog.records] == [
        "torchcodec does not work here (Could not load libtorchcodec); PyAV reads and writes the videos instead."
    ]


def test_threads_choose_once(hidden_ffmpeg, caplog):
    with ThreadPoolExecutor(8) as pool, caplog.at_level(logging.INFO):
        assert {backend.name for backend in pool.map(lambda _: find_backend(), range(16))} == {"PyAV"}
    assert len(caplog.records) == 1


def test_a_half_installed_torchcodec_counts_as_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", None)  # import raises ImportError
    assert find_backend().name == "PyAV"


def test_backends_can_be_named():
    assert find_backend("pyav").name == "PyAV"
    assert find_backend("torchcodec").name == "torchcodec"
    with pytest.raises(ValueError, match="`backend` 'decord' is unknown"):
        find_backend("decord")
