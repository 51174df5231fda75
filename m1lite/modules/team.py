"""The policy team: LoRA adapters or whole copies of shared frozen bases, and the log-probs of what the agents wrote.

The frozen reference of an agent is its base with the adapters off, never a second copy. Nothing here knows losses,
optimisers or engines; loading a base is in ``bases.py``, training in ``marl.py``.

Agents of one base take turns on it. One pass for all of them, by the ``adapter_names`` of PEFT, gives the same numbers
to 4e-7 and was slower by a tenth (benchmarks/results/packing_cpu_202611.md), so it is left out.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from m1lite.engines.features import VisionFeatures
from m1lite.engines.model_classes import sees
from m1lite.modules.bases import base_tensors, hash_weights
from m1lite.modules.packing import predicting_states, prepare_packing
from m1lite.modules.policies import TOWER, check_head, has_adapters, head_of, trained_copy, with_adapters
from m1lite.modules.seeing import never_sampled, seen_states
from m1lite.rl.logprobs import hidden_logprobs
from m1lite.rl.vocabulary_kl import reference_kl

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from m1lite.modules.bases import Base
    from m1lite.records import TokenBatch
    from m1lite.video.cache import FrameCache


class Team(nn.Module):
    """Agents, each a LoRA adapter on one of the shared bases, or a copy of one that is trained in full.

    Bases and copies stay in eval mode, and bases frozen, whatever mode the team is in; what is trained is float32 and
    adapters are without dropout, so that a policy's log-probs are the same while sampling and while training.

    Args:
        bases: base name to base; adapters are put into its model.
        members: agent name to base name, in the order in which agents are trained and reported.
        full: agents that train all weights of a copy of their own; the base is their frozen reference.
        rank: of every adapter.
        alpha: adapters are scaled by ``alpha / rank``.
        target_modules: PEFT's choice of layers; ``"all-linear"`` is every linear layer but the head.
        seed: of the adapters' first weights; every agent draws its own from (seed, name).
        packing: score rows end to end instead of padded (``packing.py``): the same log-probs and gradients, and less to
            compute where lengths differ much.
        frames: decodes what agents on bases that see are shown; None where they are shown nothing.

    Raises:
        ValueError: if there is no agent, an agent names an unknown base or has a name that weights cannot carry, or a
            base changes its logits after the head or cannot be packed.

    What the methods call an agent's adapter is, for an agent that is trained in full, all of its weights.
    """

    def __init__(
        self,
        bases: Mapping[str, Base],
        members: Mapping[str, str],
        *,
        full: Collection[str] = (),
        rank: int = 16,
        alpha: int = 32,
        target_modules: str | list[str] = "all-linear",
        seed: int = 0,
        packing: bool = False,
        frames: FrameCache | None = None,
    ) -> None:
        super().__init__()
        _check_members(bases, members, full)
        self.members = dict(members)
        self.packing = packing
        used = {name: base for name, base in bases.items() if name in members.values()}
        self.tokenizers = {name: base.tokenizer for name, base in used.items()}
        self._hashes: dict[str, str] = {}
        self.features: dict[str, VisionFeatures] = {}
        """Base name to the features of its frozen tower, computed once for all rows and passes; of bases that see."""
        self.models = nn.ModuleDict()
        """Base name to base, inside PEFT where it carries adapters."""
        self.copies = nn.ModuleDict()
        """Names of agents that are trained in full to their models."""
        for name, base in used.items():
            check_head(name, base)
            if frames is not None and sees(base.model.config):
                self.features[name] = VisionFeatures(base.model, frames)
            if packing:
                prepare_packing(base.model)
            agents = [agent for agent, owner in members.items() if owner == name]
            self.copies.update({agent: trained_copy(base) for agent in agents if agent in full})
            self.models[name] = with_adapters(
                base,
                [agent for agent in agents if agent not in full],
                rank=rank,
                alpha=alpha,
                target_modules=target_modules,
                seed=seed,
            )
            if base.gradient_checkpointing:
                self._checkpoint_layers(name)
        # PEFT leaves only the adapter that was set last trainable; an optimiser needs all of them.
        self._require_adapter_grads()
        self.register_state_dict_post_hook(_keep_trainable)
        self.register_load_state_dict_post_hook(_forget_frozen)
        self.train()

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents, in order."""
        return tuple(self.members)

    def pad_id(self, agent: str) -> int:
        """Return the id that fills the agent's rows on the right."""
        self._model_of(agent)
        tokenizer = self.tokenizers[self.members[agent]]
        return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)

    def adapter_parameters(self, agent: str) -> dict[str, nn.Parameter]:
        """Return the agent's trainable parameters: LoRA under PEFT's state-dict names, a tied head once."""
        model = self._model_of(agent)
        if agent in self.copies:
            return dict(self.copies[agent].named_parameters())
        mark = f".{agent}."
        return {
            name.replace(mark, "."): parameter
            for name, parameter in model.named_parameters()
            if ".lora_" in name and mark in name
        }

    def adapter_tensors(self, agent: str) -> dict[str, Tensor]:
        """Return copies of the agent's tensors as an engine takes them.

        LoRA tensors have PEFT's state-dict names; whole weights those of transformers, a tied head included.
        """
        if agent in self.copies:
            return {name: value.detach().clone() for name, value in base_tensors(self.copies[agent])}
        return {name: value.detach().clone() for name, value in self.adapter_parameters(agent).items()}

    def adapter_config(self, agent: str) -> dict[str, Any]:
        """Return what an engine needs to know of the agent's adapter, under PEFT's names; empty for whole weights."""
        if agent in self.copies:
            return {}
        config = self._model_of(agent).peft_config[agent]
        layers = config.target_modules  # names, or one pattern
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": config.r,
            "lora_alpha": config.lora_alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": layers if isinstance(layers, str) else sorted(layers),
            **({"exclude_modules": TOWER} if sees(self._model_of(agent).config) else {}),
        }

    def logprobs(self, agent: str, batch: TokenBatch, *, entropy_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """Score the sampled tokens under the agent's policy.

        The agent's adapter stays active afterwards: run the backward pass before another agent's turn, or turn gradient
        checkpointing on, which restores the right adapter for its recomputation by itself.

        Args:
            agent: whose adapter.
            batch: B rows, T tokens.
            entropy_gradient: let the entropies carry a gradient too, as an entropy bonus needs it.

        Returns:
            Log-probs at ``batch.temperature``, float32 ``(B, T)``, with gradient; and entropies in nats, float32
            ``(B, T)``. Both are 0 outside of ``loss_mask``.

        Raises:
            ValueError: if the agent is unknown, the temperature is not positive, or a row's first token has a loss.
        """
        return self._score(self._policy(agent), agent, batch, entropy_gradient)

    @torch.no_grad()
    def reference_logprobs(self, agent: str, batch: TokenBatch) -> Tensor:
        """Score the sampled tokens under the agent's base, all adapters off; as :meth:`logprobs`, without gradient."""
        with self._reference(agent) as model:
            return self._score(model, agent, batch)[0]

    def reference_divergence(self, agent: str, batch: TokenBatch) -> Tensor:
        """Return how far the policy is from its base where it wrote: KL(base ‖ policy) over the whole vocabulary.

        Args:
            agent: whose policy; as in :meth:`logprobs`, its adapter stays active.
            batch: B rows, T tokens.

        Returns:
            float32 ``(B, T)`` in nats, with gradient; 0 outside of ``loss_mask``.
        """
        mask, found = batch.loss_mask, []
        with torch.no_grad(), self._reference(agent) as model:
            found += [self._states(model, agent, batch), _sampled_head(model).detach()]
        model = self._policy(agent)
        states = self._states(model, agent, batch)  # (N, D)
        divergence = reference_kl(states, _sampled_head(model), *found, temperature=batch.temperature)
        return torch.zeros_like(batch.sampled_logprobs).masked_scatter(mask, divergence)

    def base_hashes(self) -> dict[str, str]:
        """Return the content hash of every base; computed once, at the first call."""
        for name, model in self.models.items():
            if name not in self._hashes:
                self._hashes[name] = hash_weights(model)
        return dict(self._hashes)

    def fingerprint(self) -> str:
        """Return a hash of all bases and adapters: equal on ranks that hold the same team."""
        digest = hashlib.blake2b(repr(sorted(self.base_hashes().items())).encode(), digest_size=16)
        for agent in self.agents:
            for name, tensor in sorted(self.adapter_tensors(agent).items()):
                digest.update(f"{agent} {name}".encode())
                digest.update(tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def train(self, mode: bool = True) -> Team:
        """Set the team's own mode; bases and copies stay in eval mode."""
        super().train(mode)
        for model in (*self.models.values(), *self.copies.values()):
            model.eval()
            for module in model.modules():
                if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
                    # Only this flag of the layer itself: its children, where dropout lives, stay in eval mode.
                    module.training = mode
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint must match: the agents, their bases and kinds, and the bases' hashes."""
        return {"members": dict(self.members), "full": list(self.copies), "base_hashes": self.base_hashes()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Check that a checkpoint was made by this team on these bases.

        Raises:
            ValueError: if agents or bases differ; both sides are named.
        """
        if state["members"] != self.members:
            raise ValueError(f"The checkpoint is of the team {state['members']}, this team is {self.members}.")
        if state["full"] != list(self.copies):
            raise ValueError(f"The checkpoint trains {state['full']} in full, this team {list(self.copies)}.")
        for name, own in self.base_hashes().items():
            stored = state["base_hashes"][name]
            if stored != own:
                raise ValueError(
                    f"The checkpoint's adapters belong to a base {name!r} with hash {stored}, but the loaded base has "
                    f"hash {own}; load the base that the run was started from."
                )

    def _model_of(self, agent: str) -> Any:
        if agent not in self.members:
            raise ValueError(f"Unknown agent {agent!r}; the team is {list(self.members)}.")
        return self.models[self.members[agent]]

    def _policy(self, agent: str) -> Any:
        """Return the bare model that computes as the agent's policy, until another agent's turn."""
        if agent in self.copies:
            return self.copies[agent]
        self._activate(agent)
        return self._model_of(agent).get_base_model()

    @contextmanager
    def _reference(self, agent: str) -> Iterator[Any]:
        """Give the bare model of the agent's base, with all adapters off."""
        model = self._model_of(agent)
        if not has_adapters(model):
            yield model
            return
        model.base_model.disable_adapter_layers()
        try:
            yield model.get_base_model()
        finally:
            model.base_model.enable_adapter_layers()
            self._require_adapter_grads()

    def _activate(self, agent: str) -> None:
        model = self._model_of(agent)
        if model.base_model.active_adapters != [agent]:
            model.base_model.set_adapter(agent)
            self._require_adapter_grads()

    def _require_adapter_grads(self) -> None:
        for name, parameter in self.models.named_parameters():
            parameter.requires_grad_(".lora_" in name)

    def _states(self, model: Any, agent: str, batch: TokenBatch) -> Tensor:
        """Return the hidden states that predict the sampled tokens, ``(N, D)``."""
        if sees(model.config):
            features = self.features.get(self.members[agent])
            return seen_states(model, batch, batch.loss_mask, features, packed=self.packing)
        return predicting_states(model, batch.input_ids, batch.loss_mask, packed=self.packing)

    def _score(
        self, model: Any, agent: str, batch: TokenBatch, entropy_gradient: bool = False
    ) -> tuple[Tensor, Tensor]:
        if not batch.temperature > 0:
            raise ValueError(
                f"`temperature` of {batch.agent!r}'s batch is {batch.temperature}; only tokens sampled above 0 "
                "can train."
            )
        mask = batch.loss_mask
        if bool(mask[:, 0].any()):
            raise ValueError(
                f"`loss_mask` of the batch of {batch.agent!r} is true on a first token, which nothing predicts."
            )
        scores = torch.zeros(2, *mask.shape, dtype=torch.float32, device=mask.device)
        if not bool(mask.any()):
            return scores[0], scores[1]
        found, entropy = hidden_logprobs(
            self._states(model, agent, batch),  # (N, D)
            head_of(model),
            batch.input_ids[mask],
            temperature=batch.temperature,
            entropies=True,
            entropy_gradient=entropy_gradient,
            never=never_sampled(model),
        )
        assert entropy is not None
        return scores[0].masked_scatter(mask, found), scores[1].masked_scatter(mask, entropy)

    def _checkpoint_layers(self, base: str) -> None:
        """Turn gradient checkpointing on, with a recomputation under the adapter of the forward pass."""
        copies: list[Any] = [copy for agent, copy in self.copies.items() if self.members[agent] == base]
        for copy in copies:
            copy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model: Any = self.models[base]
        if not has_adapters(model):
            return

        def contexts() -> tuple[Any, Any]:
            return nullcontext(), self._activated(model.base_model.active_adapters[0])

        model.get_base_model().gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False, "context_fn": contexts}
        )

    @contextmanager
    def _activated(self, agent: str) -> Iterator[None]:
        before = self._model_of(agent).base_model.active_adapters[0]
        self._activate(agent)
        try:
            yield
        finally:
            self._activate(before)


def _check_members(bases: Mapping[str, Base], members: Mapping[str, str], full: Collection[str]) -> None:
    if not members:
        raise ValueError("`members` is empty; a team needs at least one agent.")
    for agent, base in members.items():
        if base not in bases:
            raise ValueError(f"Agent {agent!r} names base {base!r}; there are {sorted(bases)}.")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", agent):
            raise ValueError(f"Agent name {agent!r} may hold only letters, digits, `_` and `-`; weights carry it.")
    unknown = sorted(set(full) - set(members))
    if unknown:
        raise ValueError(f"`full` names {unknown}; the team is {sorted(members)}.")


def _sampled_head(model: Any) -> Tensor:
    """Return the output matrix without the tokens that are never sampled."""
    head, never = head_of(model), never_sampled(model)
    if never is None:
        return head
    kept = torch.ones(len(head), dtype=torch.bool, device=head.device)
    kept[never] = False
    return head[kept]


def _keep_trainable(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Leave frozen weights out of the state dict."""
    trained = {f"{prefix}{name}" for name, parameter in module.named_parameters() if parameter.requires_grad}
    for name in [key for key in state if key.startswith(prefix) and key not in trained | {f"{prefix}_extra_state"}]:
        del state[name]


def _forget_frozen(module: nn.Module, keys: Any) -> None:
    """Do not report the weights that :func:`_keep_trainable` left out as missing."""
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    ends = (*trained, "_extra_state")  # before them stands the name of the module that the team is part of
    keys.missing_keys[:] = [key for key in keys.missing_keys if key.endswith(ends)]
