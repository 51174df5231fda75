"""An MCP server with tools that work, hang, crash, and take all memory; tests start it as a process of its own."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Literal

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

server = MCPServer("worker")


class Part(BaseModel):
    name: str
    weight: float = 1.0


class Node(BaseModel):
    children: list["Node"] = []


@server.tool()
def add(first: int, second: int = Field(2, ge=0, le=9, description="what is added")) -> str:
    """Add two numbers."""
    return f"{first + second} by {os.getpid()}"


@server.tool()
def gather(parts: list[Part], tags: list[str] | None = None, mode: Literal["sum", "max"] = "sum") -> str:
    """Gather parts."""
    gathered = {"sum": sum, "max": max}[mode](part.weight for part in parts)
    return f"{[part.name for part in parts]} {tags} {gathered}"


@server.tool()
def nest(root: Node, context: int = 0) -> str:
    """Take what nests itself, and an argument of the name that the runner uses."""
    return f"{len(root.children)} {context}"


@server.tool()
def open_clip(path: str, at: float) -> str:
    """Name a video."""
    return f"{Path(path).name} at {at}"


@server.tool()
async def dawdle() -> str:
    """Hang, but go on reading requests."""
    await asyncio.sleep(60)
    return "never"


@server.tool()
async def block() -> str:
    """Hang whole."""
    time.sleep(60)
    return "never"


@server.tool()
def crash() -> str:
    """Die."""
    os._exit(3)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def crash_twice() -> str:
    """Die until the third start."""
    if starts.stat().st_size < 3:
        os._exit(3)
    return f"start {starts.stat().st_size}"


@server.tool()
def fail() -> str:
    """Raise."""
    raise ToolError("there is no sound")


@server.tool()
def hoard(gigabytes: float) -> str:
    """Take memory."""
    return f"{len(bytearray(int(gigabytes * 2**30)))} bytes"


@server.tool()
def picture(side: int) -> list[str | Image]:
    """Draw a grey square."""
    import io

    import PIL.Image

    file = io.BytesIO()
    PIL.Image.new("RGB", (side, 8), (51, 51, 51)).save(file, "PNG")
    return ["a square", Image(data=file.getvalue(), format="png")]


if __name__ == "__main__":
    starts = Path(sys.argv[1])
    """A file that grows by one byte with every start of this server."""
    with starts.open("ab") as counted:
        counted.write(b".")
    server.run()
