"""One vLLM server seen over HTTP: what it serves, replies as token ids, adapters by name; all within deadlines.

It speaks to what ``vllm serve --enable-scale-out`` offers and imports no vllm. Several of them are one in ``fleet.py``.
"""

from __future__ import annotations

import http.client
import json
import math
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from m1lite.engines.base import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_BYTES = 64 << 20
_SHOWN = 300
"""Characters of a server's own words that an error repeats."""


class ReplicaError(EngineError):
    """A server that gave no usable answer: unreachable, too late, failed, or not what was asked for."""


class ReplicaRefusedError(EngineError):
    """A server that answered and said no."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Served:
    """What a server says about itself."""

    version: str
    """Of vLLM."""
    names: frozenset[str]
    """Under which the base is asked for, and the path or name that it was loaded from."""
    max_model_len: int
    adapters: frozenset[str]


@dataclass(kw_only=True, slots=True, frozen=True)
class Drawn:
    """One reply."""

    token_ids: list[int]
    logprobs: list[float]
    best_logprob: float
    """Of the likeliest first token that was reported."""


class Replica:
    """Exchanges with one server, from any number of threads; connections are kept and used again.

    Args:
        url: http or https, without a path, as in ``http://127.0.0.1:8000``.
        key: the server's ``--api-key``; None sends none.

    Raises:
        ValueError: if the address cannot be used.
    """

    def __init__(self, url: str, *, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.path.strip("/"):
            raise ValueError(f"The address {url!r} of a server must be like http://host:8000, without a path.")
        self.url = url.rstrip("/")
        self.host = parts.hostname
        self._netloc, self._secure = parts.netloc, parts.scheme == "https"
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._lock = threading.Lock()
        self._num_hung_up = 0
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()

    def __repr__(self) -> str:
        return f"Replica({self.url!r})"

    # ---- what it is asked ------------------------------------------------------------------------

    def check_health(self, seconds: float) -> None:
        """Raise ``ReplicaError`` unless the server says in time that its engine works."""
        status, body = self._exchange("GET", "/health", None, seconds)
        if status != http.HTTPStatus.OK:
            raise self._failure("GET /health", status, body)

    def describe(self, seconds: float) -> Served:
        """Return what the server serves."""
        version = self._json("GET", "/version", None, seconds)
        models = self._json("GET", "/v1/models", None, seconds)
        try:
            base, *others = models["data"]
            return Served(
                version=str(version["version"]),
                names=frozenset({base["id"], base["root"]}),
                max_model_len=int(base["max_model_len"]),
                adapters=frozenset(card["id"] for card in others),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise self._garbage("GET /v1/models", models) from error

    def generate(self, body: bytes, seconds: float) -> Drawn:
        """Draw one reply.

        Args:
            body: made by :func:`generation_body`.
            seconds: deadline.
        """
        asked = "POST /inference/v1/generate"
        answer = self._json("POST", "/inference/v1/generate", body, seconds)
        try:
            choice = answer["choices"][0]
            ids, content = choice["token_ids"], choice["logprobs"]["content"]
            logprobs = [float(token["logprob"]) for token in content]
            best = max(float(token["logprob"]) for token in content[0]["top_logprobs"])
            whole = ids == [token["token_id"] for token in content] and all(type(token) is int for token in ids)
        except (LookupError, TypeError, ValueError) as error:
            raise self._garbage(asked, answer) from error
        if not whole or not all(math.isfinite(logprob) for logprob in logprobs):
            raise self._garbage(asked, answer)
        return Drawn(token_ids=ids, logprobs=logprobs, best_logprob=best)

    def load_adapter(self, name: str, path: str, seconds: float) -> None:
        """Have the server read an adapter from a folder; one that it has under the name already is kept.

        Raises:
            ReplicaRefusedError: if the server cannot serve it, or serves no adapters.
        """
        body = json.dumps({"lora_name": name, "lora_path": path}).encode()
        status, answer = self._exchange("POST", "/v1/load_lora_adapter", body, seconds)
        if status != http.HTTPStatus.OK and b"has already been loaded" not in answer:
            if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
                self.check_health(seconds)  # vLLM says 500 of an adapter that it cannot serve, and when it is dead
            raise ReplicaRefusedError(f"{self.url} does not load {name!r}: {self._words(answer)}")

    def unload_adapter(self, name: str, seconds: float) -> bool:
        """Have the server forget an adapter; return whether it had it.

        Raises:
            ReplicaRefusedError: if adapters of this server cannot be changed while it runs.
        """
        body = json.dumps({"lora_name": name}).encode()
        status, answer = self._exchange("POST", "/v1/unload_lora_adapter", body, seconds)
        if status == http.HTTPStatus.OK:
            return True
        if b"cannot be found" in answer:
            return False
        raise ReplicaRefusedError(f"{self.url} does not unload {name!r}: {self._words(answer)}")

    def hang_up(self) -> None:
        """Break every exchange under way; the server then drops what it was asked."""
        with self._lock:
            self._num_hung_up += 1
            busy, idle, self._idle = list(self._busy), self._idle, []
        for connection in idle:
            connection.close()
        for connection in busy:
            # Not `close`, which leaves a thread that reads waiting; that thread closes it.
            if connection.sock is not None:
                with suppress(OSError):  # broken already
                    connection.sock.shutdown(socket.SHUT_RDWR)

    # ---- how -------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, body: bytes | None, seconds: float) -> Any:
        status, answer = self._exchange(method, path, body, seconds)
        if status == http.HTTPStatus.OK:
            try:
                return json.loads(answer)
            except ValueError as error:
                raise self._garbage(f"{method} {path}", answer) from error
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise self._failure(f"{method} {path}", status, answer)
        raise ReplicaRefusedError(f"{self.url} refused {method} {path} with status {status}: {self._words(answer)}")

    def _exchange(self, method: str, path: str, body: bytes | None, seconds: float) -> tuple[int, bytes]:
        """Send one request and read the whole answer, once more where a kept connection turns out to be closed."""
        due = time.monotonic() + seconds
        connection, kept = self._take(seconds)
        hung_up = self._num_hung_up
        try:
            try:
                answer = self._once(connection, method, path, body, due)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if not kept or hung_up != self._num_hung_up:
                    raise
                connection.close()  # opens anew by itself
                answer = self._once(connection, method, path, body, due)
        except (OSError, http.client.HTTPException, ValueError) as error:
            with self._lock:
                self._busy.discard(connection)
            connection.close()
            if isinstance(error, TimeoutError):
                raise ReplicaError(f"{self.url} did not answer {method} {path} within {seconds:g} s.") from error
            raise ReplicaError(f"{self.url} broke off {method} {path}: {type(error).__name__}: {error}") from error
        with self._lock:
            self._busy.discard(connection)
            self._idle.append(connection)
        return answer

    def _once(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, due: float
    ) -> tuple[int, bytes]:
        connection.timeout = _left(due)
        if connection.sock is not None:
            connection.sock.settimeout(_left(due))
        connection.request(method, path, body, self._headers)
        response = connection.getresponse()
        pieces, size = [], 0
        # Piece by piece, so that an answer that trickles in meets the deadline too.
        while piece := response.read1(1 << 20):
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_BYTES:
                raise ValueError(f"the answer has more than {_MAX_BYTES} bytes")
            if connection.sock is not None:
                connection.sock.settimeout(_left(due))
        if response.length:  # read1 gives no error where the connection ended early
            raise http.client.IncompleteRead(b"", response.length)
        response.close()  # read1 leaves it open at its end, and the connection could not be used again
        return response.status, b"".join(pieces)

    def _take(self, seconds: float) -> tuple[http.client.HTTPConnection, bool]:
        """Give a connection, and whether it was used before."""
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]:
                    self._busy.add(connection)
                    return connection, True
                connection.close()  # something to read while nothing was asked: the server has closed it
            make = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = make(self._netloc, timeout=seconds)
            self._busy.add(connection)
        return connection, False

    def _failure(self, asked: str, status: int, body: bytes) -> ReplicaError:
        return ReplicaError(f"{self.url} answered {asked} with status {status}: {self._words(body)}")

    def _garbage(self, asked: str, answer: Any) -> ReplicaError:
        return ReplicaError(f"{self.url} answered {asked} with something else than was asked for: {answer!r:.{_SHOWN}}")

    @staticmethod
    def _words(body: bytes) -> str:
        """Take the message out of a server's error, or show its beginning."""
        try:
            return str(json.loads(body)["error"]["message"])[:_SHOWN]
        except (ValueError, LookupError, TypeError):
            return repr(body)[:_SHOWN]


def generation_body(model: str, token_ids: list[int], sampling: Mapping[str, Any]) -> bytes:
    """Spell the request for one reply.

    Args:
        model: name of the base or of an adapter.
        token_ids: the whole prompt.
        sampling: vLLM's sampling parameters.
    """
    fixed = {"logprobs": 0, "detokenize": False, "ignore_eos": True}  # only `stop_token_ids` end a reply
    return json.dumps({"model": model, "token_ids": token_ids, "sampling_params": {**fixed, **sampling}}).encode()


def _left(due: float) -> float:
    left = due - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
