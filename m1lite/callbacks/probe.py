"""After a sync: an agent writes a few tokens, and the trainer scores them with the weights that it believes are served.

What is compared and why it shows a stale engine stands in the class. Publishing is in ``sync.py``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from m1lite.collaboration.loop import derive_seed
from m1lite.engines.base import Request, Sampling
from m1lite.records import TokenBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from m1lite.engines.base import Generation
    from m1lite.modules.team import Team

_PROMPT_TOKENS = 40
"""More than one block of vLLM's prefix cache (16 on a GPU, 32 here on a CPU): a stale block would be found again."""
_NEW_TOKENS = 2
"""One from the prompt and one from a cached context; each costs a step of the engine, the larger part of a probe."""
_FLOAT32_TOLERANCE, _TOLERANCE = 1e-3, 0.5
"""In nats. Engines agree with transformers to 1e-5 in float32 and to 0.16 in bfloat16; old weights are off by more."""


@dataclass(kw_only=True, slots=True)
class Probed:
    """What one probe of one agent found."""

    agent: str
    error: float
    """Largest distance between engine and trainer of a token's log-prob, nats."""
    tolerance: float
    shift: float | None
    """Largest distance of a token's log-prob from that of the agent's last probe, nats; None at its first."""

    @property
    def agrees(self) -> bool:
        """Whether the engine serves the trainer's weights; a value that is no number does not agree."""
        return self.error <= self.tolerance


class Probe:
    """Compares engine and trainer on a short reply to the agent's own fixed prompt.

    The error is taken on tokens that the engine draws now. The shift is taken on the tokens of the last probe: how far
    the trainer's weights of today are from the log-probs that the engine gave then. An engine that kept old weights, or
    keys and values that were computed with them, shows an error as large as the shift. Where the shift is below the
    tolerance no probe can tell, and nothing is wrong yet.

    It costs one reply of few tokens and one forward pass of two short rows, so an agent in turn is probed after a sync
    and not all of them: with four agents every one is probed at least every fourth update. All rollouts' tokens are
    compared in the update besides (``sampling/sampling_logp_difference``), but only after they were paid for.

    Args:
        generate: draws replies, ``EngineGroup.generate``.
        tolerance: in nats; None is 1e-3 where the trainer computes in float32 and 0.5 otherwise.
    """

    def __init__(
        self, generate: Callable[[Sequence[Request]], list[Generation]], *, tolerance: float | None = None
    ) -> None:
        self._generate = generate
        self._tolerance = tolerance
        self._prompts: dict[str, list[int]] = {}
        self._last: dict[str, tuple[list[int], list[float]]] = {}
        """Agent to the tokens of its last probe and the engine's log-probs of them."""

    def __call__(self, team: Team, agents: Sequence[str]) -> list[Probed]:
        """Probe some agents; their replies are drawn together."""
        requests = [
            Request(
                policy=agent,
                prompt_ids=self._prompt(team, agent),
                sampling=Sampling(temperature=1.0, max_new_tokens=_NEW_TOKENS),
                seed=derive_seed(0, "probe", agent),
            )
            for agent in agents
        ]
        return [
            self._compare(team, agent, reply) for agent, reply in zip(agents, self._generate(requests), strict=True)
        ]

    def _compare(self, team: Team, agent: str, reply: Generation) -> Probed:
        last = self._last.get(agent)
        replies = [reply.token_ids] if last is None else [reply.token_ids, last[0]]
        weight = next(team.models[team.members[agent]].parameters())
        batch = rows(agent, self._prompt(team, agent), replies, pad_id=team.pad_id(agent), device=weight.device)
        with torch.no_grad():
            scores = team.logprobs(agent, batch)[0].cpu()  # (1 or 2, T)
        own = [scores[row, _PROMPT_TOKENS:][: len(ids)] for row, ids in enumerate(replies)]
        self._last[agent] = reply.token_ids, reply.logprobs
        usual = _FLOAT32_TOLERANCE if weight.dtype == torch.float32 else _TOLERANCE
        return Probed(
            agent=agent,
            error=_distance(own[0], reply.logprobs),
            tolerance=usual if self._tolerance is None else self._tolerance,
            shift=None if last is None else _distance(own[1], last[1]),
        )

    def _prompt(self, team: Team, agent: str) -> list[int]:
        """Draw the agent's prompt once, from plain words: a special id could stand for a picture that is not there."""
        if agent not in self._prompts:
            tokenizer: Any = team.tokenizers[team.members[agent]]
            special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
            words = sorted(set(tokenizer.get_vocab().values()) - special)
            self._prompts[agent] = random.Random(agent).choices(words, k=_PROMPT_TOKENS)
        return self._prompts[agent]


def rows(
    agent: str, prompt: list[int], replies: Sequence[list[int]], *, pad_id: int, device: torch.device
) -> TokenBatch:
    """Put replies behind their common prompt, padded on the right, with a loss on the replies alone."""
    written = [[*prompt, *reply] for reply in replies]
    width = max(map(len, written))
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in written], device=device)
    lengths = torch.tensor([[len(row)] for row in written], device=device)
    places = torch.arange(width, device=device)
    real = places < lengths
    return TokenBatch(
        agent=agent,
        input_ids=ids,
        attention_mask=real,
        loss_mask=real & (places >= len(prompt)),
        sampled_logprobs=torch.zeros(ids.shape, device=device),
        advantages=torch.zeros(ids.shape, device=device),
        temperature=1.0,
        policy_version=0,
    )


def _distance(ours: Tensor, theirs: Sequence[float]) -> float:
    return float((ours - torch.tensor(theirs)).abs().max())
