"""The retrieval tools on real footage: what they find is what the scenes hold."""

import pytest

from m1lite.toolbox.backends.bm25 import BM25
from m1lite.toolbox.learned.relevance import FrameRelevance, TextRelevance
from m1lite.toolbox.learned.search import FrameSeeker, Search
from m1lite.video.subtitles import Subtitle


@pytest.fixture
def tools(index, encoder):
    relevance = FrameRelevance(index, encoder)
    return [*Search(relevance, clip_seconds=5).tools, *FrameSeeker(relevance, side=56, multiple=28).tools]


def test_clips(call, tools):
    words = call(tools, "video_retrieval", query="the screen is blue", top_k=2).text.split()
    assert words[:3] == ["clip", "10", "15"]  # two of its five seconds are of the scene before
    assert words[5:8] == ["clip", "15", "20"]
    assert float(words[4]) > float(words[9])
    assert call(tools, "video_retrieval", query="red").text == "clip 0 5 score 1.000"


def test_seconds_are_apart_and_stay_in_the_window(call, tools):
    words = call(tools, "image_retrieval", query="blue", top_k=2).text.split()
    seconds = sorted(float(second) for second in words[1::4])
    assert all(12 <= second < 17 for second in seconds)
    assert seconds[1] - seconds[0] >= 2
    words = call(tools, "image_retrieval", query="red", start=8, end=25).text.split()
    assert 23 <= float(words[1]) < 25
    assert words[2:] == ["score", "1.000"]


def test_sought_frames_are_relevant_differ_and_are_shown(call, tools, footage):
    result = call(tools, "seek_video_frames", query="red", num_frames=3)
    (media,) = result.media
    assert media.uri == footage
    assert media.size == (56, 56)  # 48 x 64 pixels, rounded to multiples of 28
    assert result.text == " ".join(f"t {second:g}" for second in media.timestamps)
    assert list(media.timestamps) == sorted(media.timestamps)
    red = [second for second in media.timestamps if second < 6 or second >= 23]
    assert len(red) == 1  # all red frames are alike: one is enough
    inside = call(tools, "seek_video_frames", query="red", start_time=13, end_time=16, num_frames=8)
    assert inside.media[0].timestamps == (13, 14, 15)


def test_texts_as_backend(call):
    said = [Subtitle(start=11, end=14, text="a dog barks")]
    tools = Search(TextRelevance(lambda _: said, BM25())).tools
    assert call(tools, "video_retrieval", query="dogs or a dog").text.startswith("clip 8 16 score ")
    assert call(tools, "image_retrieval", query="dog").text.startswith("t 12.5 score ")
    assert call(tools, "video_retrieval", query="bird").text == "none"
    assert call(tools, "image_retrieval", query="bird").text == "none"
    assert call(tools, "image_retrieval", query="dog", end=10).text == "none"


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("video_retrieval", {"query": " "}, "`query` is empty; say in words"),
        ("video_retrieval", {"query": "red " * 1000}, "`query` has 4000 characters; at most 2000 are read"),
        ("image_retrieval", {"query": "red", "start": 30}, "`start` 30 is not before the video end 26"),
        ("seek_video_frames", {"query": "red", "num_frames": 9}, "must lie between 1 and 8, got 9"),
        ("seek_video_frames", {"query": "red", "start_time": -1}, "`start` -1 is before the video"),
    ],
)
def test_refusals(call, tools, name, args, error):
    result = call(tools, name, **args)
    assert result.status == "tool_error"
    assert error in result.error


def test_arguments(index, encoder):
    relevance = FrameRelevance(index, encoder)
    with pytest.raises(ValueError, match="`clip_seconds` must be above 0"):
        Search(relevance, clip_seconds=0)
    with pytest.raises(ValueError, match="`side` must be at least `multiple`"):
        FrameSeeker(relevance, side=10)
