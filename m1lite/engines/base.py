"""The engine contract: token ids in, sampled ids with their log-probs out, and new weights under a version.

Requests may be submitted at any time, also while others are drawn; ``step`` goes on with all of them. One engine serves
one base model and the adapters on it. ``EngineGroup`` routes requests to several engines.
Nothing here imports torch at run time, transformers or vllm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from m1lite.records import PlacedMedia


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
    media: tuple[PlacedMedia, ...] = ()
    """What the context shows, by place in ``prompt_ids``; for policies that see."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Generation:
    """One drawn reply."""

    token_ids: list[int]
    """With the end-of-sequence id where one was sampled."""
    logprobs: list[float]
    """log p(token) after temperature, one per token id (at temperature 0: of the unscaled distribution)."""
    policy_version: int
    finish_reason: Literal["stop", "length"]


class Sampler(Protocol):
    """What draws replies: the half of an engine that the collaboration loop needs."""

    @property
    def draws_together(self) -> bool:
        """Whether a step draws all that is queued to its end, so that it pays to wait for what may still be queued.

        Then the last bits of a log-prob depend on what is drawn with it, and waiting makes them the same every time.
        """

    def submit(self, request: Request) -> int:
        """Queue one reply and return its ticket, unique within the sampler.

        Raises:
            EngineError: if the policy is unknown, the prompt does not fit the context, or a sampling value is out of
                range; what was queued before stays.
        """

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Go on with what is queued and return the replies that finished, with their tickets.

        With nothing queued it returns ``[]`` at once.

        Args:
            wait: a sampler that computes elsewhere waits at most so many seconds for a reply; one that computes in this
                process computes one step, however long that takes.

        Raises:
            EngineError: if the sampler fails; what was queued is lost then, and the sampler can be used again.
        """

    @property
    def num_unfinished(self) -> int:
        """How many replies are queued or under way."""

    def abort(self) -> None:
        """Drop everything that is queued or under way; those tickets are never heard of again."""


class Engine(Sampler, Protocol):
    """A sampler whose weights can be replaced."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Draw one reply for each request, in the order given; :func:`draw_all` does it.

        Raises:
            EngineError: if a request is refused or the engine fails; nothing of the call stays queued.
        """

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Serve ``policy`` with these LoRA tensors (PEFT state-dict names) from now on, as ``policy@version``."""

    def load_base(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replace the base model's weights (names of the transformers ``state_dict``, tied head included)."""

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""

    def sleep(self) -> None:
        """Lend out memory until the next request or weights; with replies under way it does nothing."""

    def close(self) -> None:
        """Free the model and its caches."""


def draw_all(sampler: Sampler, requests: Sequence[Request]) -> list[Generation]:
    """Submit requests and step until all of them are drawn.

    Args:
        sampler: with nothing queued.
        requests: any number of them; one policy's are submitted as neighbours, which adapters are faster on.

    Returns:
        One reply for each request, in the order given.

    Raises:
        EngineError: if something is queued already, a request is refused, or the sampler fails.
    """
    if sampler.num_unfinished:
        raise EngineError(
            f"{sampler.num_unfinished} replies are under way in this engine; finish them with `step` or drop them with "
            "`abort` before a batch is drawn."
        )
    replies: dict[int, Generation] = {}
    try:
        order = sorted(range(len(requests)), key=lambda place: requests[place].policy)
        places = {sampler.submit(requests[place]): place for place in order}
        while len(replies) < len(requests):
            for ticket, reply in sampler.step(wait=1.0):
                replies[places[ticket]] = reply
    except BaseException:
        sampler.abort()
        raise
    return [replies[place] for place in range(len(requests))]


class BatchSampler:
    """A sampler made of a function that draws whole batches: everything queued is drawn in one step.

    Args:
        generate: draws one reply for each request, in the order given.
    """

    draws_together = True

    def __init__(self, generate: Callable[[Sequence[Request]], list[Generation]]) -> None:
        self._generate = generate
        self._queued: dict[int, Request] = {}
        self._num_tickets = 0

    def submit(self, request: Request) -> int:
        """Queue one reply and return its ticket."""
        self._num_tickets += 1
        self._queued[self._num_tickets] = request
        return self._num_tickets

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Draw all that is queued."""
        queued, self._queued = self._queued, {}
        return list(zip(queued, self._generate(list(queued.values())), strict=True)) if queued else []

    @property
    def num_unfinished(self) -> int:
        """How many replies are queued."""
        return len(self._queued)

    def abort(self) -> None:
        """Drop everything that is queued."""
        self._queued.clear()


class EngineGroup:
    """Several engines behind the one contract: every policy goes to the engine that holds its base.

    Args:
        engines: policy name to its engine; policies on one base share the engine object.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines = dict(engines)
        self.busy_seconds = 0.0
        """Time spent drawing replies so far."""
        self._parts = list({id(engine): engine for engine in self.engines.values()}.values())
        self._tickets: list[dict[int, int]] = [{} for _ in self._parts]
        self._part_of = {
            policy: next(place for place, part in enumerate(self._parts) if part is engine)
            for policy, engine in self.engines.items()
        }
        self._num_tickets = 0

    @property
    def draws_together(self) -> bool:
        """Whether any of the engines does."""
        return any(engine.draws_together for engine in self.engines.values())

    def submit(self, request: Request) -> int:
        """Queue one reply with the engine of its policy."""
        if request.policy not in self._part_of:
            self.engine_of(request.policy)
        part = self._part_of[request.policy]
        self._num_tickets += 1
        self._tickets[part][self._parts[part].submit(request)] = self._num_tickets
        return self._num_tickets

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Let every engine that has work make one step, so that none waits for another to be done.

        Args:
            wait: shared by those engines.
        """
        started = time.perf_counter()
        working = [place for place, part in enumerate(self._parts) if part.num_unfinished]
        finished: list[tuple[int, Generation]] = []
        try:
            for place in working:
                tickets = self._tickets[place]
                drawn = self._parts[place].step(wait / len(working))
                finished += [(tickets.pop(ticket), reply) for ticket, reply in drawn]
        except BaseException:
            self.abort()
            raise
        finally:
            self.busy_seconds += time.perf_counter() - started
        return finished

    @property
    def num_unfinished(self) -> int:
        """How many replies are queued or under way in all engines."""
        return sum(part.num_unfinished for part in self._parts)

    def abort(self) -> None:
        """Drop everything that is queued or under way in any engine."""
        for part, tickets in zip(self._parts, self._tickets, strict=True):
            part.abort()
            tickets.clear()

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Draw one reply for each request, in the order given."""
        return draw_all(self, requests)

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

    def sleep(self) -> None:
        """Let every engine sleep."""
        for part in self._parts:
            part.sleep()

    def close(self) -> None:
        """Close every engine once."""
        for part in self._parts:
            part.close()
