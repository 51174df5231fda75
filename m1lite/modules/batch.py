"""What Lightning carries from the loader to the update: samples first, tokens once they were rolled out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from m1lite.records import TokenBatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m1lite.records import Episode, Sample


class RolloutBatch:
    """The samples of one training step and, once they were rolled out, the tokens to learn from.

    A plain class: Lightning copies dataclasses and refuses frozen ones, while a callback has to fill this very object.
    Not iterable either: Lightning would take a list of batches for a list of loaders.

    Args:
        samples: this rank's questions, as the loader's collate function gets them.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = list(samples)
        self.episodes: list[Episode] = []
        """Every sample's K episodes, sample by sample."""
        self.rewards: list[Mapping[str, Any]] = []
        """One entry per episode: agent name to its rewards, for the record."""
        self.tokens: dict[str, TokenBatch] | None = None
        """Agent name to its rows; an agent that wrote nothing may be missing."""

    def to(self, device: torch.device | str, **kwargs: Any) -> RolloutBatch:
        """Move the tensors and return this object."""
        if self.tokens is not None:
            self.tokens = {agent: moved(tokens, device, **kwargs) for agent, tokens in self.tokens.items()}
        return self

    def __repr__(self) -> str:
        return f"RolloutBatch(samples={len(self.samples)}, episodes={len(self.episodes)}, tokens={self.tokens})"


def no_tokens(agent: str, device: torch.device) -> TokenBatch:
    """Return a batch without rows, for a rank on which an agent has nothing to learn from."""
    flags = torch.zeros(0, 1, dtype=torch.bool, device=device)
    values = torch.zeros(0, 1, device=device)
    return TokenBatch(
        agent=agent,
        input_ids=flags.long(),
        attention_mask=flags,
        loss_mask=flags,
        sampled_logprobs=values,
        advantages=values,
        temperature=1.0,
        policy_version=0,
    )


def moved(tokens: TokenBatch, device: torch.device | str, **kwargs: Any) -> TokenBatch:
    """Return a batch with its tensors on a device."""
    return replace(
        tokens,
        input_ids=tokens.input_ids.to(device, **kwargs),
        attention_mask=tokens.attention_mask.to(device, **kwargs),
        loss_mask=tokens.loss_mask.to(device, **kwargs),
        sampled_logprobs=tokens.sampled_logprobs.to(device, **kwargs),
        advantages=tokens.advantages.to(device, **kwargs),
    )
