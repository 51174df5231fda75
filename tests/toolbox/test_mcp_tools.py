"""Agents' calls that a real MCP server in another process answers, over stdio, through the runner."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from m1lite.records import Status, ToolCall
from m1lite.toolbox import Toolbox, json_schema
from m1lite.toolbox.mcp_client import McpServer, McpServerError
from m1lite.toolbox.mcp_tools import ForeignSchema, McpTool
from m1lite.toolbox.served import mcp_tool
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels

WORKER = Path(__file__).with_name("mcp_worker.py")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server for the tests that leave it alive, with short deadlines."""
    server = McpServer(_command(tmp_path_factory.mktemp("served")), call_seconds=1.0)
    yield server
    server.close()


def _command(folder):
    return [sys.executable, str(WORKER), str(folder / "starts")]


@pytest.fixture
def run(sample):
    def run(tool, **args):
        toolbox = tool if isinstance(tool, Toolbox) else Toolbox([tool], look=lambda video, seconds: [])
        return toolbox.run([(sample, ToolCall(tool=toolbox.names[0], args=args))])[0]

    return run


def test_the_schema_is_the_servers(served):
    function = json_schema(McpTool(served, "add"))["function"]
    assert (function["name"], function["description"]) == ("add", "Add two numbers.")
    properties = function["parameters"]["properties"]
    assert function["parameters"]["required"] == ["first"]
    assert (properties["first"]["type"], properties["second"]["maximum"]) == ("integer", 9)
    assert properties["second"]["description"] == "what is added"
    assert [parameter.kind for parameter in McpTool(served, "add").parameters] == [int, int]
    parts = json_schema(McpTool(served, "gather"))["function"]["parameters"]["properties"]["parts"]
    assert parts["items"]["properties"]["weight"]["type"] == "number", "references are replaced by what they name"
    assert [parameter.kind for parameter in McpTool(served, "gather").parameters] == [list, list, str]


def test_calls_are_answered(served, run):
    assert run(McpTool(served, "add"), first=1).text.startswith("3 by ")
    parts = [{"name": "wheel", "weight": 2}, {"name": "bell"}]
    assert run(McpTool(served, "gather"), parts=parts, tags=["a"], mode="max").text == "['wheel', 'bell'] ['a'] 2.0"
    assert run(McpTool(served, "nest"), root={"children": [{}, {}]}, context=7).text == "2 7"


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("add", {}, "`add` needs `first`: First It takes first [second]."),
        ("add", {"first": "x"}, "`first` of `add` does not fit its schema: 'x' is not of type 'integer', got 'x'."),
        ("add", {"first": 1, "second": 10}, "10 is greater than the maximum of 9, got 10."),
        ("add", {"first": 1, "third": 10}, "`add` has no argument 'third'; it takes first [second]."),
        ("gather", {"parts": [{"weight": 1}]}, "'name' is a required property at [0], got [{'weight': 1}]."),
        ("gather", {"parts": [{"name": "a", "weight": float("nan")}]}, "it holds a number that is not finite."),
        ("gather", {"parts": [], "mode": "min"}, "'min' is not one of ['sum', 'max'], got 'min'."),
        ("gather", {"parts": [{"name": "x" * 10**7}]}, "The arguments of `gather` are too large"),
    ],
)
def test_wrong_arguments_never_reach_the_server(served, run, monkeypatch, name, args, said):
    tool = McpTool(served, name)
    monkeypatch.setattr(served, "call", None)
    result = run(tool, **args)
    assert result.status is Status.TOOL_ERROR
    assert said in result.error


def test_deep_arguments_are_refused(served, run):
    root: dict = {}
    for _ in range(50_000):
        root = {"children": [root]}
    assert "are too large" in run(McpTool(served, "nest"), root=root).error


