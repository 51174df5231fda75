"""The process of an MCP server and the connection to it: started when needed, bounded, begun anew after it has died.

What its tools take and give is read in mcp_tools.py. Needs the extra ``mcp``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

from m1lite.toolbox.mcp_package import Client, MCPError, StdioServerParameters, stdio_client, types

T = TypeVar("T")
_GRACE_SECONDS = 5.0
"""Beyond a deadline, for the connection's own timeout to be told first."""
_PING_SECONDS = 1.0
_MAX_PAGES = 100


class McpServerError(RuntimeError):
    """A server that does not start, has died or does not answer; the text says which one and what to do."""

    def __init__(self, text: str, *, died: bool) -> None:
        super().__init__(text)
        self.died = died
        """Whether the process has ended; another call starts it anew."""


class McpServer:
    """An MCP server in a process of its own, over standard input and output.

    The process starts with the first use, and anew with the use after one that found it dead, after it was stopped
    because it no longer answered, and in a forked child. It ends with this object or with the program. Its standard
    error is the program's. Safe for threads: calls are under way side by side, as far as the server works so. The
    length of what it answers is bounded only where a result is read: a server is trusted as far as its command is.

    Args:
        command: the program and its arguments; no shell reads them.
        environment: variables of the process, besides a few such as PATH and HOME.
        folder: it works in.
        start_seconds: time to start and say what it is.
        call_seconds: time for the answer to one call. A server that then does not even answer a ping is stopped.
        max_memory_bytes: address space of the process, set with ``prlimit``; ``None`` sets no limit.

    Raises:
        ValueError: if the command is empty, or a number is too small.
        FileNotFoundError: if a limit of memory is asked for where there is no ``prlimit``.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
        start_seconds: float = 30.0,
        call_seconds: float = 30.0,
        max_memory_bytes: int | None = None,
    ) -> None:
        if not command or isinstance(command, str):
            raise ValueError(f"`command` must list a program and its arguments, got {command!r}.")
        if not (start_seconds > 0 and call_seconds > 0):
            raise ValueError(
                f"`start_seconds` and `call_seconds` must be above 0, got {start_seconds} and {call_seconds}."
            )
        self.command = tuple(map(str, command))
        self.start_seconds = start_seconds
        self.call_seconds = call_seconds
        program, *arguments = [*_limit(max_memory_bytes), *self.command]
        env = {str(name): str(value) for name, value in (environment or {}).items()}
        self._parameters = StdioServerParameters(command=program, args=arguments, env=env, cwd=folder)
        self._connection: _Connection | None = None
        self._opened: list[_Connection] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._opened)

    def __repr__(self) -> str:
        return f"McpServer({' '.join(self.command)})"

    def tools(self) -> list[types.Tool]:
        """List what the server offers.

        Raises:
            McpServerError: if it does not start or does not answer.
        """
        return self._ask(_list_tools)

    def call(self, name: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """Call a tool and wait for what it gives.

        Raises:
            McpServerError: if the server does not start, dies meanwhile, or misses the deadline.
        """
        return self._ask(partial(_call_tool, name, dict(arguments)))

    def close(self) -> None:
        """End the process; a later call starts it anew."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, request: Callable[[Client], Awaitable[T]]) -> T:
        connection = self._connected()
        try:
            return connection.run(request, self.call_seconds)
        except (TimeoutError, FutureTimeoutError):
            if not connection.answers():
                self._drop(connection)
                text = f"{self!r} did not answer within {self.call_seconds:g} s and hangs; it was stopped."
                raise McpServerError(text, died=False) from None
            text = f"{self!r} did not answer within {self.call_seconds:g} s (`call_seconds`)."
            raise McpServerError(text, died=False) from None
        except MCPError as fault:
            if not connection.lost(fault):
                raise
            self._drop(connection)
            raise McpServerError(f"{self!r} has died; another call starts it anew.", died=True) from None
        except CancelledError:
            raise McpServerError(f"{self!r} was stopped while it worked.", died=True) from None

    def _connected(self) -> _Connection:
        with self._lock:
            if self._connection is None or not self._connection.usable:
                self._connection = _Connection(self._parameters, self.start_seconds, repr(self))
                self._opened[:] = [self._connection]
            return self._connection

    def _drop(self, connection: _Connection) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None
        connection.close()


