"""Tools of an MCP server as tools of agents: the schema is the server's, results become text and frames.

One line of YAML makes one, see served.py; the server's process is mcp_client.py's matter. Needs the extra ``mcp``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from m1lite.records import MediaRef, ToolResult
from m1lite.toolbox.arguments import Parameter, ToolArgumentError, shorten
from m1lite.toolbox.base import ToolContext
from m1lite.toolbox.execution import TransientToolError
from m1lite.toolbox.mcp_client import McpServer, McpServerError
from m1lite.toolbox.mcp_package import MCPError, Registry, jsonschema, types

_KINDS: dict[Any, type] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict,
}  # fmt: skip
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
_MAX_IMAGE_BYTES = 32 << 20
_MAX_IMAGE_PIXELS = 2**26
_MAX_NESTING = 8


class McpTool:
    """A ``Tool`` whose work an MCP server does: one that looks, not one that acts, since equal calls are made once.

    Where the server dies or hangs, the call is an error result; it is made again only if the server says that the tool
    changes nothing, or nothing more when called twice.

    Args:
        server: does the work.
        name: the tool's name there.
        video_argument: the argument of the tool that gets the episode's video; agents neither see nor give it.
        images: folder in which images that the tool returns are kept, by content, to be shown as frames; it must lie
            under the roots of the toolbox's policy, and stay as long as the run's episodes. ``None`` shows none.

    Raises:
        McpServerError: if the server does not start.
        ValueError: if it has no such tool or argument, or the tool's schema is none; lists what there is.
    """

    def __init__(
        self, server: McpServer, name: str, *, video_argument: str | None = None, images: str | None = None
    ) -> None:
        found = {tool.name: tool for tool in server.tools()}
        if name not in found:
            raise ValueError(f"{server!r} has no tool {name!r}; there are {', '.join(found) or 'none'}.")
        described = found[name]
        self.name = name
        self.description = " ".join((described.description or described.title or name).split())
        parameters = _parameters(described)
        known = [parameter.name for parameter in parameters]
        if video_argument is not None and video_argument not in known:
            raise ValueError(f"`video_argument` {video_argument!r} is none of the arguments of `{name}`: {known}.")
        self.parameters = tuple(entry for entry in parameters if entry.name != video_argument)
        hints = described.annotations
        self._safe_again = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
        self._server = server
        self._video_argument = video_argument
        self._images = None if images is None else Path(images)

    def __repr__(self) -> str:
        return f"McpTool({self.name} of {self._server!r})"

    def __call__(self, context: ToolContext, /, **args: Any) -> ToolResult:
        """Have the server run the tool.

        Raises:
            ToolArgumentError: if the server refuses the call.
            TransientToolError: if the server died and another call does no harm.
            McpServerError: if it died otherwise, does not start, fails, or misses its deadline.
        """
        given = args if self._video_argument is None else {**args, self._video_argument: context.video}
        try:
            result = self._server.call(self.name, given)
        except MCPError as refusal:
            said = f"`{self.name}` was refused by its server: {refusal.error.message}"
            if refusal.error.code == types.INVALID_PARAMS:
                raise ToolArgumentError(said) from None
            raise McpServerError(said, died=False) from None
        except McpServerError as fault:
            if fault.died and self._safe_again:
                raise TransientToolError(str(fault)) from None
            raise
        return self._read(result)

    def _read(self, result: types.CallToolResult) -> ToolResult:
        texts: list[str] = []
        media: list[MediaRef] = []
        for block in result.content:
            if isinstance(block, types.TextContent):
                texts.append(block.text)
            elif isinstance(block, types.ImageContent) and self._images is not None:
                media.append(_kept(self._images, block.data))
            else:
                texts.append(f"({block.type} not shown)")
        if not result.content and result.structured_content is not None:
            texts.append(json.dumps(result.structured_content))
        text = "\n".join(texts)
        if result.is_error:
            return ToolResult(error=text or f"`{self.name}` failed and said nothing.")
        return ToolResult(text=text, media=tuple(media))


@dataclass(frozen=True, slots=True)
class ForeignSchema:
    """A ``GivenSchema`` with all references replaced by what they name."""

    schema: Mapping[str, Any]

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with a value; ``None`` where it fits."""
        if _not_finite(value):
            return "it holds a number that is not finite"
        # The empty registry keeps a schema from having other documents fetched.
        checker = jsonschema.Draft202012Validator(self.schema, registry=Registry())
        fault = jsonschema.exceptions.best_match(checker.iter_errors(value))
        if fault is None:
            return None
        where = "".join(f"[{step!r}]" for step in fault.absolute_path)
        message = fault.message if len(fault.message) <= 200 else f"{fault.message[:200]}..."
        return f"{message}{f' at {where}' if where else ''}, got {shorten(value)}"


