"""Replies of a language model that an engine serves in this process: a judge without a server."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from m1lite.engines.base import EngineError, Request, Sampling
from m1lite.rewards.asking import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.agents.chat import Chat
    from m1lite.engines.base import Engine, Generation
    from m1lite.rewards.prompts import Prompt


class EngineReplies:
    """Draws replies from an engine, all prompts of a call in one batch.

    An engine cannot be interrupted: what bounds the time of a reply is ``max_new_tokens``.

    Args:
        engine: holds the judge.
        chat: of the judge's tokenizer.
        name: says which model it is; a part of the cache's key.
        policy: name under which the engine serves it.
        max_new_tokens: of one reply; one that is cut is a failure.
        temperature: 0 is greedy.

    Raises:
        ValueError: if the engine does not serve the policy.
    """

    def __init__(
        self,
        engine: Engine,
        chat: Chat,
        *,
        name: str,
        policy: str = "judge",
        max_new_tokens: int = 512,
        temperature: float = 0.0,
    ) -> None:
        served = engine.versions()
        if policy not in served:
            raise ValueError(f"`policy` is {policy!r}, which the engine does not serve; it serves {sorted(served)}.")
        self.engine = engine
        self.chat = chat
        self.name = name
        self.policy = policy
        self.sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)

    @property
    def identity(self) -> str:
        """Name, version of the weights and sampling."""
        version = self.engine.versions()[self.policy]
        return f"{self.name} version {version} {self.sampling.temperature:g} {self.sampling.max_new_tokens}"

    def __call__(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Reply to each prompt, in the order given."""
        requests = [self._request(prompt) for prompt in prompts]
        try:
            return [self._reply(generation) for generation in self.engine.generate(requests)]
        except EngineError:
            # One prompt that does not fit refuses its whole batch, so each is asked alone.
            return [self._alone(request) for request in requests]

    def _request(self, prompt: Prompt) -> Request:
        digest = hashlib.blake2b(f"{prompt.system}\x1f{prompt.user}".encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "big") >> 1
        ids = self.chat.open(prompt.system, prompt.user)
        return Request(policy=self.policy, prompt_ids=ids, sampling=self.sampling, seed=seed)

    def _alone(self, request: Request) -> Reply:
        try:
            return self._reply(self.engine.generate([request])[0])
        except EngineError as error:
            return Reply(problem="engine", detail=str(error))

    def _reply(self, generation: Generation) -> Reply:
        if generation.finish_reason == "length":
            detail = f"the reply reached {len(generation.token_ids)} tokens; give more `max_new_tokens` or context"
            return Reply(problem="cut", detail=detail)
        return Reply(text=self.chat.decode(generation.token_ids))
