"""Replies of a language model behind an OpenAI-compatible endpoint, such as ``vllm serve``, by plain HTTP.

Every chat has a deadline and a bounded number runs at a time. Nothing here knows what is asked: judges do so in
``rewards/``, tools in ``backends/viewers.py``.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from m1lite.toolbox.workers import Workers

Chat = Sequence[Mapping[str, Any]]
"""Messages with ``role`` and ``content``, the latter a text or a list of parts as the endpoints take them."""

_DEFAULTS = {"temperature": 0, "max_tokens": 1024}
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may pass."""
_MAX_BYTES = 4 << 20
_MAX_ERROR_BYTES = 2000
_FIRST_WAIT_SECONDS = 0.5


@dataclass(kw_only=True, slots=True, frozen=True)
class Reply:
    """What a model said, or why it said nothing."""

    text: str | None = None
    problem: str = ""
    """The kind of failure in one or two words, to count it by; empty where there is a text."""
    detail: str = ""
    """More of it, for people to read; never a secret."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host, so it is a failure."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class ChatEndpoint:
    """Posts chats to ``<base_url>/chat/completions``.

    A connection that breaks and a status that may pass (429, 5xx) are tried again within the deadline; ``Retry-After``
    is kept. Where an endpoint does not answer at all, the chats of a call that still wait are not sent. Proxies are
    taken from the environment, redirects are not followed, and the key appears in no message.

    Args:
        base_url: http or https, up to and with the version, as in ``http://127.0.0.1:8000/v1``.
        model: its name at the endpoint.
        api_key_variable: name of the environment variable that holds the key; None sends none.
        deadline_seconds: for one chat, all tries together; waiting for a free place does not count.
        workers: chats in flight at a time, in each process.
        tries: of one chat, at least 1.
        options: further fields of the request, over the defaults ``temperature`` 0 and ``max_tokens`` 1024; None as a
            value leaves a field out.

    Raises:
        ValueError: if the URL cannot be used, the variable is not set or holds no key, or a number is too small.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key_variable: str | None = None,
        deadline_seconds: float = 60.0,
        workers: int = 8,
        tries: int = 3,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        _check_url(base_url)
        if tries < 1:
            raise ValueError(f"`tries` is {tries}; a prompt is sent at least 1 time.")
        self.model = model
        self.deadline_seconds = deadline_seconds
        self.tries = tries
        self.workers = workers
        fields = {**_DEFAULTS, **_plain(options or {})}
        self.options = {name: value for name, value in fields.items() if value is not None}
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._key = None if api_key_variable is None else _read_key(api_key_variable)
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._workers: Workers[Reply] = Workers(num_workers=workers, deadline_seconds=deadline_seconds)

    def __repr__(self) -> str:
        return f"ChatEndpoint({self.model!r} at {self._url})"

    @property
    def identity(self) -> str:
        """Model and options; where the endpoint stands changes no reply."""
        return json.dumps({"model": self.model, **self.options}, sort_keys=True)

    def __call__(self, chats: Sequence[Chat]) -> list[Reply]:
        """Reply to each chat, in the order given; a failure is a reply without a text."""
        health = _Health(limit=2 * self.workers)
        ended: SimpleQueue[tuple[int, Reply | None]] = SimpleQueue()

        def note(row: int, reply: Reply | None, shared: bool) -> None:
            ended.put((row, reply))

        for row, chat in enumerate(chats):
            self._workers.submit((id(health), row), partial(self._ask, chat, health), partial(note, row))
        replies: dict[int, Reply] = {}
        for _ in chats:
            row, reply = ended.get()
            if reply is None:
                health.note(answered=False)
                reply = Reply(problem="deadline", detail=self._late())
            replies[row] = reply
        return [replies[row] for row in range(len(chats))]

    def _ask(self, chat: Chat, health: _Health) -> Reply:
        if health.gone:
            return Reply(problem="not sent", detail=f"{self._url} did not answer {health.limit} prompts in a row")
        due = time.monotonic() + self.deadline_seconds
        body = json.dumps({"model": self.model, "messages": list(chat), **self.options}).encode()
        wait = _FIRST_WAIT_SECONDS
        for left in reversed(range(self.tries)):
            reply, again_after = self._post(body, due)
            if again_after is None or not left:
                break
            pause = max(wait, again_after)
            if time.monotonic() + pause >= due:
                break
            time.sleep(pause)
            wait *= 2
        health.note(answered=reply.problem not in ("deadline", "connection"))
        return self._without_key(reply)

    def _post(self, body: bytes, due: float) -> tuple[Reply, float | None]:
        """Send one request; the second value is the least seconds to wait, None where another try would not help."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, data=body, headers=headers)
        try:
            with self._opener.open(request, timeout=max(due - time.monotonic(), 0.001)) as response:
                return _content(_read(response, due)), None
        except urllib.error.HTTPError as error:
            with error:
                detail, after = _error_text(error), _retry_after(error)
            reply = Reply(problem=f"status {error.code}", detail=f"{self._url} said {detail}")
            return reply, after if error.code in _AGAIN else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= due or isinstance(getattr(error, "reason", error), TimeoutError):
                return Reply(problem="deadline", detail=self._late()), None
            return Reply(problem="connection", detail=f"{self._url}: {type(error).__name__}: {error}"), 0.0

    def _late(self) -> str:
        return f"{self._url} took more than {self.deadline_seconds:g} s (`deadline_seconds`)"

    def _without_key(self, reply: Reply) -> Reply:
        """Take the key out of what a server or a library wrote."""
        if self._key is None:
            return reply
        text = None if reply.text is None else reply.text.replace(self._key, "[key]")
        return Reply(text=text, problem=reply.problem, detail=reply.detail.replace(self._key, "[key]"))


class _Health:
    """Counts the chats of one call that an endpoint left unanswered in a row."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._silent = 0
        self._lock = threading.Lock()

    @property
    def gone(self) -> bool:
        return self._silent >= self.limit

    def note(self, *, answered: bool) -> None:
        with self._lock:
            self._silent = 0 if answered else self._silent + 1


