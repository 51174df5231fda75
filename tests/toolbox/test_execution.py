"""One call: tries, and results that are too much, through the runner; faults of a tool are in test_base.py."""

import threading
import time

import pytest

from m1lite.records import MediaRef, Status, ToolCall, ToolResult
from m1lite.toolbox import Toolbox, ToolContext, TransientToolError, tool
from m1lite.toolbox.execution import ResultCache, execute


class Moody:
    """A tool that does as told; it counts its executions."""

    def __init__(self):
        self.executions = 0
        self.release = threading.Event()

    def act(self, context: ToolContext, *, how: str, number: float = 0) -> ToolResult:
        """Do something.

        Args:
            context: the video.
            how: what to do.
            number: anything.
        """
        self.executions += 1
        return getattr(self, how)(context)

    def transient(self, context):
        if self.executions < 3:
            raise TransientToolError("the model loads")
        return ToolResult(text=f"after {self.executions}")

    def gone(self, context):
        raise TransientToolError("the model is gone")

    def reset(self, context):
        raise ConnectionResetError("by peer")

    def hungry(self, context):
        return ToolResult(text=str(len(bytearray(2**62))))

    def wordy(self, context):
        return ToolResult(text="x" * 100_001)

    def flickering(self, context):
        times = tuple(map(float, range(1025)))
        return ToolResult(text="many", media=(MediaRef(uri=context.video, timestamps=times, size=(8, 8)),))

    def halved(self, context):
        return ToolResult(text="half a pair: \ud83d.")

    def failed(self, context):
        return ToolResult(error="there is no sound")

    def silent(self, context):
        class Silent(Exception):
            def __str__(self):
                raise RuntimeError

        raise Silent

    def rambling(self, context):
        raise ValueError("x" * 10**6)

    def hang(self, context):
        self.release.wait(30)
        return ToolResult(text="late")


@pytest.fixture
def moody():
    moody = Moody()
    yield moody
    moody.release.set()


def box(moody, **limits):
    return Toolbox([tool(moody.act)], look=lambda video, seconds: [], **limits)


def act(toolbox, sample, how, **args):
    return toolbox.run([(sample, ToolCall(tool="act", args={"how": how, **args}))])[0]


def test_a_tool_that_says_so_is_tried_again(moody, sample):
    toolbox = box(moody)
    assert act(toolbox, sample, "transient").text == "after 3"
    assert moody.executions == 3
    assert act(toolbox, sample, "transient").cached


def test_tries_end(moody, sample):
    result = act(box(moody, tries=2), sample, "gone")
    assert result.error == "`act` failed on {'how': 'gone'}: TransientToolError: the model is gone"
    assert moody.executions == 2
    with pytest.raises(ValueError, match="`tries` must be at least 1, got 0"):
        box(moody, tries=0)


def test_no_try_begins_after_the_deadline(moody, sample):
    context = ToolContext(video=sample.video, duration=sample.duration, frames=None, look=None)
    result, _ = execute(tool(moody.act), context, {"how": "gone"}, tries=1000, due=time.monotonic() + 0.5)
    assert result.status is Status.TOOL_ERROR
    assert 1 <= moody.executions <= 3, "at 0, 0.1 and 0.3 s; the next would be at 0.7 s"


def test_no_other_fault_is_tried_again(moody, sample):
    """A connection may break after the tool has done its work."""
    assert "ConnectionResetError: by peer" in act(box(moody), sample, "reset").error
    assert moody.executions == 1


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("hungry", "`act` failed on {'how': 'hungry'}: MemoryError: "),
        ("wordy", "`act` returned 100001 characters, above the limit of 100000; ask for less."),
        ("flickering", "`act` returned 1025 frames, above the limit of 1024; ask for less."),
        ("failed", "there is no sound"),
        ("silent", "`act` failed on {'how': 'silent'}: Silent: (its text raises RuntimeError)"),
        ("rambling", "`act` failed on {'how': 'rambling'}: ValueError: " + "x" * 2000 + "..."),
    ],
)
def test_faults_are_results_and_the_next_call_goes_on(moody, sample, how, said):
    toolbox = box(moody)
    result = act(toolbox, sample, how)
    assert (result.status, result.error, result.text) == (Status.TOOL_ERROR, said, "")
    moody.executions = 2
    assert act(toolbox, sample, "transient").text == "after 3"


