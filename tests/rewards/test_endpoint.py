"""The HTTP client against a real socket: what it sends, what it takes, and everything that a server can do wrong."""

import json
import logging
import socket
import threading
import time

import pytest

from m1lite.rewards.asking import Asker, Reply
from m1lite.rewards.endpoint import Endpoint
from m1lite.rewards.prompts import Prompt

KEY = "sk-very-secret-0123"


def prompt(number=0):
    return Prompt(system="rules", user=f"case {number}")


def endpoint(stub, **options):
    return Endpoint(**{"base_url": stub.url, "model": "m", "deadline_seconds": 20.0, "tries": 1, **options})


def test_what_is_sent(stub, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    stub.answer = lambda body: "yes"
    served = endpoint(stub, api_key_variable="JUDGE_KEY", options={"max_tokens": None, "max_completion_tokens": 9})
    assert served([prompt()]) == [Reply(text="yes")]
    ((path, headers, body),) = stub.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "m",
        "temperature": 0,
        "max_completion_tokens": 9,
        "messages": [{"role": "system", "content": "rules"}, {"role": "user", "content": "case 0"}],
    }
    assert KEY not in repr(served) + served.identity


def test_no_key_is_sent_without_a_variable(stub):
    stub.answer = lambda body: "yes"
    endpoint(stub, base_url=stub.url + "/")([prompt()])
    path, headers, _ = stub.requests[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers


def test_replies_keep_the_order_and_few_run_at_a_time(stub):
    def answer(body):
        number = int(body["messages"][1]["content"].split()[1])
        time.sleep(0.02 * (3 - number % 4))
        return f"reply {number}"

    stub.answer = answer
    replies = endpoint(stub, workers=3)([prompt(number) for number in range(12)])
    assert [reply.text for reply in replies] == [f"reply {number}" for number in range(12)]
    assert 2 <= stub.most_running <= 3
    assert endpoint(stub)([]) == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (500, "status 500"),
        (401, "status 401"),
        (404, "status 404"),
        (b"{not json", "shape"),
        (b"", "shape"),
        (b"\xff\xfe", "shape"),
        (b"[" * 50_000, "shape"),
        (b"null", "shape"),
        ({}, "shape"),
        ([], "shape"),
        ({"choices": []}, "shape"),
        ({"choices": {}}, "shape"),
        ({"choices": [None]}, "shape"),
        ({"choices": [{"message": None}]}, "shape"),
        ({"choices": [{"message": {"content": None}}]}, "shape"),
        ({"choices": [{"message": {"content": ["a"]}}]}, "shape"),
        ({"choices": [{"message": {"content": "  "}}]}, "shape"),
        ({"choices": [{"message": {"content": "half"}, "finish_reason": "length"}]}, "cut"),
        ({"error": "busy"}, "shape"),
        ((200, {"Content-Length": 999}, b"{}"), "connection"),
        ((302, {"Location": "http://127.0.0.1:9/elsewhere"}, b""), "status 302"),
        ((307, {"Location": "http://127.0.0.1:9/elsewhere"}, b""), "status 307"),
        ((200, {}, b" " * (5 << 20)), "connection"),
    ],
)
def test_wrong_replies_are_failures(stub, answer, problem):
    stub.answer = lambda body: answer
    if isinstance(answer, tuple) and answer[1].get("Content-Length"):
        stub.answer = lambda body: cut_off(answer)
    (reply,) = endpoint(stub)([prompt()])
    assert (reply.text, reply.problem) == (None, problem)
    assert reply.detail
    assert len(stub.requests) == 1


def cut_off(answer):
    def send(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "999")
        handler.end_headers()
        handler.wfile.write(answer[2])
        handler.close_connection = True

    return send


def test_a_server_that_hangs_up_or_speaks_no_http(stub):
    stub.answer = lambda body: lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    assert endpoint(stub)([prompt()])[0].problem == "connection"
    stub.answer = lambda body: lambda handler: handler.wfile.write(b"hello\r\n\r\n")
    assert endpoint(stub)([prompt()])[0].problem == "connection"


def test_a_refused_connection():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port, and it refuses
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        (reply,) = Endpoint(base_url=url, model="m", tries=2, deadline_seconds=20.0)([prompt()])
    assert reply.problem == "connection"
    assert "refused" in reply.detail


