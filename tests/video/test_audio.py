"""Sound on the clock of the pictures, from MP4 and from containers whose clock starts late; torchcodec checks."""

import contextlib

import numpy as np
import pytest
import torch

from m1lite.video.audio import NoSoundError, read_audio
from m1lite.video.base import VideoError
from m1lite.video.policy import VideoPolicy
from tests.sounds import beep, write_sound

RATE = 16_000


@pytest.fixture(scope="module", params=["mp4", "ts", "mkv"])
def video(request, tmp_path_factory):
    return write_sound(tmp_path_factory.mktemp("sound") / f"beep.{request.param}", beep())


def loud(samples):
    """Give the seconds from the first to the last loud sample."""
    places = (samples.abs() > 0.1).nonzero().flatten()
    return places[0].item() / RATE, places[-1].item() / RATE


@pytest.mark.parametrize(("start", "end"), [(0, 6), (1.5, 3.5), (2.25, 2.5)])
def test_the_tone_is_where_it_was_put(video, start, end):
    samples = read_audio(video, start, end)
    assert samples.dtype == torch.float32
    assert samples.shape == (round((end - start) * RATE),)
    first, last = loud(samples)
    assert first == pytest.approx(max(2 - start, 0), abs=0.03)
    assert last == pytest.approx(min(3, end) - start, abs=0.03)
    assert samples.abs().max() == pytest.approx(0.5, abs=0.05)
    assert read_audio(video, start, end, sample_rate=8000).shape == (round((end - start) * 8000),)


@pytest.mark.ffmpeg
def test_torchcodec_gives_the_same(video):
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    begin = VideoDecoder(str(video)).metadata.begin_stream_seconds
    sound = AudioDecoder(str(video), sample_rate=RATE)
    expected = sound.get_samples_played_in_range(begin + 1.5, begin + 3.5).data.mean(0)
    found = read_audio(video, 1.5, 3.5)
    assert found.shape == expected.shape
    # Clocks of a millisecond leave the phase of the tone open, so loudness is compared, every 10 ms.
    found, expected = (one.reshape(-1, RATE // 100).square().mean(1).sqrt() for one in (found, expected))
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_a_tone_has_no_gaps(video):
    samples = read_audio(video, 2.1, 2.9)
    crossings = (samples[1:].sign() != samples[:-1].sign()).nonzero().flatten()
    steps = crossings.diff()  # half a wave of 440 Hz lasts 18.2 samples
    assert steps.min() >= 17
    assert steps.max() <= 19


def test_where_there_is_no_sound_there_is_silence(tmp_path, video):
    late = write_sound(tmp_path / "late.mp4", beep(), delay=1.0)
    first, last = loud(read_audio(late, 0, 6))
    assert (first, last) == (pytest.approx(3, abs=0.03), pytest.approx(4, abs=0.03))
    assert read_audio(video, 30, 31).abs().max() == 0
    short = read_audio(write_sound(tmp_path / "short.mp4", beep(2.5)), 2, 4)
    assert loud(short)[1] == pytest.approx(0.5, abs=0.06)
    assert short[RATE:].abs().max() == 0


def test_what_cannot_be_heard(tmp_path, video):
    silent = write_sound(tmp_path / "silent.mp4", None)
    with pytest.raises(NoSoundError, match=r"The video '.*silent\.mp4' has no sound\."):
        read_audio(silent, 0, 1)
    (tmp_path / "text.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    for path, message in (("text.mp4", "it is not a video file but text"), ("none.mp4", "the file does not exist")):
        with pytest.raises(VideoError, match=message):
            read_audio(tmp_path / path, 0, 1)
    with pytest.raises(VideoError, match="it is outside of the roots"):
        read_audio(video, 0, 1, policy=VideoPolicy(roots=(str(tmp_path),)))
    with pytest.raises(VideoError, match="take 64000000 bytes, allowed are 1000"):
        read_audio(video, 0, 1000, policy=VideoPolicy(max_decoded_bytes=1000))
    with pytest.raises(ValueError, match=r"0 <= start < end .*, got start=2, end=1 and sample_rate=16000"):
        read_audio(video, 2, 1)


def test_a_damaged_file_is_an_error_or_a_sound(tmp_path, video):
    content = bytearray(video.read_bytes())
    chance = np.random.default_rng(0)
    for number in range(12):
        broken = bytearray(content[: chance.integers(200, len(content))] if number % 2 else content)
        for place in chance.integers(0, len(broken), 20):
            broken[place] = chance.integers(256)
        path = tmp_path / f"{number}{video.suffix}"
        path.write_bytes(broken)
        with contextlib.suppress(VideoError):
            assert read_audio(path, 0, 6).shape == (6 * RATE,)
