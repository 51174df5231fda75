"""What a viewer is shown and asked by each tool, on real footage."""

import pytest

from m1lite.toolbox.backends.loading import ModelError
from m1lite.toolbox.learned.viewing import Viewing


class Note:
    identity = "note"

    def __init__(self):
        self.asked = []

    def __call__(self, instruction, frames=None):
        self.asked.append((instruction, frames))
        return f"{len(frames)} of {tuple(frames.pixels.shape[2:])}"


@pytest.fixture
def note():
    return Note()


@pytest.fixture
def tools(note):
    return Viewing(note, rough_frames=3, fine_frames=6, rough_side=28, fine_side=56).tools


def test_frames_over_all_of_the_video(call, tools, note):
    lines = call(tools, "global_sampling", num_frames=2).text.split("\n")
    assert lines == ["t 6.5: 1 of (56, 56)", "t 19.5: 1 of (56, 56)"]
    lines = call(tools, "time_step_retrieval", start=10, end=13, num_frames=3).text.split("\n")
    assert [line.split(":")[0] for line in lines] == ["t 10.5", "t 11.5", "t 12.5"]


def test_rough_and_fine_looks(call, tools, note):
    assert call(tools, "rough_browser", question="what turns blue").text == "3 of (28, 28)"
    assert call(tools, "fine_browser", question="what turns blue", start=12, end=18).text == "6 of (56, 56)"
    assert call(tools, "video_qa", question="what turns blue").text == "3 of (56, 56)"
    instruction, frames = note.asked[1]
    assert frames.timestamps == [12.5, 13.5, 14.5, 15.5, 16.5, 17.5]
    assert "from second 12 to 18" in instruction
    assert instruction.endswith("Question: what turns blue")


def test_refusals_and_failures(call, tools):
    assert "`question` is empty" in call(tools, "video_qa", question=" ").error
    assert "must be before `end` 2" in call(tools, "fine_browser", question="x", start=3, end=2).error

    def fail(instruction, frames=None):
        raise ModelError("gave no reply")

    assert "ModelError: gave no reply" in call(Viewing(fail).tools, "video_qa", question="x").error
    with pytest.raises(ValueError, match="`rough_side` and `fine_side` at least 28, got 16, 32, 8 and 448"):
        Viewing(fail, rough_side=8)
