"""The shared memory of one episode: who wrote what in which round, and what an agent has not read yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m1lite.records import MessageKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m1lite.records import Message


class Memory:
    """Messages in the order written, and how far every agent has read.

    Args:
        visible: agent name to the names of the peers that it reads.
    """

    def __init__(self, visible: Mapping[str, Sequence[str]]) -> None:
        self.messages: list[Message] = []
        self._visible = {reader: frozenset(peers) for reader, peers in visible.items()}
        self._read = dict.fromkeys(visible, 0)

    def add(self, message: Message) -> None:
        """Write a message."""
        self.messages.append(message)

    def read(self, reader: str) -> tuple[list[Message], list[Message]]:
        """Return what ``reader`` has not read yet, and mark it as read.

        Returns:
            The results of its own calls, and its visible peers' plans, decisions and results, in the order written.
        """
        new = self.messages[self._read[reader] :]
        self._read[reader] = len(self.messages)
        peers = self._visible[reader]
        own = [message for message in new if message.author == reader and message.kind is MessageKind.RESULT]
        return own, [message for message in new if message.author in peers and message.kind is not MessageKind.ANSWER]