def _check_url(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("`base_url` holds a user name or a password; give the key with `api_key_variable` instead.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"`base_url` is {base_url!r}; it must be like http://host:8000/v1, without ? or #.")


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"`api_key_variable` names {variable!r}, which is not set in the environment; set it to the endpoint's "
            "key, or give null for an endpoint without one."
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"The environment variable {variable!r} holds blanks or signs that no key has; set it anew.")
    return key


def _read(response: http.client.HTTPResponse, due: float) -> bytes:
    """Read a body piece by piece, so that one that trickles in meets the deadline too."""
    pieces, size = [], 0
    while piece := response.read1(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() >= due:
            raise TimeoutError
        if size > _MAX_BYTES:
            raise ValueError(f"the reply has more than {_MAX_BYTES} bytes")
    if response.length:  # read1 gives no error where the connection ended early
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(pieces)


def _content(body: bytes) -> Reply:
    """Take the text out of a chat completion."""
    try:
        choice = json.loads(body)["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Reply(problem="shape", detail=f"no chat completion but {body[:200]!r}")
    if reason == "length":
        return Reply(problem="cut", detail="the reply reached the limit of tokens; give more in `options`")
    if not isinstance(text, str) or not text.strip():
        return Reply(problem="shape", detail=f"the message holds no text but {text!r:.200}")
    return Reply(text=text)


def _error_text(error: urllib.error.HTTPError) -> str:
    try:
        return f"{error.code} {error.reason} {error.read(_MAX_ERROR_BYTES)!r:.300}"
    except (OSError, http.client.HTTPException, ValueError):
        return f"{error.code} {error.reason}"


def _retry_after(error: urllib.error.HTTPError) -> float:
    try:
        seconds = float(error.headers.get("Retry-After", 0))
    except (TypeError, ValueError):  # the header may be a date
        return 0.0
    return seconds if seconds > 0 else 0.0


def _plain(value: Any) -> Any:
    """Turn configuration containers into dictionaries and lists, which JSON can write."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
