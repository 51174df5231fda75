"""``python -m m1lite.toolbox.serve`` in a process of its own, and the official client over stdio."""

import base64
import io
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from PIL import Image

from m1lite.configuration import ConfigError, check, compose
from m1lite.records import ToolCall
from m1lite.toolbox import Toolbox, json_schema
from m1lite.toolbox.clips import clip_tool
from m1lite.toolbox.mcp_client import McpServer
from m1lite.toolbox.mcp_tools import McpTool
from m1lite.toolbox.serve import serve
from m1lite.video.writer import write_video

SERVE = [sys.executable, "-m", "m1lite.toolbox.serve"]
OWN_TOOLS = """
    import os, time
    from m1lite.records import ToolResult
    from m1lite.toolbox import ToolContext, tool

    @tool
    def hang(context: ToolContext) -> ToolResult:
        '''Hang.'''
        time.sleep(60)

    @tool
    def chatter(context: ToolContext) -> ToolResult:
        '''Print where the protocol is.'''
        print("{")
        os.write(1, b"noise")
        return ToolResult(text=f"{os.path.basename(context.video)} {context.duration:g}")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video whose second n has the grey level 20 n, 100 pixels wide, and tools of one's own."""
    folder = tmp_path_factory.mktemp("serve")
    levels = torch.arange(4).repeat_interleave(4) * 20
    pixels = levels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 48, 100).contiguous()
    write_video(folder / "grey.mp4", pixels, fps=4)
    (folder / "own_tools.py").write_text(textwrap.dedent(OWN_TOOLS))
    return folder


def command(folder):
    own = [
        f"+toolbox.tools.{name}={{_target_: hydra.utils.get_object, path: own_tools.{name}}}"
        for name in ("hang", "chatter")
    ]
    return [*SERVE, f"video={folder}/grey.mp4", "toolbox.deadline_seconds=2", "max_side=50", *own]


@pytest.fixture(scope="module")
def served(folder):
    server = McpServer(command(folder), environment={"PYTHONPATH": str(folder)}, start_seconds=120, call_seconds=30)
    yield server
    server.close()


def said(result):
    return result.content[0].text


@pytest.mark.slow
def test_the_tools_are_those_of_the_configuration(served):
    offered = {tool.name: tool for tool in served.tools()}
    assert list(offered) == ["video_clip", "crop_video", "zoom", "get_frames", "hang", "chatter"]
    expected = json_schema(clip_tool("zoom", max_frames=16))["function"]
    assert offered["zoom"].description == expected["description"]
    assert offered["zoom"].input_schema == expected["parameters"]
    assert offered["zoom"].annotations.read_only_hint


def test_frames_are_images(served):
    result = served.call("get_frames", {"times": [1, 3]})
    assert not result.is_error
    text, *images = result.content
    assert text.text == "2 frames at 1, 3 seconds"
    for image, level in zip(images, (20, 60), strict=True):
        assert image.mime_type == "image/jpeg"
        with Image.open(io.BytesIO(base64.b64decode(image.data))) as shown:
            assert shown.size == (50, 24)
            assert all(abs(value - level) <= 4 for value in shown.getpixel((10, 10)))


def test_what_tools_print_does_not_disturb_the_protocol(served):
    assert said(served.call("chatter", {})) == "grey.mp4 4"


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("get_frames", {}, "`get_frames` needs `times`: seconds of the frames."),
        ("get_frames", {"times": [4.5]}, "`times` holds 4.5, outside of the video, which lasts from 0 to 4 seconds."),
        ("get_frames", {"times": [-1]}, "`times` holds -1, outside of the video"),
        ("get_frames", {"times": ["../../etc/passwd"]}, "`times` of `get_frames` must be a list of numbers"),
        ("get_frames", {"times": [0], "video": "/etc/passwd"}, "`get_frames` has no argument 'video'; it takes times."),
        ("get_frames", {"times": [0.5] * 10**6}, "The arguments of `get_frames` are too large"),
        ("chatter", {"x" * 10**7: 1}, "The arguments of `chatter` are too large"),
        ("/etc/passwd", {}, "There is no tool '/etc/passwd'; there are video_clip, crop_video, zoom, get_frames, hang"),
        ("hang", {}, "`hang` did not finish within its deadline of 2 s"),
    ],
)
def test_what_is_wrong_is_an_error_result_and_the_server_goes_on(served, name, args, message):
    result = served.call(name, args)
    assert result.is_error
    assert message in said(result)
    assert said(served.call("chatter", {})) == "grey.mp4 4"


def test_an_agent_sees_what_the_server_shows(served, sample, tmp_path):
    """Both directions in one: a tool of this toolbox, over MCP, as a tool of another toolbox."""
    tool = McpTool(served, "video_clip", images=str(tmp_path))
    toolbox = Toolbox([tool], look=lambda video, seconds: [])
    (result,) = toolbox.run([(sample, ToolCall(tool="video_clip", args={"start": 0, "end": 4, "fps": 1}))])
    assert result.error is None
    assert len(result.media) == 4
    assert {media.size for media in result.media} == {(24, 50)}


@pytest.mark.slow
def test_lines_that_are_no_messages(folder):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
    }  # fmt: skip
    deep = '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"chatter","arguments":{"x":'
    call = {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "chatter", "arguments": {}}}
    lines = [
        json.dumps(hello),
        '{"jsonrpc":"2.0","method":"notifications/initialized"}',
        deep + "[" * 100_000 + "]" * 100_000 + "}}}",
        "}{",
        "\0\ufffd",
        '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":["chatter"],"arguments":7}}',
        json.dumps(call),
    ]
    with subprocess.Popen(
        command(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        process.stdin.write("\n".join(lines) + "\n")
        process.stdin.flush()
        answers = {}
        while 4 not in answers:
            answer = json.loads(process.stdout.readline())
            answers[answer.get("id")] = answer
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(30) == 0
    said = "The tools look at one video of 4 seconds. Times are seconds from 0 to 4."
    assert answers[1]["result"]["instructions"] == said
    assert answers[4]["result"]["content"][0]["text"] == "grey.mp4 4"
    assert "error" in answers[3]


@pytest.mark.slow
def test_the_policy_holds_for_the_servers_own_video(folder, tmp_path):
    arguments = [f"video={folder}/grey.mp4", f"toolbox.frames.opener.policy.roots=[{tmp_path}]"]
    done = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert "grey.mp4': it is outside of the roots" in done.stderr


def test_a_wrong_start_says_why(folder, monkeypatch, capsys):
    with pytest.raises(ConfigError, match=r"`video` has no value; give `video=\.\.\.`"):
        check(compose([], config_name="serve"))
    for name in [name for name in sys.modules if name.startswith("m1lite.toolbox.mcp_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(SystemExit) as end:
        serve(compose([f"video={folder}/grey.mp4"], config_name="serve"))
    assert end.value.code == 2
    assert "install it with `pip install m1lite[mcp]`." in capsys.readouterr().err
    line = {"_target_": "m1lite.toolbox.served.mcp_tool", "name": "ocr", "command": ["true"]}
    with pytest.raises(
        InstantiationException, match=r"need the package `mcp` .*; install it with `pip install m1lite\[m"
    ):
        instantiate(line)
