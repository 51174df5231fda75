"""Replies of a language model behind an OpenAI-compatible endpoint to the prompts of a judge.

Sending, deadlines and failures are in ``toolbox/chat_endpoint.py``; what is asked is in model_judge.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m1lite.toolbox.chat_endpoint import ChatEndpoint

if TYPE_CHECKING:
    from m1lite.rewards.asking import Reply
    from m1lite.rewards.prompts import Prompt


class Endpoint:
    """Asks prompts as chats of a system and a user message.

    Args:
        base_url: this and the others as in :class:`~m1lite.toolbox.chat_endpoint.ChatEndpoint`.
        model: its name at the endpoint.
        api_key_variable: name of the environment variable that holds the key; None sends none.
        deadline_seconds: for one prompt, all tries together.
        workers: prompts in flight at a time, in each process.
        tries: of one prompt, at least 1.
        options: further fields of the request.

    Raises:
        ValueError: if the URL cannot be used, the variable is not set or holds no key, or a number is too small.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key_variable: str | None = None,
        deadline_seconds: float = 60.0,
        workers: int = 8,
        tries: int = 3,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self._chat = ChatEndpoint(
            base_url=base_url,
            model=model,
            api_key_variable=api_key_variable,
            deadline_seconds=deadline_seconds,
            workers=workers,
            tries=tries,
            options=options,
        )

    def __repr__(self) -> str:
        return f"Endpoint({self._chat!r})"

    @property
    def identity(self) -> str:
        """Model and options; where the endpoint stands changes no reply."""
        return self._chat.identity

    def __call__(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Reply to each prompt, in the order given."""
        return self._chat(
            [
                [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
                for prompt in prompts
            ]
        )
