"""One line of YAML for a tool that another program serves over MCP; what it does is in mcp_tools.py and mcp_client.py.

It loads neither before it is called, so that a missing package is told by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m1lite.toolbox.sharing import shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.toolbox.mcp_tools import McpTool


def mcp_tool(
    name: str,
    command: Sequence[str],
    *,
    video_argument: str | None = None,
    images: str | None = None,
    **process: Any,
) -> McpTool:
    """Make one tool of the server that a command starts; tools of equal commands share one process.

    Args:
        name: the tool's name there.
        command: the program and its arguments.
        video_argument: see :class:`~m1lite.toolbox.mcp_tools.McpTool`.
        images: see :class:`~m1lite.toolbox.mcp_tools.McpTool`.
        process: further arguments of :class:`~m1lite.toolbox.mcp_client.McpServer`.

    Raises:
        McpServerError: if the server does not start.
        ModuleNotFoundError: if the package ``mcp`` is missing; names the extra.
        ValueError: as :class:`~m1lite.toolbox.mcp_tools.McpTool` and :class:`~m1lite.toolbox.mcp_client.McpServer` do.
    """
    from m1lite.toolbox.mcp_client import McpServer
    from m1lite.toolbox.mcp_tools import McpTool

    server = shared(McpServer, command=list(command), **process)
    return McpTool(server, name, video_argument=video_argument, images=images)
