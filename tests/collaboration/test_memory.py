"""The shared memory: everything once, only from visible peers, never an answer, and nothing of a later moment."""

from m1lite.collaboration.memory import Memory
from m1lite.records import Message, MessageKind

VISIBLE = {"ada": ("bea",), "bea": (), "cyd": ("ada", "bea")}


def write(memory, author, kind, round=1):
    message = Message(author=author, round=round, kind=MessageKind(kind), text=f"{author} {kind} {round}")
    memory.add(message)
    return message


def test_reading_gives_what_is_new_and_visible():
    memory = Memory(VISIBLE)
    mine = write(memory, "ada", "plan", 0)
    theirs = write(memory, "bea", "plan", 0)
    hidden = write(memory, "cyd", "result")
    result = write(memory, "ada", "result")
    assert memory.read("ada", 1) == ([result], [theirs]), "its own plan stands in its own context already"
    assert memory.read("ada", 1) == ([], [])
    decision = write(memory, "bea", "decision")
    answer = write(memory, "bea", "answer", 2)
    assert memory.read("ada", 3) == ([], [decision])
    assert memory.read("bea", 3) == ([], [])
    assert memory.read("cyd", 3) == ([hidden], [mine, theirs, result, decision])
    assert memory.in_order() == [mine, theirs, result, hidden, decision, answer]


def test_what_a_faster_peer_wrote_of_a_later_moment_waits():
    memory = Memory(VISIBLE)
    plan, first = write(memory, "bea", "plan", 0), write(memory, "bea", "result", 1)
    decision, second = write(memory, "bea", "decision", 1), write(memory, "bea", "result", 2)
    assert memory.read("ada", 0) == ([], []), "plans are made before any is read"
    assert memory.read("ada", 1) == ([], [plan, first])
    assert memory.read("ada", 2) == ([], [decision, second])


def test_the_order_of_arrival_says_nothing():
    late, early = Memory(VISIBLE), Memory(VISIBLE)
    for memory, authors in ((late, ("bea", "ada")), (early, ("ada", "bea"))):
        for author in authors:
            for round, kind in ((0, "plan"), (1, "result"), (1, "result"), (1, "decision"), (2, "result")):
                write(memory, author, kind, round)
    assert late.read("cyd", 2) == early.read("cyd", 2)
    assert late.in_order() == early.in_order()
    _, read = late.read("ada", 2)
    assert [(message.round, message.kind.value) for message in read] == [
        (0, "plan"), (1, "result"), (1, "result"), (1, "decision"), (2, "result"),
    ]  # fmt: skip
