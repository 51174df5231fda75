"""Events of real footage, found by colour."""

import pytest

from m1lite.toolbox.backends.bm25 import BM25
from m1lite.toolbox.learned.events import EventGrounder
from m1lite.toolbox.learned.grounders import RelevanceGrounder
from m1lite.toolbox.learned.relevance import FrameRelevance, TextRelevance


@pytest.fixture
def tools(index, encoder):
    return EventGrounder(RelevanceGrounder(FrameRelevance(index, encoder))).tools


def test_the_span_is_that_of_the_scene(call, tools):
    assert call(tools, "grounding_tool", event="the screen turns blue").text.startswith("span 12 17 score 0.")
    assert call(tools, "grounding_tool", event="red", start=10).text.startswith("span 23 26 score 0.")


def test_several_spans(call, tools):
    words = call(tools, "ground_event", event="red", top_k=2).text.split()
    assert words[0:3] == ["span", "0", "6"]
    assert words[5:8] == ["span", "23", "26"]


def test_nothing_stands_out(call, tools):
    assert call(tools, "grounding_tool", event="red", start=1, end=5).text == "none"
    silent = EventGrounder(RelevanceGrounder(TextRelevance(lambda _: [], BM25()))).tools
    assert call(silent, "ground_event", event="a dog").text == "none"


def test_refusals(call, tools):
    assert "`event` is empty" in call(tools, "grounding_tool", event="").error
    assert "must lie between 1 and 5, got 6" in call(tools, "ground_event", event="red", top_k=6).error
