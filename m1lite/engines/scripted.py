"""An engine whose replies come from a function: for tests, demonstrators and oracles. It holds no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m1lite.engines.base import BatchSampler, EngineError, Generation, draw_all
from m1lite.engines.checks import check_policy, check_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from m1lite.engines.base import Request


class ScriptedEngine:
    """Replies with what a function of the request says, under the rules of a real engine.

    Args:
        reply: the token ids of one reply; chance, if any, must come from ``request.seed``.
        policies: names that are served.
        eos_token_ids: a reply is cut after the first of these.
        max_model_len: tokens of context, the reply included; ``None`` sets no limit.
        logprob: what every token reports as its log-probability.

    Raises:
        ValueError: if no policy is named.
    """

    draws_together = False

    def __init__(
        self,
        reply: Callable[[Request], Sequence[int]],
        *,
        policies: Sequence[str],
        eos_token_ids: Sequence[int] = (),
        max_model_len: int | None = None,
        logprob: float = 0.0,
    ) -> None:
        if not policies:
            raise ValueError("`policies` is empty; name the policies that the script answers for.")
        self.reply = reply
        self.eos_token_ids = frozenset(eos_token_ids)
        self.max_model_len = max_model_len
        self.logprob = logprob
        self._versions = dict.fromkeys(policies, 0)
        self._adapted: set[str] = set()
        self._queue = BatchSampler(lambda requests: [self._generation(request) for request in requests])

    def submit(self, request: Request) -> int:
        """Queue one reply.

        Raises:
            EngineError: if the policy is unknown or the prompt does not fit.
        """
        check_request(request, policies=self._versions, max_model_len=self.max_model_len, vocab_size=None)
        return self._queue.submit(request)

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Ask the function once for each queued request, in the order submitted.

        Raises:
            EngineError: if the function returns an empty reply.
        """
        return self._queue.step()

    @property
    def num_unfinished(self) -> int:
        """How many replies are queued."""
        return self._queue.num_unfinished

    def abort(self) -> None:
        """Drop everything that is queued."""
        self._queue.abort()

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Ask the function once for each request."""
        return draw_all(self, requests)

    def _generation(self, request: Request) -> Generation:
        ids = list(self.reply(request))
        if not ids:
            raise EngineError(f"The script of policy {request.policy!r} returned no token; at least 1 is needed.")
        stop = next((place + 1 for place, token in enumerate(ids) if token in self.eos_token_ids), len(ids))
        room = request.sampling.max_new_tokens
        if self.max_model_len is not None:
            room = min(room, self.max_model_len - len(request.prompt_ids))
        ids = ids[: min(stop, room)]
        return Generation(
            token_ids=ids,
            logprobs=[self.logprob] * len(ids),
            policy_version=self._versions[request.policy],
            finish_reason="stop" if ids[-1] in self.eos_token_ids else "length",
        )

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Note the version; the tensors are ignored.

        Raises:
            EngineError: if the policy is unknown.
        """
        check_policy(policy, self._versions)
        self._adapted.add(policy)
        self._versions[policy] = version

    def load_base(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Note the version for every policy without an adapter; the tensors are ignored."""
        self._versions.update(dict.fromkeys(self._versions.keys() - self._adapted, version))

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""
        return dict(self._versions)

    def sleep(self) -> None:
        """Do nothing; there is nothing to lend."""

    def close(self) -> None:
        """Do nothing; there is nothing to free."""
