"""A transformers engine with PEFT adapters: batched sampling with a key-value cache, for machines without vLLM.

Exact rather than fast: in float32 on a CPU the same call gives the same bits. The requests of one policy are drawn
together, so a mixed batch costs one pass for each policy. See ``vllm.py`` for throughput.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import AutoConfig

from m1lite.engines.base import EngineError, draw_all
from m1lite.engines.checks import check_media, check_policy, check_request, check_state_dict
from m1lite.engines.drawing import batches, draw
from m1lite.engines.features import VisionFeatures
from m1lite.engines.model_classes import model_class
from m1lite.engines.sight import sight_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from m1lite.engines.base import Generation, Request
    from m1lite.video.cache import FrameCache


class HfEngine:
    """Serves one base model and the adapters on it with plain transformers.

    Until its first adapter a policy is the base itself, under version 0.

    Args:
        model: a name or directory for ``from_pretrained``, or a model, of which the engine takes its own copy.
        policies: names that are served.
        eos_token_ids: a reply ends with the first of these; ``None`` takes the model's generation config.
        max_model_len: tokens of context, the reply included; ``None`` takes the model's ``max_position_embeddings``.
        max_batch_tokens: bound on rows times width of one batch, which bounds the memory of the cache.
        dtype: of the weights that are loaded by name.
        device: where the model runs.
        frames: decodes what policies that see are shown.

    Raises:
        ValueError: if no policy is named, or no end-of-sequence id is known.
    """

    draws_together = True

    def __init__(
        self,
        model: PreTrainedModel | str | Path,
        policies: Sequence[str],
        *,
        eos_token_ids: Sequence[int] | None = None,
        max_model_len: int | None = None,
        max_batch_tokens: int = 65536,
        dtype: str = "float32",
        device: str = "cpu",
        frames: FrameCache | None = None,
    ) -> None:
        if not policies:
            raise ValueError("`policies` is empty; name the policies that this engine serves.")
        base: Any = copy.deepcopy(model) if isinstance(model, torch.nn.Module) else _load(model, dtype)
        self._model: Any = base.to(device).eval().requires_grad_(False)
        self._config = base.config
        # PEFT renames what it wraps; the parameters themselves stay, so the plain names are noted before.
        self._weights = dict(base.state_dict(keep_vars=True))
        eos = base.generation_config.eos_token_id if eos_token_ids is None else list(eos_token_ids)
        if eos is None or eos == []:
            raise ValueError("`eos_token_ids` is not given and the model's generation config has none; pass them.")
        self.eos_token_ids = frozenset([eos] if isinstance(eos, int) else eos)
        text = base.config.get_text_config()
        self.max_model_len = text.max_position_embeddings if max_model_len is None else max_model_len
        self._vocab_size = text.vocab_size
        self._sight = sight_of(base.config)
        self._features = None if self._sight is None or frames is None else VisionFeatures(base, frames)
        self.max_batch_tokens = max_batch_tokens
        self._versions = dict.fromkeys(policies, 0)
        self._adapters: dict[str, str] = {}  # policy to its name inside PEFT, where a dot would not do
        self._slots: dict[str, dict[str, Tensor]] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        self._num_injected = 0
        self._queued: dict[int, Request] = {}  # by ticket, in the order submitted
        self._num_tickets = 0

    def submit(self, request: Request) -> int:
        """Queue one reply; it has a generator of its own seed.

        Raises:
            EngineError: if the policy is unknown, the prompt does not fit, or a sampling value is out of range.
        """
        check_request(request, policies=self._versions, max_model_len=self.max_model_len, vocab_size=self._vocab_size)
        check_media(request, self._sight, can_decode=self._features is not None)
        self._num_tickets += 1
        self._queued[self._num_tickets] = request
        return self._num_tickets

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Draw everything that is queued for the policy of the oldest request, in batches of like length.

        Raises:
            EngineError: if the model fails, for example for want of memory.
        """
        if not self._queued:
            return []
        try:
            return self._draw_oldest()
        except Exception as error:
            self.abort()
            raise EngineError(f"The transformers engine failed: {error!r}") from error

    def _draw_oldest(self) -> list[tuple[int, Generation]]:
        policy = next(iter(self._queued.values())).policy
        tickets = [ticket for ticket, request in self._queued.items() if request.policy == policy]
        requests = [self._queued.pop(ticket) for ticket in tickets]
        finished: list[tuple[int, Generation]] = []
        with self._weights_of(policy):
            for batch in batches(range(len(requests)), requests, self.max_batch_tokens):
                drawn = draw(
                    self._model,
                    [requests[row] for row in batch],
                    eos_token_ids=self.eos_token_ids,
                    max_model_len=self.max_model_len,
                    version=self._versions[policy],
                    sight=self._sight,
                    features=self._features,
                )
                finished += zip([tickets[row] for row in batch], drawn, strict=True)
        return finished

    @property
    def num_unfinished(self) -> int:
        """How many replies are queued."""
        return len(self._queued)

    def abort(self) -> None:
        """Drop everything that is queued."""
        self._queued.clear()

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Draw one reply for each request, in the order given."""
        return draw_all(self, requests)

    def _weights_of(self, policy: str) -> AbstractContextManager[None]:
        """Make the model compute with the policy's adapter, or without any."""
        if not isinstance(self._model, PeftModel):
            return nullcontext()
        if policy not in self._adapters:
            return self._model.disable_adapter()
        self._model.set_adapter(self._adapters[policy], inference_mode=True)
        return nullcontext()

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Serve ``policy`` with a copy of these LoRA tensors from now on.

        Raises:
            EngineError: if the policy is unknown, the adapter changes the base, or a tensor has no place.
        """
        check_policy(policy, self._versions)
        slots = self._slots.get(policy, {})
        if self._configs.get(policy) != dict(config) or shapes(slots) != shapes(tensors):
            slots = self._inject(policy, tensors, config)
        with torch.no_grad():
            for name, slot in slots.items():
                slot.copy_(tensors[name])
        self._slots[policy], self._configs[policy] = slots, dict(config)
        self._versions[policy] = version

    def _inject(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
        """Make room for an adapter of a new shape, then drop the old one; return its tensors by their PEFT names."""
        lora = lora_config(config)
        self._num_injected += 1
        name = f"adapter{self._num_injected}"
        with torch.random.fork_rng(devices=[]):  # PEFT draws first weights, which the tensors replace
            if isinstance(self._model, PeftModel):
                self._model.add_adapter(name, lora, autocast_adapter_dtype=False)
            else:
                self._model = get_peft_model(self._model, lora, adapter_name=name, autocast_adapter_dtype=False)
        self._model.eval().requires_grad_(False)
        slots = get_peft_model_state_dict(self._model, adapter_name=name)
        wrong = sorted(set(shapes(slots).items()) ^ set(shapes(tensors).items()))
        if wrong:
            self._drop(name)
            raise EngineError(
                f"The adapter of policy {policy!r} does not fit its config and this base: {len(wrong)} names or shapes "
                f"differ, as {wrong[0]}; send `get_peft_model_state_dict(model)` with the config of the same model."
            )
        old = self._adapters.get(policy)
        self._adapters[policy] = name
        if old is not None:
            self._drop(old)
        return slots

    def _drop(self, name: str) -> None:
        rest = [other for other in self._model.peft_config if other != name]
        if not rest:
            self._model = self._model.unload()
            return
        self._model.set_adapter(rest[0], inference_mode=True)
        self._model.delete_adapter(name)

    def load_base(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Copy new weights into the base; adapters stay, on the new base.

        Raises:
            EngineError: if the weights are not the whole ``state_dict()``.
        """
        new = dict(weights)
        check_state_dict(new, {name: tensor.shape for name, tensor in self._weights.items()})
        with torch.no_grad():
            for name, tensor in new.items():
                self._weights[name].copy_(tensor)
        self._versions.update(dict.fromkeys(self._versions.keys() - self._adapters.keys(), version))

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""
        return dict(self._versions)

    def sleep(self) -> None:
        """Do nothing; between batches it holds its weights alone."""

    def close(self) -> None:
        """Free the model; the engine cannot be used afterwards."""
        self._versions.clear()
        self._weights.clear()
        self._slots.clear()
        self._model = None


def _load(model: str | Path, dtype: str) -> PreTrainedModel:
    kind: Any = model_class(AutoConfig.from_pretrained(model))
    return kind.from_pretrained(model, dtype=getattr(torch, dtype))


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Names to shapes."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def lora_config(config: Mapping[str, Any]) -> LoraConfig:
    """Rebuild a PEFT config from its ``to_dict()``, without what would change the base weights.

    Raises:
        EngineError: if the adapter was initialised by moving a part of the base into it.
    """
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.startswith(("pissa", "olora", "corda", "loftq")):
        raise EngineError(
            f"`init_lora_weights` {start!r} changes the base weights, which an adapter's tensors cannot carry; "
            "use True or 'gaussian'."
        )
    return LoraConfig.from_peft_type(**{**config, "init_lora_weights": True, "inference_mode": True})
