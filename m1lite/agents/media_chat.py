"""Chats that show frames: pictures between the words, each behind its time, as ids with explicit places.

Markup and text are ``chat.py``'s; how many tokens a picture takes is ``engines/sight.py``'s. Nothing is decoded here: a
prompt holds references.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from m1lite.agents.chat import Chat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase

    from m1lite.engines.sight import Sight
    from m1lite.records import MediaRef


@dataclass(kw_only=True, slots=True, frozen=True)
class Prompt:
    """Ids to append to a context, and what they show."""

    ids: list[int]
    media: tuple[MediaRef, ...] = ()
    """One frame each, in the order of their placeholders."""
    offsets: tuple[int, ...] = ()
    """Index in ``ids`` of the first placeholder of each."""


def seconds_stamp(second: float) -> str:
    """Write the time that stands before a frame, as Qwen3-VL does before the frames of a video.

    Example:
        >>> seconds_stamp(12.25)
        '<12.2 seconds>'
    """
    return f"<{second:.1f} seconds>"


def no_stamp(second: float) -> str:
    """Write no time: the order of the frames is all that a policy learns of it."""
    return ""


def number_stamp(second: float) -> str:
    """Write the time in whole seconds and nothing else, for tiny contexts.

    Example:
        >>> number_stamp(12.0), number_stamp(2.4375)
        ('12', '2')
    """
    return f"{round(second)}"


class MediaChat:
    """Turns messages of words and frames into ids.

    Special tokens that are spelled out inside the words are tokenised as ordinary text, so a placeholder can come from
    nowhere but a picture.

    Args:
        chat: the markup and the words.
        sight: how the policy's base sees.
        stamp: what is written before a frame of a second.

    Raises:
        ValueError: if the tokenizer reads a spelled-out media token as one.
    """

    def __init__(self, chat: Chat, sight: Sight, *, stamp: Callable[[float], str] = seconds_stamp) -> None:
        self.chat = chat
        self.sight = sight
        self.stamp = stamp
        for token in sight.media_ids:
            spelt = chat.tokenizer.convert_ids_to_tokens(token)
            if set(chat.encode(f" {spelt} ")) & set(sight.media_ids):
                raise ValueError(
                    f"The tokenizer reads {spelt!r} inside a text as a media token, so that tools and peers could fake "
                    "pictures; use one that can split special tokens."
                )

    @property
    def end_of_turn_id(self) -> int:
        """The id with which a reply ends."""
        return self.chat.end_of_turn_id

    def open(self, system: str, parts: Sequence[str | MediaRef]) -> Prompt:
        """Return the first prompt, up to where the first reply begins.

        Args:
            system: words alone.
            parts: of the user's message; a reference shows each of its times.

        Raises:
            ValueError: if a size is no multiple of the sight's factor.
        """
        content = self._content(parts)
        return self._placed(self.chat.open(system, content.ids), content, start=len(self.chat.before_first(system)))

    def extend(self, parts: Sequence[str | MediaRef], *, closed: bool) -> Prompt:
        """Return what to append after a reply, up to where the next reply begins.

        Args:
            parts: of the user's message.
            closed: whether the reply ended with the end-of-turn id.

        Raises:
            ValueError: if a size is no multiple of the sight's factor.
        """
        content = self._content(parts)
        start = len(self.chat.before_next(closed=closed))
        return self._placed(self.chat.extend(content.ids, closed=closed), content, start=start)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a reply, without special tokens."""
        return self.chat.decode(ids)

    def _content(self, parts: Sequence[str | MediaRef]) -> Prompt:
        ids: list[int] = []
        media: list[MediaRef] = []
        offsets: list[int] = []
        words = ""
        for part in parts:
            if isinstance(part, str):
                words += part
                continue
            for second in part.timestamps:
                # Words that meet are tokenised together, as a template would render them.
                ids += self.chat.encode(words + self.stamp(second))
                words = ""
                media.append(replace(part, timestamps=(second,)))
                offsets.append(len(ids) + 1)
                ids += self.sight.block(part.size)
        return Prompt(
            ids=[*ids, *(self.chat.encode(words) if words else [])], media=tuple(media), offsets=tuple(offsets)
        )

    @staticmethod
    def _placed(ids: list[int], content: Prompt, *, start: int) -> Prompt:
        return Prompt(ids=ids, media=content.media, offsets=tuple(start + offset for offset in content.offsets))


def media_chat(
    tokenizer: PreTrainedTokenizerBase,
    sight: Sight,
    *,
    history: Literal["template", "keep"] = "template",
    stamp: Callable[[float], str] = seconds_stamp,
) -> MediaChat:
    """Make the chat of a base that sees.

    Args:
        tokenizer: of the base.
        sight: how it sees.
        history: as in :class:`~m1lite.agents.chat.Chat`.
        stamp: as in :class:`MediaChat`.
    """
    return MediaChat(Chat(tokenizer, history=history), sight, stamp=stamp)
