"""What a viewer is asked for an event, and how its reply is read."""

import pytest

from m1lite.toolbox.backends.loading import ModelError
from m1lite.toolbox.learned.events import EventGrounder
from m1lite.toolbox.learned.grounders import Proposal, ViewerGrounder, proposals_of


class Colours:
    """Names the seconds of the frames that are blue."""

    identity = "colours"

    def __init__(self):
        self.asked = []

    def __call__(self, instruction, frames=None):
        self.asked.append((instruction, frames))
        means = frames.pixels.float().mean((2, 3))
        blue = [second for second, mean in zip(frames.timestamps, means.tolist(), strict=True) if mean[2] > 200]
        return f"It lasts from {blue[0]:g} to {blue[-1]:g} s." if blue else "None."


@pytest.fixture
def viewer():
    return Colours()


@pytest.fixture
def tools(viewer):
    return EventGrounder(ViewerGrounder(viewer, num_frames=52, side=28)).tools


def test_the_span_is_that_of_the_scene(call, tools, viewer):
    """The footage is blue from second 12 to 17; 52 frames of 26 seconds stand half a second apart."""
    assert call(tools, "grounding_tool", event="the screen turns blue").text == "span 12.25 16.75"
    ((instruction, frames),) = viewer.asked
    assert len(frames) == 52
    assert tuple(frames.pixels.shape[2:]) == (28, 28)
    assert "from second 0 to 26" in instruction
    assert instruction.endswith("Event: the screen turns blue")
    assert "at most" not in instruction


def test_a_window_and_several_spans(call, tools, viewer):
    assert call(tools, "ground_event", event="blue", start=14, end=26, top_k=2).text.startswith("span 14")
    assert "from second 14 to 26" in viewer.asked[0][0]
    assert "at most 2 such stretches" in viewer.asked[0][0]
    assert call(tools, "grounding_tool", event="blue", start=0, end=10).text == "none"


@pytest.mark.parametrize(
    ("reply", "count", "expected"),
    [
        ("12.5 to 17", 1, [(12.5, 17)]),
        ("<think>1 to 2?</think><answer>0:12 - 0:17</answer>", 1, [(12, 17)]),
        ("First 1 to 2, then 3 to 4.", 1, [(3, 4)]),
        ("1 to 2\n3 to 4\n5 to 6", 2, [(1, 2), (3, 4)]),
        ("15 to 40\n1 to 2", 3, [(15, 20), (1, 2)]),
        ("30 to 40\n1 to 2", 3, [(1, 2)]),
        (" `None`.\n", 1, []),
    ],
)
def test_replies(reply, count, expected):
    assert proposals_of(reply, (0, 20), count) == [Proposal(start=start, end=end) for start, end in expected]


def test_what_cannot_be_read_is_an_error_that_agents_see(call, viewer):
    def says(reply):
        class Said(Colours):
            def __call__(self, instruction, frames=None):
                return reply

        return EventGrounder(ViewerGrounder(Said(), num_frames=2)).tools

    error = call(says("I cannot tell."), "grounding_tool", event="blue").error
    assert "ModelError: The model named no span of time but 'I cannot tell.'" in error
    error = call(says("9 to 4"), "grounding_tool", event="blue").error
    assert "named no span of time but '9 to 4'" in error
    error = call(says("20 to 24"), "grounding_tool", event="blue", end=10).error
    assert "What was named, 20 to 24, leaves nothing of the window from 0 to 10; widen the window" in error
    with pytest.raises(ModelError):
        proposals_of("", (0, 1), 1)
    with pytest.raises(ValueError, match="`num_frames` must be at least 2 and `side` at least 28, got 1 and 224"):
        ViewerGrounder(viewer, num_frames=1)
