"""Makers of small samples, episodes and trajectories, and a server that speaks like an OpenAI-compatible endpoint."""

import http.server
import json
import threading
from contextlib import suppress

import pytest

from m1lite.records import (
    Answer,
    Episode,
    Message,
    MessageKind,
    Plan,
    Sample,
    Status,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    TurnKind,
)


def make_sample(task=Task.CHOICE, question="next red-square", answer=None, **fields):
    options = ("blue-circle", "green-diamond") if task is Task.CHOICE else ()
    answer = answer or Answer(text="blue-circle")
    fields = {"id": "s", "video": "v.mp4", "duration": 47.0, "options": options, **fields}
    return Sample(task=task, question=question, answer=answer, **fields)


def make_turn(kind=TurnKind.PLAN, status=Status.OK, round=0):
    return Turn(
        kind=kind,
        round=round,
        prompt_ids=[],
        reply_ids=[],
        logprobs=[],
        policy_version=0,
        seed=0,
        text="",
        status=status,
    )


class Table:
    """An episode that is written round by round."""

    def __init__(self, sample, visible):
        self.episode = Episode(sample=sample, index=0, seed=0, visible=visible)
        for agent in visible:
            trajectory = Trajectory(agent=agent, turns=[make_turn(), make_turn(TurnKind.ANSWER, round=9)])
            self.episode.trajectories[agent] = trajectory

    def call(self, agent, round, tool, status=Status.OK, **args):
        """Record a call as the loop does: dropped ones in the memory only."""
        call = ToolCall(tool=tool, args=args)
        error = "refused" if status is Status.TOOL_ERROR else None
        if status is not Status.CALL_LIMIT:
            trajectory = self.episode.trajectories[agent]
            trajectory.calls.append(call)
            trajectory.results.append(ToolResult(text="seen 0", error=error, status=status))
        message = Message(author=agent, round=round, kind=MessageKind.RESULT, text="seen 0", call=call, status=status)
        self.episode.messages.append(message)
        return self

    def plan(self, agent, *calls):
        """Record a plan as the loop does."""
        self.episode.messages.append(
            Message(author=agent, round=0, kind=MessageKind.PLAN, text="", plan=Plan(steps=tuple(calls)))
        )
        return self

    def ask(self, function, agent="ada"):
        """Ask a term, a gate or a judge about an agent."""
        return function(self.episode.sample, self.episode, self.episode.trajectories[agent])


@pytest.fixture
def table():
    """An episode of ada and bea; bea reads ada."""
    return Table(make_sample(), {"ada": (), "bea": ("ada",)})


@pytest.fixture
def make():
    """The maker of samples."""
    return make_sample


@pytest.fixture
def turn():
    """The maker of turns."""
    return make_turn


def completion(text, finish_reason="stop"):
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }


class Stub:
    """A server on a real socket. ``answer`` takes the request's body and gives what to send:

    a text (a chat completion of it), a dict (as JSON), bytes (as they are), an int (a status), a tuple of status,
    headers and body, or a float (seconds of silence before a completion).
    """

    def __init__(self):
        self.answer = lambda body: "{}"
        self.requests = []
        self.running = self.most_running = 0
        self.lock = threading.Lock()
        self.open = threading.Event()
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub.lock:
                    stub.requests.append((self.path, dict(self.headers), body))
                    stub.running += 1
                    stub.most_running = max(stub.most_running, stub.running)
                try:
                    answer = stub.answer(body)
                finally:
                    with stub.lock:  # before the client has its reply and sends the next
                        stub.running -= 1
                with suppress(OSError):  # the client has gone
                    stub.send(self, answer)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 64
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def send(self, handler, answer):
        if callable(answer):
            return answer(handler)
        if isinstance(answer, float):
            self.open.wait(answer)
            answer = "{}"
        status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
        if isinstance(body, int):
            status, body = body, {"error": {"message": "broken"}}
        if isinstance(body, str):
            body = completion(body)
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(body)
        return None

    def trickle(self, handler):
        """Send a body byte by byte, so that no single read is ever slow."""
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            if self.open.wait(0.05):
                return

    def close(self):
        self.open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def stub(monkeypatch):
    """An endpoint."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    stub = Stub()
    yield stub
    stub.close()
