import json
import math
import sys

import pytest

from m1lite.video.base import VideoError
from m1lite.video.policy import VideoPolicy
from m1lite.video.subtitles import MAX_BYTES, Subtitle, clock_seconds, read_subtitles, subtitles_by_window

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i>
there

2
01:00:03,250 --> 01:00:04,000
Tea & cake

3
00:00:05,000 --> 00:00:04,000
ends before it starts
"""
VTT = """WEBVTT

NOTE written by hand

STYLE
::cue { color: red }

00:01.000 --> 00:02.500 align:start
<v Ann>Hello <b>there</b>

name of a cue
01:00:03.250 --> 01:00:04.000
Tea &amp; cake
"""
EXPECTED = [
    Subtitle(start=1.0, end=2.5, text="Hello there"),
    Subtitle(start=3603.25, end=3604.0, text="Tea & cake"),
]


@pytest.mark.parametrize(("name", "text"), [("a.srt", SRT), ("a.VTT", VTT), ("b.srt", SRT.replace("\n", "\r\n"))])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_text_tracks(tmp_path, name, text, mark):
    (tmp_path / name).write_bytes((mark + text).encode())
    assert read_subtitles(tmp_path / name) == EXPECTED
    assert read_subtitles(f"file://{tmp_path}/{name}") == EXPECTED


def test_old_encodings(tmp_path):
    (tmp_path / "a.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\ncafé\n".encode("latin-1"))
    assert [one.text for one in read_subtitles(tmp_path / "a.srt")] == ["café"]


def test_both_forms_of_longvideobench(tmp_path):
    clocks = [
        {"start": "00:00:01.000", "end": "00:00:02.500", "line": "Hello there"},
        {"start": "01:00:03.250", "end": "01:00:04.000", "line": "Tea & cake"},
    ]
    seconds = [
        {"timestamp": [3603.25, 3604.0], "text": "Tea &\ncake"},
        {"timestamp": [1, 2.5], "text": "Hello there"},
        {"timestamp": [2, 2.2], "text": " "},
    ]
    for rows in (clocks, seconds):
        (tmp_path / "a.json").write_text(json.dumps(rows))
        assert read_subtitles(tmp_path / "a.json") == EXPECTED
    (tmp_path / "a.json").write_text(json.dumps([{"timestamp": [7, None], "text": "to the end"}]))
    assert read_subtitles(tmp_path / "a.json") == [Subtitle(start=7, end=math.inf, text="to the end")]


def test_the_start_of_a_cut_video(tmp_path):
    (tmp_path / "a.srt").write_text(SRT)
    shifted = read_subtitles(tmp_path / "a.srt", shift_seconds=-2)
    assert [(one.start, one.end) for one in shifted] == [(0, 0.5), (3601.25, 3602.0)]
    assert len(read_subtitles(tmp_path / "a.srt", shift_seconds=-3)) == 1


def test_texts_are_aligned_with_windows():
    said = [Subtitle(start=second, end=second + 1.5, text=str(second)) for second in range(6)]
    windows = [(0, 1), (1, 2.5), (2.5, 4), (9, 10)]
    expected = [
        " ".join(one.text for one in said if max(one.start, start) < min(one.end, end)) for start, end in windows
    ]
    assert subtitles_by_window(said, windows) == expected == ["0", "0 1 2", "2 3", ""]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.srt", "", r"it is no \.srt file \("),
        ("a.srt", "nothing like it", r"it is no \.srt file \("),
        ("a.vtt", "1\n00:01 --> 00:02\nx", r"it is no \.vtt file \("),
        ("a.json", "{", r"it is no list of texts with times \(JSONDecodeError"),
        ("a.json", "[1]", r"it is no list of texts with times \(TypeError"),
        ("a.json", '[{"start": "x", "end": "y", "line": "z"}]', r"\(ValueError: could not convert"),
        ("a.json", '[{"start": "00:01", "end": "00:02"}]', r"\(KeyError: 'line'"),
        ("a.json", "[" * 100_000, r"\(RecursionError"),
        ("a.txt", "x", r"its ending is '\.txt'\. Give a \.srt, \.vtt or \.json file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError, match=rf"Cannot read the subtitles '.*{name}': .*{said}"):
        read_subtitles(tmp_path / name)


def test_files_that_are_not_there_or_not_allowed(tmp_path):
    with pytest.raises(VideoError, match=r"gone\.srt': the file does not exist"):
        read_subtitles(tmp_path / "gone.srt")
    with pytest.raises(VideoError, match=r"it is outside of the roots"):
        read_subtitles("/etc/passwd", policy=VideoPolicy(roots=(str(tmp_path),)))
    with pytest.raises(VideoError, match=r"it is not a local file\. Download it first"):
        read_subtitles("https://host/a.srt")
    with (tmp_path / "a.srt").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(VideoError, match=rf"it has more than {MAX_BYTES} bytes"):
        read_subtitles(tmp_path / "a.srt")


def test_clocks():
    assert clock_seconds("1:2.5") == 62.5
    for clock in ("5", "1:2:3:4", "-1:00", "nan:00", "a:b"):
        with pytest.raises(ValueError, match=r"is no time|could not convert"):
            clock_seconds(clock)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webvtt", None)
    (tmp_path / "a.srt").write_text(SRT)
    with pytest.raises(ModuleNotFoundError, match=r"\.srt subtitles needs webvtt-py: pip install 'm1lite\[video\]'"):
        read_subtitles(tmp_path / "a.srt")
