"""The caption tree of real footage, written by a viewer that names the colour it sees."""

import pytest

from m1lite.toolbox.backends.bm25 import BM25
from m1lite.toolbox.backends.loading import ModelError
from m1lite.toolbox.index import VideoIndex
from m1lite.toolbox.learned.captions import Captioner, CaptionReader, segment_groups
from m1lite.toolbox.learned.relevance import TextRelevance
from m1lite.toolbox.learned.search import Search


class Painter:
    """Names the strongest colour of the frames, and repeats what it is told without frames."""

    identity = "painter"

    def __init__(self):
        self.asked = []

    def __call__(self, instruction, frames=None):
        self.asked.append(instruction)
        if frames is None:
            return f"joined {instruction.count(' s: ')}"
        mean = frames.pixels.float().mean((0, 2, 3))
        return next((name for name, place in (("red", 0), ("blue", 2)) if mean[place] > 0.9 * mean.sum()), "other")


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def captioner(index, painter):
    return Captioner(index, painter, clip_seconds=3, num_frames=2, side=56)


def test_the_tree_covers_the_video(context, captioner):
    tree = captioner.tree(context)
    assert [len(clips) for clips in tree.clips] == [3, 3, 3]
    flat = [clip for clips in tree.clips for clip in clips]
    assert [(clip.start, clip.end) for clip in flat] == [*((n, n + 3) for n in range(0, 24, 3)), (24, 26)]
    assert [flat[place].text for place in (0, 1, 8)] == ["red", "red", "red"]
    assert flat[4].text == "blue"
    assert [(one.start, one.end, one.text) for one in tree.segments] == [
        (0, 9, "joined 3"), (9, 18, "joined 3"), (18, 26, "joined 3"),
    ]  # fmt: skip
    assert tree.summary == "joined 3"


def test_it_is_made_once_and_a_failure_keeps_what_was_whole(context, captioner, index, painter):
    captioner.tree(context)
    assert len(painter.asked) == 9 + 3 + 1
    again = Captioner(VideoIndex(index.folder), painter, clip_seconds=3, num_frames=2, side=56)
    assert again.tree(context) == captioner.tree(context)
    assert len(painter.asked) == 13

    class Mute(Painter):
        identity = "mute"

        def __call__(self, instruction, frames=None):
            if frames is None:
                raise ModelError("no reply")
            return super().__call__(instruction, frames)

    mute = Mute()
    for _ in range(2):
        with pytest.raises(ModelError, match="no reply"):
            Captioner(index, mute, clip_seconds=3, num_frames=2, side=56).tree(context)
    assert len(mute.asked) == 9  # the clips' captions were whole and stay


def test_reading_from_the_top_down(call, captioner):
    tools = CaptionReader(captioner).tools
    assert call(tools, "get_caption").text.split("\n") == [
        "video: joined 3",
        "segment 1 from 0 to 9: joined 3",
        "segment 2 from 9 to 18: joined 3",
        "segment 3 from 18 to 26: joined 3",
    ]
    assert call(tools, "get_caption", segment=1).text.split("\n")[1] == "clip 1 from 0 to 3: red"
    assert call(tools, "get_caption", segment=3, clip=3).text == "clip 3 from 24 to 26: red"
    assert "`segment` 4 does not exist; there are 3" in call(tools, "get_caption", segment=4).error
    assert "`clip` 9 does not exist; there are 3" in call(tools, "get_caption", segment=1, clip=9).error
    assert "`clip` 1 needs the `segment`" in call(tools, "get_caption", clip=1).error


def test_captions_are_searched_by_text(call, captioner):
    tools = Search(TextRelevance(captioner.passages, BM25()), clip_seconds=3).tools
    assert call(tools, "video_retrieval", query="something blue").text.startswith("clip 12 15 score ")


def test_segments_cover_all_clips():
    for count in range(1, 200):
        groups = segment_groups(count)
        assert [place for first, beyond in groups for place in range(first, beyond)] == list(range(count))
        assert all(first < beyond for first, beyond in groups)


def test_arguments(index, painter):
    with pytest.raises(ValueError, match="`clip_seconds` must be above 0"):
        Captioner(index, painter, clip_seconds=0)
