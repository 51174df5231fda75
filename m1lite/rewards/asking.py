"""Asking a model for verdicts: each question once, what is known from the cache, and failures as counted facts.

Where replies come from is endpoint.py's (HTTP) or in_process.py's (an engine); what is asked, model_judge.py's.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Protocol, TypeVar

from m1lite.toolbox.chat_endpoint import Reply as Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from m1lite.rewards.prompts import Prompt
    from m1lite.rewards.reply_cache import ReplyCache

logger = logging.getLogger(__name__)
_SHOWN_CHARACTERS = 200

T = TypeVar("T")


class Replies(Protocol):
    """A language model that is asked many prompts at once."""

    @property
    def identity(self) -> str:
        """What the reply to a prompt depends on: model, options, version of the weights. A part of the cache's key."""

    def __call__(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Reply to each prompt, in the order given; a failure is a reply without a text, never an exception."""


class Asker:
    """Asks a model and reads what it says.

    Equal prompts of one call are asked once. Only replies that could be read are cached: an unreadable one, like any
    other failure, is asked again when the question comes again. The first failure of each kind is logged as a warning.

    Args:
        replies: the model.
        cache: replies of earlier runs; None keeps none.
    """

    def __init__(self, replies: Replies, *, cache: ReplyCache | None = None) -> None:
        self.replies = replies
        self.cache = cache
        self.failures: Counter[str] = Counter()
        """Kind of failure to the number of prompts that failed so: ``deadline``, ``status 500``, ``unreadable``, ..."""
        self.asked = 0
        """Prompts that were sent to the model."""

    def ask(self, prompts: Sequence[Prompt], read: Callable[[str, Prompt], T | None]) -> list[T | None]:
        """Ask prompts.

        Args:
            prompts: what to ask.
            read: a reply's text and its prompt to a value; ``None`` where the text cannot be read. Must not raise.

        Returns:
            One value for each prompt, ``None`` where the model failed.
        """
        known: dict[Prompt, T | None] = {}
        identity = self.replies.identity
        for prompt in prompts:
            text = None if self.cache is None else self.cache.get(identity, prompt)
            value = None if text is None else read(text, prompt)
            if value is not None:
                known[prompt] = value
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        self.asked += len(missing)
        for prompt, reply in zip(missing, self.replies(missing) if missing else [], strict=True):
            known[prompt] = self._read(identity, prompt, reply, read)
        return [known[prompt] for prompt in prompts]

    def _read(self, identity: str, prompt: Prompt, reply: Reply, read: Callable[[str, Prompt], T | None]) -> T | None:
        if reply.text is None:
            self._count(reply.problem, reply.detail)
            return None
        value = read(reply.text, prompt)
        if value is None:
            self._count("unreadable", f"it said {reply.text[:_SHOWN_CHARACTERS]!r}")
        elif self.cache is not None:
            self.cache.put(identity, prompt, reply.text)
        return value

    def _count(self, problem: str, detail: str) -> None:
        self.failures[problem] += 1
        if self.failures[problem] == 1:
            logger.warning(
                "The judge failed (%s): %s. Its verdict counts as None; more of these are not told.", problem, detail
            )
