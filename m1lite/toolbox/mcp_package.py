"""The package ``mcp`` and what comes with it, or an error that names the extra; the other mcp files import it here."""

try:
    import jsonschema
    import mcp.types as types
    from mcp import Client, MCPError, StdioServerParameters, stdio_client
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
    from referencing import Registry
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"Tools for and from MCP need the package `mcp` ({missing}); install it with `pip install m1lite[mcp]`.",
        name="mcp",
    ) from missing

__all__ = [
    "Client",
    "MCPError",
    "Registry",
    "Server",
    "StdioServerParameters",
    "jsonschema",
    "stdio_client",
    "stdio_server",
    "types",
]
