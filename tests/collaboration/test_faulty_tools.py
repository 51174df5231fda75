"""Tools that hang, take all memory, raise and exit: their calls are error results, and the episodes go on."""

import sys
import threading
from collections import Counter
from dataclasses import replace

import pytest

from m1lite.collaboration.loop import run
from m1lite.collaboration.topology import complete
from m1lite.records import Status, ToolResult
from m1lite.toolbox import Toolbox
from m1lite.toolbox.classical import CLASSICAL_TOOLS

LINES = {
    "ada": ["grounding_tool red-square ; video_retrieval red-square"],
    "bea": ["image_retrieval red-square ; video_retrieval red-square"],
    "cyd": ["rough_browser red-square ; video_retrieval red-square"],
    "dov": ["spatial_tool red-square ; video_retrieval red-square"],
}


@pytest.fixture
def toolbox():
    release = threading.Event()
    bad = {
        "grounding_tool": lambda context, **args: release.wait(30),
        "image_retrieval": lambda context, **args: bytearray(2**62),
        "rough_browser": lambda context, **args: {}["key"],
        "spatial_tool": lambda context, **args: sys.exit(1),
        "video_retrieval": lambda context, **args: ToolResult(text="red-square 9 15"),
    }
    tools = [replace(tool, function=bad[tool.name]) for tool in CLASSICAL_TOOLS if tool.name in bad]
    yield Toolbox(tools, look=lambda video, seconds: [], deadline_seconds=1.0)
    release.set()


def test_the_episodes_go_on(script, agents, samples, toolbox):
    plays = script(LINES)
    episodes = run(samples(2), agents(), plays.engine, toolbox, episodes=4, seed=0, topology=complete)
    assert len(episodes) == 8
    for episode in episodes:
        assert {name: one.answer is not None for name, one in episode.trajectories.items()} == dict.fromkeys(
            LINES, True
        )
        results = {name: one.results for name, one in episode.trajectories.items()}
        assert {name: [result.status for result in found] for name, found in results.items()} == {
            "ada": [Status.TOOL_TIMEOUT, Status.OK],
            **{name: [Status.TOOL_ERROR, Status.OK] for name in ("bea", "cyd", "dov")},
        }
        assert "MemoryError" in results["bea"][0].error
        assert "KeyError: 'key'" in results["cyd"][0].error
        assert "SystemExit: 1" in results["dov"][0].error
    counts = Counter(toolbox.counts)
    assert (counts.total(), counts["timeout"], counts["refused"]) == (64, 8, 0)
    assert counts["executed"] >= 3 * 2 + 2, (
        "a fault is not kept, so it may be made again; the good call ran once a video"
    )