def test_a_text_can_be_written(moody, sample):
    assert act(box(moody), sample, "halved").text == "half a pair: ?."


def test_a_full_queue_is_an_error_result(moody, sample):
    toolbox, ended = box(moody, workers=1, max_waiting=2, deadline_seconds=30), []
    for number in range(5):
        call = ToolCall(tool="act", args={"how": "hang", "number": min(number, 3)})
        toolbox.submit([(sample, call)], ended.append)
    # One runs and two wait; the two others are equal, and neither may wait.
    assert [results[0].error for results in ended] == [
        "`act` was not called: too many calls wait already (`max_waiting`); try again later."
    ] * 2
    toolbox.submit([(sample, ToolCall(tool="act", args={"how": "hang"}))], ended.append)
    assert len(ended) == 2, "an equal call is joined, however full the queue"
    moody.release.set()
    deadline = time.monotonic() + 10
    while len(ended) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [results[0].text for results in ended[2:]] == ["late"] * 4
    assert toolbox.counts == {"executed": 3, "joined": 1, "cached": 0, "refused": 2, "timeout": 0}


def test_a_tool_that_always_hangs_stops_taking_threads(moody, sample):
    toolbox = box(moody, workers=8, deadline_seconds=0.5)
    calls = [(sample, ToolCall(tool="act", args={"how": "hang", "number": number})) for number in range(20)]
    before = threading.active_count()
    assert [result.status for result in toolbox.run(calls[:8])] == [Status.TOOL_TIMEOUT] * 8
    time.sleep(0.3)  # a thread's own clock starts a little after its worker's
    refused = toolbox.run(calls[8:])
    assert {result.error for result in refused} == {"`act` was not called: 8 calls of it hang; use another tool."}
    assert moody.executions == 8
    assert threading.active_count() - before <= 8 + 8 + 1
    assert toolbox.counts["refused"] == 12
    moody.release.set()
    deadline = time.monotonic() + 10
    while toolbox.run(calls[:1])[0].text != "late" and time.monotonic() < deadline:
        time.sleep(0.01)
    moody.executions = 5
    assert act(toolbox, sample, "transient").text == "after 6", "and is called again once its calls have ended"


def test_counts_say_how_calls_were_answered(moody, sample):
    toolbox = box(moody, deadline_seconds=0.5)
    call = ToolCall(tool="act", args={"how": "halved"})
    toolbox.run([(sample, call)] * 3)
    toolbox.run([(sample, call), (sample, ToolCall(tool="act", args={})), (sample, ToolCall(tool=["act"], args={}))])
    act(toolbox, sample, "hang")
    counts = toolbox.counts
    assert counts.pop("joined") + counts.pop("cached") == 3
    assert counts == {"executed": 1, "refused": 2, "timeout": 1}


def test_kept_results_are_bounded_in_number_and_size():
    cache = ResultCache(max_results=3, max_characters=10)
    for key in "abc":
        cache.keep(key, ToolResult(text="xx"))
    assert cache.get("a").text == "xx"
    cache.keep("d", ToolResult(text="yy"))
    assert [cache.get(key) is None for key in "abcd"] == [False, True, False, False]
    cache.keep("d", ToolResult(text="y" * 7))
    assert [cache.get(key) is None for key in "acd"] == [True, False, False]
    cache.keep("e", ToolResult(error="z" * 11))
    assert len(cache) == 0
    cache.keep("f", ToolResult(text="x" * 10))
    assert cache.get("f") is not None
