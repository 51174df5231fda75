"""Offer a toolbox to MCP clients: its tools, on one video. The program is serve.py; the other way is mcp_tools.py.

Which video it is, the client can neither say nor change. Needs the extra ``mcp``.
"""

from __future__ import annotations

import asyncio
import base64
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from m1lite.records import Answer, Sample, Task, ToolCall
from m1lite.toolbox.base import json_schema
from m1lite.toolbox.mcp_package import Server, stdio_server, types
from m1lite.toolbox.wording import number
from m1lite.video.base import VideoError
from m1lite.video.media import media_pixels

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.records import MediaRef, ToolResult
    from m1lite.toolbox.base import Toolbox
    from m1lite.video.cache import FrameCache

_READ_ONLY = types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_JPEG_QUALITY = 90


def make_server(toolbox: Toolbox, video: str, *, max_side: int = 768) -> Server[Any]:
    """Make a server of all tools of a toolbox.

    Args:
        toolbox: runs the calls, with its checks of arguments, deadline and cache; has ``frames``.
        video: path or URI; the toolbox's policy must allow it.
        max_side: pixels of the longer side of frames that a tool shows; larger ones are made smaller.

    Returns:
        A server whose results are text and JPEG images. A refused call, a failed tool and a missed deadline are
        results with ``is_error``, as the protocol asks for.

    Raises:
        VideoError: if the video cannot be read or is refused.
        ValueError: if the toolbox decodes no videos, or ``max_side`` is below 1.
    """
    if toolbox.frames is None:
        raise ValueError("The toolbox has no `frames`, so it reads no videos; give it a `FrameCache`.")
    if max_side < 1:
        raise ValueError(f"`max_side` must be at least 1, got {max_side}.")
    frames = toolbox.frames
    duration = frames.metadata(video).duration
    sample = Sample(id="served", video=video, duration=duration, task=Task.CHOICE, question="", answer=Answer())
    offered = [_described(toolbox, name) for name in toolbox.names]

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=offered)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[ToolResult] = loop.create_future()

        def settle(results: list[ToolResult]) -> None:
            loop.call_soon_threadsafe(_settle, ended, results[0])

        call = ToolCall(tool=params.name, args={} if params.arguments is None else params.arguments)
        toolbox.submit([(sample, call)], settle)
        return await asyncio.to_thread(_written, await ended, frames, max_side)

    seconds = number(duration)
    return Server(
        "m1lite",
        instructions=f"The tools look at one video of {seconds} seconds. Times are seconds from 0 to {seconds}.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def run_stdio(server: Server[Any]) -> None:
    """Serve one client over standard input and output until it closes them; prints go to standard error meanwhile."""
    asyncio.run(_run_stdio(server))


async def _run_stdio(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def _described(toolbox: Toolbox, name: str) -> types.Tool:
    function = json_schema(toolbox[name])["function"]
    return types.Tool(
        name=name, description=function["description"], input_schema=function["parameters"], annotations=_READ_ONLY
    )


def _settle(ended: asyncio.Future[ToolResult], result: ToolResult) -> None:
    if not ended.done():  # the client may have taken its request back
        ended.set_result(result)


def _written(result: ToolResult, frames: FrameCache, max_side: int) -> types.CallToolResult:
    """Write a result as the protocol has it: a text, then the frames in their order."""
    if result.error is not None:
        return _failed(result.error)
    try:
        images = [image for media in result.media for image in _images(frames, media, max_side)]
    except (VideoError, ValueError) as fault:
        return _failed(str(fault))
    return types.CallToolResult(content=[types.TextContent(text=result.text), *images])


def _failed(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


def _images(frames: FrameCache, media: MediaRef, max_side: int) -> list[types.ImageContent]:
    share = min(1.0, max_side / max(media.size))
    height, width = (max(round(side * share), 1) for side in media.size)
    pixels = media_pixels(frames, replace(media, size=(height, width)))
    return [types.ImageContent(data=_jpeg(one), mime_type="image/jpeg") for one in pixels.cpu()]


def _jpeg(pixels: Tensor) -> str:
    """Encode uint8 ``(3, H, W)``."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(file, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(file.getvalue()).decode()
