"""The shared memory: everything once, only from visible peers, and never an answer."""

from m1lite.collaboration.memory import Memory
from m1lite.records import Message, MessageKind


def write(memory, author, kind, round=1):
    message = Message(author=author, round=round, kind=MessageKind(kind), text=f"{author} {kind} {round}")
    memory.add(message)
    return message


def test_reading_gives_what_is_new_and_visible():
    memory = Memory({"ada": ("bea",), "bea": (), "cyd": ("ada", "bea")})
    mine = write(memory, "ada", "plan", 0)
    theirs = write(memory, "bea", "plan", 0)
    hidden = write(memory, "cyd", "result")
    result = write(memory, "ada", "result")
    assert memory.read("ada") == ([result], [theirs]), "its own plan stands in its own context already"
    assert memory.read("ada") == ([], [])
    decision = write(memory, "bea", "decision")
    write(memory, "bea", "answer", 2)
    assert memory.read("ada") == ([], [decision])
    assert memory.read("bea") == ([], [])
    assert memory.read("cyd") == ([hidden], [mine, theirs, result, decision])
    assert len(memory.messages) == 6