@pytest.mark.parametrize("how", ["silent", "trickling"])
def test_the_deadline_holds(stub, how):
    stub.answer = lambda body: 30.0 if how == "silent" else stub.trickle
    started = time.monotonic()
    replies = endpoint(stub, deadline_seconds=0.5, tries=3, workers=4)([prompt(number) for number in range(4)])
    assert time.monotonic() - started < 4.0
    assert [reply.problem for reply in replies] == ["deadline"] * 4
    assert "more than 0.5 s (`deadline_seconds`)" in replies[0].detail


def test_waiting_for_a_place_does_not_count(stub):
    stub.answer = lambda body: 0.3
    replies = endpoint(stub, deadline_seconds=5.0, workers=1)([prompt(number) for number in range(3)])
    assert [reply.text for reply in replies] == ["{}"] * 3


def test_what_may_pass_is_tried_again(stub):
    first = iter([(429, {"Retry-After": "0.01"}, b"slow down"), 503, "yes"])
    stub.answer = lambda body: next(first)
    assert endpoint(stub, tries=3)([prompt()]) == [Reply(text="yes")]
    assert len(stub.requests) == 3


def test_tries_end_with_the_deadline(stub):
    stub.answer = lambda body: (429, {"Retry-After": "3600"}, b"slow down")
    started = time.monotonic()
    assert endpoint(stub, tries=9)([prompt()])[0].problem == "status 429"
    assert time.monotonic() - started < 10
    assert len(stub.requests) == 1
    stub.answer = lambda body: (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b"")
    assert endpoint(stub, tries=2)([prompt()])[0].problem == "status 503"
    assert len(stub.requests) == 3


def test_an_endpoint_that_is_gone_holds_nobody_up(stub):
    stub.answer = lambda body: lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    served = endpoint(stub, workers=2)
    replies = served([prompt(number) for number in range(20)])
    problems = [reply.problem for reply in replies]
    assert set(problems) == {"connection", "not sent"}
    assert len(stub.requests) == problems.count("connection") <= 6
    stub.answer = lambda body: "yes"
    assert served([prompt(99)]) == [Reply(text="yes")]


def test_the_key_is_never_told(stub, monkeypatch, caplog):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    served = endpoint(stub, api_key_variable="JUDGE_KEY")
    asker = Asker(served)
    answers = [(401, {}, f"the key {KEY} is wrong".encode()), f"the key {KEY}", {"error": f"key {KEY}"}]
    with caplog.at_level(logging.DEBUG):
        for number, answer in enumerate(answers):
            stub.answer = lambda body, answer=answer: answer
            asker.ask([prompt(number)], lambda text, _: None)
    assert sum(asker.failures.values()) == 3
    assert "[key]" in caplog.text
    assert KEY not in caplog.text


def test_calls_from_many_threads(stub):
    stub.answer = lambda body: body["messages"][1]["content"]
    served = endpoint(stub, workers=4)
    found = {}

    def ask(number):
        found[number] = served([prompt(10 * number + row) for row in range(3)])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, replies in found.items():
        assert [reply.text for reply in replies] == [f"case {10 * number + row}" for row in range(3)]


def test_identity_is_model_and_options(stub):
    same = [endpoint(stub), endpoint(stub, base_url="http://elsewhere/v1", workers=1)]
    assert len({served.identity for served in same}) == 1
    assert json.loads(same[0].identity) == {"model": "m", "temperature": 0, "max_tokens": 1024}
    assert endpoint(stub, options={"temperature": 0.5}).identity != same[0].identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "ftp://host/v1"}, r"`base_url` is 'ftp://host/v1'; it must be like http://"),
        ({"base_url": "localhost:8000"}, r"`base_url` is 'localhost:8000'"),
        ({"base_url": "http://host/v1?key=1"}, r"without \? or #"),
        ({"base_url": "http://me:pass@host/v1"}, r"holds a user name or a password; give the key with"),
        ({"api_key_variable": "NOT_SET_ANYWHERE"}, r"names 'NOT_SET_ANYWHERE', which is not set"),
        ({"api_key_variable": "BAD_KEY"}, r"'BAD_KEY' holds blanks or signs"),
        ({"tries": 0}, r"`tries` is 0; a prompt is sent at least 1 time"),
        ({"workers": 0}, r"`workers` must be at least 1, got 0"),
        ({"deadline_seconds": 0}, r"`deadline_seconds` must be above 0, got 0"),
    ],
)
def test_errors_name_the_value_but_no_secret(monkeypatch, options, message):
    monkeypatch.setenv("BAD_KEY", "a\nb")
    with pytest.raises(ValueError, match=message) as caught:
        Endpoint(**{"base_url": "http://host/v1", "model": "m", **options})
    assert "pass@" not in str(caught.value)