class _Connection:
    """A running server: a thread with an event loop, in which the session is open until it is closed.

    Raises:
        McpServerError: if the server does not start in time.
    """

    def __init__(self, parameters: StdioServerParameters, start_seconds: float, name: str) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._ready = threading.Event()
        self._client: Client | None = None
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._live, args=(parameters, start_seconds), name="mcp", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._client is None:
            late = isinstance(self._fault, TimeoutError)
            reason = f"it did not answer within {start_seconds:g} s (`start_seconds`)" if late else _told(self._fault)
            raise McpServerError(f"{name} does not start: {reason}.", died=False)

    @property
    def usable(self) -> bool:
        """Whether this process opened it and its thread lives."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def run(self, request: Callable[[Client], Awaitable[T]], seconds: float) -> T:
        """Make a request from any thread; raises ``TimeoutError``, ``CancelledError`` or what the request raises."""
        assert self._client is not None, "a connection without a client was never handed out"
        try:
            waiting = asyncio.run_coroutine_threadsafe(_within(request, self._client, seconds), self._loop)
        except RuntimeError:  # the loop has been closed
            raise CancelledError from None
        try:
            return waiting.result(seconds + _GRACE_SECONDS)
        except FutureTimeoutError:
            waiting.cancel()
            raise

    def answers(self) -> bool:
        """Whether the server still reads what it is sent."""
        try:
            self.run(_list_page, _PING_SECONDS)
        except (TimeoutError, FutureTimeoutError, CancelledError):
            return False
        except MCPError as fault:
            return not self.lost(fault)
        return True

    @staticmethod
    def lost(fault: MCPError) -> bool:
        """Whether an error says that the connection has ended."""
        return fault.error.code == types.CONNECTION_CLOSED

    def close(self) -> None:
        """Ask the server to end, then end it, within seconds; in a forked child do nothing."""
        if not self.usable or threading.current_thread() is self._thread:
            return
        try:
            self._loop.call_soon_threadsafe(self._closing.set)
        except RuntimeError:  # the loop has been closed
            return
        self._thread.join(3 * _GRACE_SECONDS)

    def _live(self, parameters: StdioServerParameters, start_seconds: float) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._hold(parameters, start_seconds))
        except BaseException as fault:
            self._fault = self._fault or fault
        finally:
            left = asyncio.all_tasks(self._loop)  # requests that were under way
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()
            self._ready.set()

    async def _hold(self, parameters: StdioServerParameters, start_seconds: float) -> None:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(start_seconds):
                    transport = stdio_client(parameters, errlog=sys.__stderr__ or sys.stderr)
                    self._client = await stack.enter_async_context(Client(transport))
            except BaseException as fault:
                self._fault = fault
                raise
            self._ready.set()
            await self._closing.wait()


def _close_all(opened: list[_Connection]) -> None:
    for connection in opened:
        connection.close()


async def _within(request: Callable[[Client], Awaitable[T]], client: Client, seconds: float) -> T:
    async with asyncio.timeout(seconds):
        return await request(client)


async def _list_page(client: Client) -> types.ListToolsResult:
    return await client.list_tools(cache_mode="refresh")


async def _list_tools(client: Client) -> list[types.Tool]:
    page = await client.list_tools()
    found = list(page.tools)
    for _ in range(_MAX_PAGES):
        if page.next_cursor is None:
            break
        page = await client.list_tools(cursor=page.next_cursor)
        found += page.tools
    return found


async def _call_tool(name: str, arguments: dict[str, Any], client: Client) -> types.CallToolResult:
    return await client.call_tool(name, arguments)


def _limit(max_memory_bytes: int | None) -> list[str]:
    if max_memory_bytes is None:
        return []
    if max_memory_bytes < 1:
        raise ValueError(f"`max_memory_bytes` must be at least 1, got {max_memory_bytes}.")
    program = shutil.which("prlimit")
    if program is None:
        raise FileNotFoundError("`max_memory_bytes` needs the program `prlimit` (package util-linux); install it.")
    return [program, f"--as={max_memory_bytes}", "--"]


def _told(fault: BaseException | None) -> str:
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return f"{type(fault).__name__}: {fault}"
