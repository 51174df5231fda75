"""The shared memory of one episode: who wrote what in which round, and what an agent has not read yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m1lite.records import MessageKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m1lite.records import Message


class Memory:
    """Messages by author, and how far every agent has read.

    Agents write when they are ready, so what is there at a moment says nothing: a reader takes what belongs to rounds
    before a point, in the order of rounds and of the team.

    Args:
        visible: agent name to the names of the peers that it reads, in the order of the team.
    """

    def __init__(self, visible: Mapping[str, Sequence[str]]) -> None:
        self._written: dict[str, list[Message]] = {name: [] for name in visible}
        self._peers = {
            reader: [name for name in visible if name in frozenset(peers)] for reader, peers in visible.items()
        }
        self._read = {reader: dict.fromkeys([reader, *peers], 0) for reader, peers in self._peers.items()}

    def add(self, message: Message) -> None:
        """Write a message; each author writes in the order of its own rounds."""
        self._written[message.author].append(message)

    def read(self, reader: str, round: int) -> tuple[list[Message], list[Message]]:
        """Return what ``reader`` may read in its turn of a round and has not read yet, and mark it as read.

        Args:
            reader: an agent.
            round: results up to this round may be read, and what was spoken in rounds before it.

        Returns:
            The results of its own calls, and its visible peers' plans, decisions and results.
        """
        own = [message for message in self._new(reader, reader, round) if message.kind is MessageKind.RESULT]
        peers = [message for peer in self._peers[reader] for message in self._new(reader, peer, round)]
        peers.sort(key=_moment)  # stable: within one moment the order of the team stays
        return own, [message for message in peers if message.kind is not MessageKind.ANSWER]

    def _new(self, reader: str, author: str, round: int) -> list[Message]:
        written, start = self._written[author], self._read[reader][author]
        end = start
        while end < len(written) and _moment(written[end]) <= (round, False):
            end += 1
        self._read[reader][author] = end
        return written[start:end]

    def in_order(self) -> list[Message]:
        """Return all messages: by round, results before what was said about them, and in the order of the team."""
        return sorted((message for written in self._written.values() for message in written), key=_moment)


def _moment(message: Message) -> tuple[int, bool]:
    return message.round, message.kind is not MessageKind.RESULT
