"""What is said, by subtitles and by a model that hears beeps, on real files with sound."""

import pytest

from m1lite.toolbox.base import ToolContext
from m1lite.toolbox.learned.speech import Speech, SpeechReader, SubtitlesBeside, _fitted
from m1lite.video.base import VideoError
from m1lite.video.cache import FrameCache
from m1lite.video.policy import VideoPolicy
from m1lite.video.reader import open_video
from m1lite.video.subtitles import Subtitle
from tests.sounds import beep, write_sound

SRT = "1\n00:00:00,500 --> 00:00:02,000\nA dog\nbarks.\n\n2\n00:00:02,000 --> 00:00:05,250\nIt <i>sleeps</i>.\n"


class Beeps:
    """Hears where a sound is loud."""

    identity = "beeps"

    def __init__(self):
        self.heard = []

    def __call__(self, sound):
        self.heard.append(len(sound) / 16_000)
        places = (sound.abs() > 0.1).nonzero().flatten()
        if not len(places):
            return []
        start, end = (round(place / 16_000, 1) for place in (places[0].item(), places[-1].item()))
        return [Subtitle(start=start, end=end, text="beep")]


@pytest.fixture
def ears():
    return Beeps()


@pytest.fixture
def video(tmp_path):
    return str(write_sound(tmp_path / "beep.mp4", beep()))


@pytest.fixture
def read(index, ears):
    def run(video, *, duration=6.0, piece_seconds=300.0, subtitles=None, frames=None, **args):
        speech = Speech(index, ears, subtitles=subtitles, piece_seconds=piece_seconds)
        (tool,) = SpeechReader(speech).tools
        context = ToolContext(video=video, duration=duration, frames=frames or FrameCache(0), look=None)
        return tool(context, **args).text

    return run


def test_times_are_those_of_the_video_whatever_the_pieces(read, video):
    assert read(video) == "2 to 3: beep"
    assert read(video, piece_seconds=1.5) == "2 to 3: beep"
    assert read(video, piece_seconds=2.5) == "2 to 2.5: beep\n2.5 to 3: beep"


def test_only_pieces_of_the_window_are_heard_and_each_once(read, video, ears, index):
    assert read(video, piece_seconds=2.0, start=0, end=1) == "none"
    assert ears.heard == [2.0]
    assert read(video, piece_seconds=2.0, start=2.5, end=4) == "2 to 3: beep"
    assert read(video, piece_seconds=2.0) == "2 to 3: beep"
    assert ears.heard == [2.0, 2.0, 2.0]
    assert index.counts["made"] == 3


def test_no_sound_and_silence(read, tmp_path, index):
    assert read(str(write_sound(tmp_path / "mute.mp4", None))) == "The video has no sound."
    assert read(str(write_sound(tmp_path / "quiet.mp4", 0 * beep()))) == "none"
    context = ToolContext(video=str(tmp_path / "mute.mp4"), duration=6.0, frames=FrameCache(0), look=None)
    assert Speech(index, Beeps()).passages(context) == []


def test_subtitles_are_taken_where_there_are_some(read, video, ears, tmp_path):
    beside = SubtitlesBeside()
    assert read(video, subtitles=beside) == "2 to 3: beep"
    (tmp_path / "beep.srt").write_text(SRT)
    heard = len(ears.heard)
    assert read(video, subtitles=beside) == "0.5 to 2: A dog barks.\n2 to 5.25: It sleeps."
    assert read(video, subtitles=beside, start=2, end=3) == "2 to 5.25: It sleeps."
    assert read(video, subtitles=beside, duration=4.0) == "0.5 to 2: A dog barks.\n2 to 4: It sleeps."
    assert read(video, subtitles=beside, start=5.5) == "none"
    mute = str(write_sound(tmp_path / "mute.mp4", None))
    (tmp_path / "mute.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nHello.\n")
    assert read(mute, subtitles=beside) == "1 to 2: Hello."
    assert len(ears.heard) == heard


def test_text_tracks_in_another_folder_and_outside_of_the_roots(read, video, tmp_path):
    folder = tmp_path / "subtitles"
    folder.mkdir()
    (folder / "beep_en.json").write_text('[{"start": "00:00:01", "end": "00:00:02", "line": "Hi"}]')
    assert read(video, subtitles=SubtitlesBeside(["_en.json"], folder=folder)) == "1 to 2: Hi"
    policy = VideoPolicy(roots=(str(folder),))
    with pytest.raises(VideoError, match="outside of the roots"):
        read(video, subtitles=SubtitlesBeside(policy=policy))
    with pytest.raises(VideoError, match="outside of the roots"):  # the toolbox's policy comes before any sound
        read(video, frames=FrameCache(0, opener=lambda uri: open_video(uri, policy=policy)))


def test_long_texts_are_cut_and_that_is_said():
    lines = ["0 to 1: one", "1 to 2: two", "2 to 3: three"]
    assert _fitted(lines, 100) == "\n".join(lines)
    assert _fitted(lines, 23) == "0 to 1: one\n1 to 2: two\n(1 more; ask for a shorter or later window)"
    assert _fitted(lines, 8) == "0 to 1: \n(3 more; ask for a shorter or later window)"
    assert _fitted([], 8) == ""


def test_refusals(index):
    with pytest.raises(ValueError, match="`piece_seconds` must be above 0, got 0"):
        Speech(index, Beeps(), piece_seconds=0)
    with pytest.raises(ValueError, match="`max_characters` must be at least 1, got 0"):
        SpeechReader(Speech(index, Beeps()), max_characters=0)
