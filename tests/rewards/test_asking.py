"""What is asked once, what the cache keeps, what counts as a failure; and one cache folder under several processes."""

import json
import logging
import subprocess
import sys
import threading

import pytest

from m1lite.rewards.asking import Asker, Reply
from m1lite.rewards.prompts import Prompt
from m1lite.rewards.reply_cache import ReplyCache


class Model:
    """Replies from a function, and remembers what it was asked."""

    def __init__(self, reply, identity="model"):
        self.reply = reply
        self.identity = identity
        self.seen = []

    def __call__(self, prompts):
        self.seen.append(list(prompts))
        return [self.reply(prompt) for prompt in prompts]


def say(text):
    return lambda prompt: Reply(text=text)


def number(text, prompt):
    return int(text) if text.isdigit() else None


def prompts(*users):
    return [Prompt(system="s", user=user) for user in users]


def test_equal_prompts_are_asked_once_and_together():
    model = Model(lambda prompt: Reply(text=str(len(prompt.user))))
    asker = Asker(model)
    assert asker.ask(prompts("a", "bbb", "a", "cc"), number) == [1, 3, 1, 2]
    assert model.seen == [prompts("a", "bbb", "cc")]
    assert asker.asked == 3
    assert asker.ask([], number) == []
    assert len(model.seen) == 1


def test_failures_are_none_counted_and_told_once(caplog):
    replies = {
        "dead": Reply(problem="deadline", detail="too slow"),
        "odd": Reply(text="eleven"),
        "fine": Reply(text="0"),
    }
    asker = Asker(Model(lambda prompt: replies[prompt.user]))
    with caplog.at_level(logging.WARNING):
        assert asker.ask(prompts("dead", "odd", "fine"), number) == [None, None, 0]
        assert asker.ask(prompts("dead", "odd"), number) == [None, None]
    assert asker.failures == {"deadline": 2, "unreadable": 2}
    assert len(caplog.records) == 2
    assert "too slow" in caplog.text
    assert "eleven" in caplog.text


def test_the_cache_answers_without_a_call(tmp_path):
    cache = ReplyCache(tmp_path / "new" / "folder")
    assert Asker(Model(say("7")), cache=cache).ask(prompts("a", "b"), number) == [7, 7]
    model = Model(say("9"))
    assert Asker(model, cache=ReplyCache(cache.folder)).ask(prompts("a", "b", "c"), number) == [7, 7, 9]
    assert model.seen == [prompts("c")]


@pytest.mark.parametrize("changed", ["identity", "system", "user"])
def test_the_cache_goes_by_content(tmp_path, changed):
    cache = ReplyCache(tmp_path)
    Asker(Model(say("7")), cache=cache).ask(prompts("a"), number)
    model = Model(say("9"), identity="other" if changed == "identity" else "model")
    asked = Prompt(system="t" if changed == "system" else "s", user="b" if changed == "user" else "a")
    assert Asker(model, cache=cache).ask([asked], number) == [9]


def test_failures_are_not_kept(tmp_path):
    for reply in (Reply(text="odd"), Reply(problem="deadline")):
        asker = Asker(Model(lambda prompt, reply=reply: reply), cache=ReplyCache(tmp_path))
        assert asker.ask(prompts("a"), number) == [None]
    assert not list(tmp_path.rglob("*.*"))
    assert Asker(Model(say("7")), cache=ReplyCache(tmp_path)).ask(prompts("a"), number) == [7]


@pytest.mark.parametrize(
    "kept", [b"", b"{", b"\xff", b"[]", b'{"reply": "8"}', b'{"question": ["x"], "reply": "8"}', b"[" * 9999]
)
def test_a_broken_file_counts_as_absent(tmp_path, kept):
    cache = ReplyCache(tmp_path)
    Asker(Model(say("7")), cache=cache).ask(prompts("a"), number)
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(kept)
    model = Model(say("9"))
    assert Asker(model, cache=cache).ask(prompts("a"), number) == [9]
    assert json.loads(file.read_bytes())["reply"] == "9"


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    asker = Asker(Model(say("7")), cache=ReplyCache(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        assert asker.ask(prompts("a", "b"), number) == [7, 7]
    assert len(caplog.records) == 1
    assert "Give a `folder` that can be written." in caplog.text


def test_texts_of_any_kind_come_back(tmp_path):
    cache = ReplyCache(tmp_path)
    for text in ("snow ☃", "two\nlines", "half \ud800", '{"a": "\\u0000"}'):
        asked = Prompt(system="s ☃", user=text)
        cache.put("m", asked, text)
        assert cache.get("m", asked) == text


WRITER = """
import sys
from m1lite.rewards.prompts import Prompt
from m1lite.rewards.reply_cache import ReplyCache
cache, worst = ReplyCache(sys.argv[1]), 0
for turn in range(150):
    prompt = Prompt(system="s", user=str(turn % 5))
    found = cache.get("m", prompt)
    assert found is None or found in ("x" * 40000, "y" * 40000), len(found)
    cache.put("m", prompt, sys.argv[2] * 40000)
print("whole")
"""


def test_two_processes_on_one_folder(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, letter], stdout=subprocess.PIPE, text=True) for letter in "xy"]
    assert [writer.communicate(timeout=200)[0] for writer in writers] == ["whole\n"] * 2
    assert len(list(tmp_path.rglob("*.json"))) == 5
    assert not list(tmp_path.rglob("*.part"))


def test_threads_on_one_cache(tmp_path):
    cache = ReplyCache(tmp_path)
    broken = []

    def write(letter):
        for turn in range(60):
            asked = Prompt(system="s", user=str(turn % 3))
            cache.put("m", asked, letter * 1000)
            if cache.get("m", asked) not in ("x" * 1000, "y" * 1000):
                broken.append(turn)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