def _parameters(described: types.Tool) -> list[Parameter]:
    """Read the arguments of a tool out of its JSON schema."""
    schema = described.input_schema
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as fault:
        raise ValueError(f"The schema of the MCP tool {described.name!r} is none: {fault.message}.") from None
    required = set(schema.get("required", ()))
    parameters = []
    for name, written in schema.get("properties", {}).items():
        own = _resolved(written, definitions, _MAX_NESTING)
        own = own if isinstance(own, dict) else {}  # `true` allows anything
        parameters.append(
            Parameter(
                name=name,
                kind=_kind(own),
                description=str(own.get("description") or own.get("title") or name),
                required=name in required,
                default=own.get("default"),
                given=ForeignSchema(own),
            )
        )
    return parameters


def _resolved(node: Any, definitions: Mapping[str, Any], depth: int) -> Any:
    """Replace references to the tool's own definitions, to a depth where these nest; others match anything."""
    if isinstance(node, list):
        return [_resolved(entry, definitions, depth) for entry in node]
    if not isinstance(node, dict):
        return node
    target = node.get("$ref")
    if isinstance(target, str):
        found = definitions.get(target.rpartition("/")[2]) if depth and target.startswith("#/") else None
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return {**_resolved(found or {}, definitions, depth - 1), **_resolved(beside, definitions, depth)}
    return {key: _resolved(value, definitions, depth) for key, value in node.items()}


def _kind(schema: Mapping[str, Any]) -> type:
    """Tell the kind of a value, as grammars of calls need it; of several, the first that is not null."""
    for choice in [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        named = choice.get("type") if isinstance(choice, dict) else None
        for one in named if isinstance(named, list) else [named]:
            if one in _KINDS:
                return _KINDS[one]
    return str if "enum" in schema else dict


def _not_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_not_finite, value.values()))
    return isinstance(value, list | tuple) and any(map(_not_finite, value))


def _kept(folder: Path, data: str) -> MediaRef:
    """Store an image under the hash of its content and refer to it as a video of one frame.

    Raises:
        ToolArgumentError: if it is too large or none that can be shown.
    """
    if len(data) > _MAX_IMAGE_BYTES * 4 // 3:
        raise ToolArgumentError(
            f"The tool returned an image of more than {_MAX_IMAGE_BYTES} bytes, which is not shown."
        )
    try:
        content = base64.b64decode(data, validate=True)
        with Image.open(io.BytesIO(content), formats=tuple(_SUFFIXES)) as image:
            width, height, form = image.width, image.height, str(image.format)
            if width * height > _MAX_IMAGE_PIXELS:
                raise ToolArgumentError(f"The tool returned an image of {width} x {height} pixels, which is not shown.")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        if isinstance(fault, ToolArgumentError):
            raise
        raise ToolArgumentError(f"The tool returned an image that cannot be read ({fault}).") from None
    path = folder / f"{hashlib.sha256(content).hexdigest()}{_SUFFIXES[form]}"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.{id(data)}")
        draft.write_bytes(content)
        draft.replace(path)
    return MediaRef(uri=str(path), timestamps=(0.0,), size=(height, width))