def test_a_schema_fetches_nothing():
    """A reference to another document matches nothing, and nobody is asked for it."""
    remote = ForeignSchema({"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(Exception, match=r"schema\.json") as fault:
        remote.problem(1)
    assert "Unresolvable" in type(fault.value).__name__ or "WrappedReferencing" in type(fault.value).__name__


def test_the_video_is_bound_by_the_episode(served, run, sample):
    tool = McpTool(served, "open_clip", video_argument="path")
    assert list(json_schema(tool)["function"]["parameters"]["properties"]) == ["at"]
    assert run(tool, at=2).text == f"{Path(sample.video).name} at 2.0"
    assert run(tool, at=2, path="/etc/passwd").error == "`open_clip` has no argument 'path'; it takes at."


def test_equal_calls_ask_the_server_once(served, run):
    toolbox = Toolbox([McpTool(served, "gather")], look=lambda video, seconds: [])
    for _ in range(2):
        run(toolbox, parts=[{"name": "a", "weight": 1}], tags=["x", "y"])
    assert toolbox.counts["cached"] == 1


def test_a_failing_tool_is_an_error_result(served, run):
    result = run(McpTool(served, "fail"))
    assert result.status is Status.TOOL_ERROR
    assert "there is no sound" in result.error


def test_a_hanging_tool_is_an_error_result_and_the_server_goes_on(served, run):
    before = run(McpTool(served, "add"), first=1).text
    result = run(McpTool(served, "dawdle"))
    assert "did not answer within 1 s (`call_seconds`)" in result.error
    assert run(McpTool(served, "add"), first=1).text == before, "the same process"


def test_calls_are_under_way_side_by_side(served, run):
    results = []
    slow = threading.Thread(target=lambda: results.append(run(McpTool(served, "dawdle"))))
    slow.start()
    time.sleep(0.2)
    results.append(run(McpTool(served, "add"), first=4))
    slow.join(20)
    assert [result.error is None for result in results] == [True, False], "the quick one ended first"


def test_images_become_frames_where_there_is_a_place_for_them(served, run, tmp_path):
    assert run(McpTool(served, "picture"), side=12).text == "a square\n(image not shown)"
    tool = McpTool(served, "picture", images=str(tmp_path / "images"))
    results = [run(tool, side=12), run(tool, side=12), run(tool, side=20)]
    first, again, other = (result.media[0] for result in results)
    assert results[0].text == "a square"
    assert first == again != other
    assert (first.timestamps, first.size, other.size) == ((0.0,), (8, 12), (8, 20))
    pixels = media_pixels(FrameCache(10**6), first)
    assert pixels.shape == (1, 3, 8, 12)
    assert (pixels == 51).all()


def test_a_crash_is_an_error_result_and_the_server_is_started_anew(tmp_path, run):
    server = McpServer(_command(tmp_path))
    result = run(McpTool(server, "crash"))
    assert result.error.endswith("has died; another call starts it anew.")
    assert (tmp_path / "starts").read_text() == ".", "a tool that may change something is not called again"
    assert run(McpTool(server, "crash_twice")).text == "start 3", "one that changes nothing is"
    add = McpTool(server, "add")
    os.kill(int(run(add, first=1).text.split()[-1]), signal.SIGKILL)
    assert run(add, first=1).error.endswith("has died; another call starts it anew."), "while nobody called"
    assert run(add, first=1).text.startswith("3 by ")
    server.close()


def test_a_server_that_hangs_whole_is_stopped(tmp_path, run):
    server = McpServer(_command(tmp_path), call_seconds=0.5)
    add, block = McpTool(server, "add"), McpTool(server, "block")
    before = run(add, first=1).text
    assert "did not answer within 0.5 s and hangs; it was stopped." in run(block).error
    after = run(add, first=1).text
    assert after.split()[0] == before.split()[0] == "3"
    assert after != before, "another process"
    with pytest.raises(ProcessLookupError):
        _alive(before)
    server.close()
    with pytest.raises(ProcessLookupError):
        _alive(after)


def _alive(text):
    os.kill(int(text.split()[-1]), 0)


def test_memory_is_bounded(tmp_path, run):
    """In a thread only the machine would be the limit."""
    server = McpServer(_command(tmp_path), max_memory_bytes=2 * 2**30)
    hoard = McpTool(server, "hoard")
    assert run(hoard, gigabytes=0.1).text == "107374182 bytes"
    assert run(hoard, gigabytes=4).status is Status.TOOL_ERROR
    assert run(hoard, gigabytes=0.2).error is None
    server.close()


def test_servers_that_do_not_start_say_why(tmp_path):
    with pytest.raises(McpServerError, match=r"McpServer\(/no/such\) does not start: FileNotFoundError"):
        McpServer(["/no/such"]).tools()
    with pytest.raises(McpServerError, match=r"does not start: it did not answer within 0\.5 s \(`start_seconds`\)"):
        McpServer(["sleep", "30"], start_seconds=0.5).tools()
    with pytest.raises(McpServerError, match=r"McpServer\(true\) does not start: "):
        McpServer(["true"]).tools()
    with pytest.raises(ValueError, match=r"`command` must list a program and its arguments, got 'python x'"):
        McpServer("python x")
    with pytest.raises(ValueError, match=r"must be above 0, got 30.0 and 0"):
        McpServer(["true"], call_seconds=0)


def test_unknown_names_list_what_exists(served):
    with pytest.raises(ValueError, match=r"has no tool 'sub'; there are add, gather, "):
        McpTool(served, "sub")
    with pytest.raises(ValueError, match=r"`video_argument` 'video' is none of the arguments of `add`: \['first', 'se"):
        McpTool(served, "add", video_argument="video")


def test_tools_of_a_configuration_share_a_process(tmp_path, run):
    from hydra.utils import instantiate

    lines = {
        name: {"_target_": "m1lite.toolbox.served.mcp_tool", "name": name, "command": _command(tmp_path)}
        for name in ("add", "fail")
    }
    tools = instantiate({"_target_": "m1lite.configuration.listed", **lines})
    assert [tool.name for tool in tools] == ["add", "fail"]
    assert (tmp_path / "starts").read_text() == "."
    assert run(mcp_tool("add", _command(tmp_path)), first=5).text.startswith("7 by ")
    assert (tmp_path / "starts").read_text() == "."
