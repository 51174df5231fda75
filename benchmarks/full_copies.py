"""A team whose agents are whole models: the opponent of LoRA adapters in ``study_lora.py``.

It offers what ``MarlModule``, ``RolloutCallback`` and ``SyncCallback`` use of ``m1lite.modules.team.Team``. Each agent
is a trained copy of its base and needs an engine of its own; the base itself stays frozen, as the reference of all its
agents. Checkpoints, gradient checkpointing and several ranks are left out: the study needs none of them.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from m1lite.modules.bases import base_tensors, hash_weights
from m1lite.rl.logprobs import token_entropies, token_logprobs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from m1lite.engines.base import EngineGroup
    from m1lite.modules.bases import Base
    from m1lite.records import TokenBatch


class FullCopies(nn.Module):
    """Agents, each a fully trained copy of a base.

    The names are those of ``Team``: an agent's "adapter" is all of its weights.

    Args:
        bases: base name to base, in float32; frozen here.
        members: agent name to base name, in the order in which agents are trained and reported.
    """

    def __init__(self, bases: Mapping[str, Base], members: Mapping[str, str]) -> None:
        super().__init__()
        self.members = dict(members)
        self.tokenizers = {name: bases[name].tokenizer for name in self.members.values()}
        self.references = nn.ModuleDict({name: bases[name].model.requires_grad_(False) for name in self.tokenizers})
        self.copies = nn.ModuleDict(
            {agent: copy.deepcopy(bases[name].model).requires_grad_(True) for agent, name in self.members.items()}
        )
        self.train()

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents, in order."""
        return tuple(self.members)

    def pad_id(self, agent: str) -> int:
        """Return the id that fills the agent's rows on the right."""
        tokenizer: Any = self.tokenizers[self.members[agent]]
        return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)

    def adapter_parameters(self, agent: str) -> dict[str, nn.Parameter]:
        """Return all weights of the agent's copy, a tied head once."""
        return dict(self.copies[agent].named_parameters())

    def adapter_tensors(self, agent: str) -> dict[str, Tensor]:
        """Return copies of the agent's weights under their transformers names, tied head included."""
        return {name: value.detach().clone() for name, value in base_tensors(self.copies[agent])}

    def adapter_config(self, agent: str) -> dict[str, Any]:
        """Return nothing: an engine needs to know no more of whole weights."""
        return {}

    def logprobs(self, agent: str, batch: TokenBatch, *, entropy_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """Score the sampled tokens under the agent's copy.

        Args:
            agent: whose copy.
            batch: B rows, T tokens, none with a loss on a row's first token.
            entropy_gradient: let the entropies carry a gradient too.

        Returns:
            Log-probs at ``batch.temperature``, float32 ``(B, T)``, with gradient; and entropies in nats, float32
            ``(B, T)``. Both are 0 outside of ``loss_mask``.
        """
        return _score(self.copies[agent], batch, entropy_gradient)

    @torch.no_grad()
    def reference_logprobs(self, agent: str, batch: TokenBatch) -> Tensor:
        """Score the sampled tokens under the agent's untouched base; as :meth:`logprobs`, without gradient."""
        return _score(self.references[self.members[agent]], batch)[0]

    def base_hashes(self) -> dict[str, str]:
        """Return the content hash of every base."""
        return {name: hash_weights(model) for name, model in self.references.items()}

    def fingerprint(self) -> str:
        """Return a hash of all bases and copies."""
        copies = {agent: hash_weights(model) for agent, model in self.copies.items()}
        return hashlib.blake2b(repr([self.base_hashes(), copies]).encode(), digest_size=16).hexdigest()

    def train(self, mode: bool = True) -> FullCopies:
        """Set the team's own mode; the models stay in eval mode, without dropout."""
        super().train(mode)
        self.references.eval()
        self.copies.eval()
        return self


class WholeWeights:
    """Takes what ``SyncCallback`` publishes as an agent's adapter and loads it as its engine's base.

    Args:
        engines: with one engine for each agent.
    """

    def __init__(self, engines: EngineGroup) -> None:
        self.engines = engines

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Serve ``policy`` with these weights from now on."""
        self.engines.engine_of(policy).load_base(tensors.items(), version)

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""
        return self.engines.versions()


def _score(model: Any, batch: TokenBatch, entropy_gradient: bool = False) -> tuple[Tensor, Tensor]:
    mask = batch.loss_mask
    scores = torch.zeros(2, *mask.shape, dtype=torch.float32, device=mask.device)
    if not bool(mask.any()):
        return scores[0], scores[1]
    # Padding is on the right and attention causal, so real tokens never see it. The last token predicts nothing.
    hidden = model.base_model(input_ids=batch.input_ids[:, :-1], use_cache=False).last_hidden_state
    # All logits at once: the vocabulary is tiny, and chunks that are computed again would cost the copies seconds.
    logits = model.get_output_embeddings()(hidden[mask[:, 1:]])  # (B, T - 1, D) -> (N, V)
    found = token_logprobs(logits, batch.input_ids[mask], temperature=batch.temperature)
    entropy = token_entropies(logits if entropy_gradient else logits.detach(), temperature=batch.temperature)
    return scores[0].masked_scatter(mask, found), scores[1].masked_scatter(mask, entropy)
