"""The engine contract: token ids in, sampled ids with their log-probs out, and new weights under a version.

One engine serves one base model and the adapters on it. ``EngineGroup`` routes a mixed batch to several engines.
Nothing here imports torch at run time, transformers or vllm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor


class EngineError(RuntimeError):
    """An engine that cannot serve a request, with the policy, the value and the remedy."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Sampling:
    """How a reply is drawn: from the whole distribution.

    Truncated sampling renormalises over a part of the vocabulary, while the trainer's log-prob is over all of it, so
    that no importance ratio would be right. Its arguments exist to be refused with that reason.

    Raises:
        ValueError: if ``top_p``, ``top_k`` or ``min_p`` is not neutral.
    """

    temperature: float = 1.0
    """0 is greedy."""
    max_new_tokens: int = 64
    top_p: float = 1.0
    top_k: int = 0
    """0 or -1 is the whole vocabulary."""
    min_p: float = 0.0

    def __post_init__(self) -> None:
        for name, neutral, allowed in (("top_p", 1.0, (1,)), ("top_k", 0, (0, -1)), ("min_p", 0.0, (0,))):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` is {getattr(self, name)}, which biases importance ratios: sample from the whole "
                    f"distribution, `{name}` {neutral}."
                )


@dataclass(kw_only=True, slots=True, frozen=True)
class Request:
    """One reply to draw."""

    policy: str
    """Name of the agent whose weights sample."""
    prompt_ids: Sequence[int]
    """The whole context."""
    sampling: Sampling
    seed: int
    """Belongs to (episode, agent, turn), so results do not depend on batch size or order."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Generation:
    """One drawn reply."""

    token_ids: list[int]
    """With the end-of-sequence id where one was sampled."""
    logprobs: list[float]
    """log p(token) after temperature, one per token id (at temperature 0: of the unscaled distribution)."""
    policy_version: int
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """What the collaboration loop and the weight sync need of an engine."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Draw one reply for each request, in the order given.

        Raises:
            EngineError: if a policy is unknown or a prompt does not fit the context.
        """

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Serve ``policy`` with these LoRA tensors (PEFT state-dict names) from now on, as ``policy@version``."""

    def load_base(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replace the base model's weights (names of the transformers ``state_dict``, tied head included)."""

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""

    def close(self) -> None:
        """Free the model and its caches."""


class EngineGroup:
    """Several engines behind the one contract: every policy goes to the engine that holds its base.

    Args:
        engines: policy name to its engine; policies on one base share the engine object.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines = dict(engines)
        self.busy_seconds = 0.0
        """Time spent drawing replies so far."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Draw one reply for each request; requests of one engine are drawn in one batch."""
        started = time.perf_counter()
        try:
            return self._generate(requests)
        finally:
            self.busy_seconds += time.perf_counter() - started

    def _generate(self, requests: Sequence[Request]) -> list[Generation]:
        rows: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            rows.setdefault(id(self.engine_of(request.policy)), []).append(index)
        replies: dict[int, Generation] = {}
        for indices in rows.values():
            engine = self.engine_of(requests[indices[0]].policy)
            replies.update(zip(indices, engine.generate([requests[i] for i in indices]), strict=True))
        return [replies[i] for i in range(len(requests))]

    def engine_of(self, policy: str) -> Engine:
        """Return the engine that serves ``policy``."""
        if policy not in self.engines:
            raise EngineError(f"No engine serves policy {policy!r}; there are {sorted(self.engines)}.")
        return self.engines[policy]

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Hand the adapter to the engine of ``policy``."""
        self.engine_of(policy).load_adapter(policy, tensors, config, version)

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""
        return {policy: engine.versions()[policy] for policy, engine in self.engines.items()}

    def close(self) -> None:
        """Close every engine once."""
        for engine in {id(engine): engine for engine in self.engines.values()}.values():
            engine.close()
