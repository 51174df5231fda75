"""vLLM in the trainer's process: one engine for one base, with LoRA adapters that are handed over in memory.

Requests carry token ids both ways. What vLLM would get wrong without an error is remedied here by its arguments, and in
``_vllm_compat.py`` by patches.
"""

from __future__ import annotations

import gc
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, GenerationConfig

from m1lite.engines import _vllm_compat as compat
from m1lite.engines._vllm_media import Renderer
from m1lite.engines.base import EngineError, Generation, draw_all
from m1lite.engines.checks import check_media, check_policy, check_request, check_state_dict, nonnegative_seed
from m1lite.engines.model_classes import model_class
from m1lite.engines.sight import sight_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from m1lite.engines.base import Request, Sampling
    from m1lite.video.cache import FrameCache

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM can set aside memory for."""


class VllmEngine:
    """Serves one base model and LoRA adapters on it.

    Until its first adapter a policy is the base itself, under version 0. Build the engine after the process group.

    Args:
        model: a name or directory.
        policies: names that are served.
        eos_token_ids: a reply ends with the first of these; ``None`` takes the model's generation config.
        max_adapters: how many of the policies may carry an adapter; ``None`` is all of them, 0 leaves LoRA out.
        max_lora_rank: highest rank of an adapter.
        dtype: of weights and arithmetic.
        max_model_len: tokens of context, the reply included.
        kv_cache_bytes: memory for keys and values.
        frames: decodes what policies that see are shown.
        options: further arguments of ``vllm.LLM``, such as ``revision`` or ``tensor_parallel_size``; with
            ``enable_sleep_mode`` (GPUs only) the trainer has the engine's memory while it learns.

    Raises:
        EngineError: if vLLM is missing, the process group is missing, or vLLM refuses the arguments.
        ValueError: if no policy is named, no end-of-sequence id is known, or an option is one that this class sets.
    """

    draws_together = False

    def __init__(
        self,
        model: str | Path,
        policies: Sequence[str],
        *,
        eos_token_ids: Sequence[int] | None = None,
        max_adapters: int | None = None,
        max_lora_rank: int = 16,
        dtype: str = "float32",
        max_model_len: int = 1024,
        kv_cache_bytes: int = 256 << 20,
        frames: FrameCache | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not policies:
            raise ValueError("`policies` is empty; name the policies that this engine serves.")
        options = dict(options or {})
        source: dict[str, Any] = {name: options[name] for name in ("revision", "trust_remote_code") if name in options}
        self.eos_token_ids = frozenset(end_ids(model, source) if eos_token_ids is None else eos_token_ids)
        if not self.eos_token_ids:
            raise ValueError(f"`eos_token_ids` is not given and {str(model)!r} names none; pass them.")
        self.max_model_len, self.max_lora_rank = max_model_len, max_lora_rank
        self.max_adapters = len(policies) if max_adapters is None else max_adapters
        self._config = AutoConfig.from_pretrained(model, **source)
        self._sight = sight_of(self._config)
        self._renderer = None if self._sight is None or frames is None else Renderer(self._sight, frames)
        self._llm = compat.build(
            self._arguments(str(model), dtype, kv_cache_bytes, options), self._config.architectures or ()
        )
        self._can_sleep, self._asleep = bool(options.get("enable_sleep_mode")), False
        self._lock = threading.Lock()
        self._policies = {policy: number for number, policy in enumerate(policies, start=1)}
        self._versions = dict.fromkeys(policies, 0)
        self._adapters: dict[str, Any] = {}  # policy to vLLM's LoRARequest
        self._num_published = 0
        self._vocab_size = self._config.get_text_config().vocab_size
        self._under_way: dict[int, str] = {}  # ticket to policy
        self._num_tickets = 0
        self._known_params: dict[Sampling, Any] = {}  # vLLM's form, without a seed

    def _arguments(self, model: str, dtype: str, kv_cache_bytes: int, options: dict[str, Any]) -> dict[str, Any]:
        """Collect what ``vllm.LLM`` is built with."""
        fixed: dict[str, Any] = {
            "model": model,
            "dtype": dtype,
            "max_model_len": self.max_model_len,
            "kv_cache_memory_bytes": kv_cache_bytes,
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # sampling comes from the requests alone
            "logprobs_mode": "processed_logprobs",  # of the distribution that was sampled from
            "enable_chunked_prefill": False,  # a chunk would rewind the request's generator, which a CPU cannot
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "mm_processor_cache_gb": 0,  # the two halves of that cache drift apart in one process
        }
        if self._sight is not None:
            # Its processor wants the tokenizer, though it renders nothing here; patches come normalised, as they train.
            fixed |= {"skip_tokenizer_init": False, "mm_device_do_normalize": False, "skip_mm_profiling": True}
            fixed |= {"limit_mm_per_prompt": {"image": self.max_model_len, "video": 0}}
        if self.max_adapters:
            # One slot more than adapters: an empty last slot keeps base rows right even where index -1 means the last.
            slots = {"max_loras": self.max_adapters + 1, "max_cpu_loras": self.max_adapters + 1}
            fixed |= {"enable_lora": True, **slots, "max_lora_rank": lora_rank_at_least(self.max_lora_rank)}
        free: dict[str, Any] = {"seed": 0, "max_num_batched_tokens": max(self.max_model_len, 8192)}
        if compat.is_cpu():
            free |= {"enforce_eager": True, "block_size": 32}
        taken = sorted(options.keys() & fixed.keys())
        if taken:
            raise ValueError(f"`options` {taken} are set by `VllmEngine` itself; leave them out.")
        arguments = fixed | free | options
        if arguments["max_num_batched_tokens"] < self.max_model_len:
            raise ValueError(
                f"`max_num_batched_tokens` {arguments['max_num_batched_tokens']} is below `max_model_len` "
                f"{self.max_model_len}; a prompt is never cut into chunks, so it must fit in one batch."
            )
        return arguments

    def submit(self, request: Request) -> int:
        """Put one reply into the running batch.

        Raises:
            EngineError: if the policy is unknown, the prompt does not fit, a sampling value is out of range, or vLLM
                refuses the request; the replies under way go on.
        """
        check_request(request, policies=self._versions, max_model_len=self.max_model_len, vocab_size=self._vocab_size)
        check_media(request, self._sight, can_decode=self._renderer is not None)
        media = () if self._renderer is None else self._renderer(request.media)
        with self._lock:
            self._wake_up()
            self._num_tickets += 1
            ticket = self._num_tickets
            try:
                lora = self._adapters.get(request.policy)
                compat.add_request(self._llm, ticket, request.prompt_ids, self._params(request), lora, media)
            except Exception as error:
                raise EngineError(
                    f"vLLM refused a prompt of policy {request.policy!r} with {len(request.prompt_ids)} tokens: {error}"
                ) from error
            self._under_way[ticket] = request.policy
        return ticket

    def _params(self, request: Request) -> Any:
        """Make vLLM's sampling parameters: a copy of those of the same sampling, with the request's seed."""
        known = self._known_params.get(request.sampling)
        if known is None:
            known = compat.sampling_params(
                temperature=request.sampling.temperature,
                max_tokens=request.sampling.max_new_tokens,
                stop_token_ids=sorted(self.eos_token_ids),
                never=() if self._sight is None else self._sight.media_ids,
            )
            self._known_params[request.sampling] = known
        return compat.with_seed(known, nonnegative_seed(request.seed))

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Compute one step of the running batch.

        Raises:
            EngineError: if vLLM fails; the engine can be used afterwards, without what was under way.
        """
        with self._lock:
            if not self._under_way:
                return []
            try:
                with compat.generator_kept():
                    outputs = self._llm.llm_engine.step()
            except BaseException as error:
                count = len(self._under_way)
                self._under_way.clear()
                with compat.globals_kept():
                    compat.recover(self._llm)
                if not isinstance(error, Exception):
                    raise
                raise EngineError(f"vLLM failed in a step of {count} replies: {error!r}") from error
            return [self._finished(output) for output in outputs if output.finished]

    def _finished(self, output: Any) -> tuple[int, Generation]:
        ticket, reply = int(output.request_id), output.outputs[0]
        ids = list(reply.token_ids)
        return ticket, Generation(
            token_ids=ids,
            logprobs=list(reply.logprobs.logprobs),
            policy_version=self._versions[self._under_way.pop(ticket)],
            finish_reason="stop" if ids[-1] in self.eos_token_ids else "length",
        )

    @property
    def num_unfinished(self) -> int:
        """How many replies are under way."""
        return len(self._under_way)

    def abort(self) -> None:
        """Drop everything that is under way."""
        with self._lock:
            if self._under_way:
                self._under_way.clear()
                compat.abort(self._llm)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Draw one reply for each request, in the order given.

        Raises:
            EngineError: if a policy is unknown, a prompt does not fit, a sampling value is out of range, or vLLM fails;
                the engine can be used afterwards.
        """
        return draw_all(self, requests)

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Serve ``policy`` with a copy of these LoRA tensors from now on.

        Raises:
            EngineError: if the policy is unknown, replies are under way, there is no slot left, or vLLM cannot serve
                the adapter; the policy then stays as it was.
        """
        from vllm.lora.request import LoRARequest

        check_policy(policy, self._versions)
        self._demand_idle()
        old = self._adapters.get(policy)
        if old is None and len(self._adapters) >= self.max_adapters:
            raise EngineError(
                f"No slot for an adapter of policy {policy!r}: `max_adapters` is {self.max_adapters}, taken by "
                f"{sorted(self._adapters)}; build the engine with more."
            )
        rank = max(config["r"], *(config.get("rank_pattern") or {}).values(), 0)
        if rank > self.max_lora_rank:
            raise EngineError(
                f"The adapter of policy {policy!r} has rank {rank}, `max_lora_rank` is {self.max_lora_rank}; build the "
                "engine with a higher one."
            )
        self._num_published += 1
        # A path of its own for each publication: cached keys and values are looked up by it.
        path = f"{compat.MEMORY}{id(self)}/{policy}@{version}/{self._num_published}"
        with self._lock, compat.globals_kept():
            self._wake_up()
            compat.ADAPTERS[path] = (
                {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()},
                dict(config),
            )
            try:
                self._llm.llm_engine.add_lora(LoRARequest(policy, self._policies[policy], path, load_inplace=True))
            except Exception as error:
                del compat.ADAPTERS[path]
                raise EngineError(f"vLLM cannot serve the adapter of policy {policy!r}: {error}") from error
            if old is not None:
                del compat.ADAPTERS[old.lora_path]
            self._adapters[policy] = LoRARequest(policy, self._policies[policy], path)
            self._versions[policy] = version

    def load_base(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replace the base weights under all policies; adapters stay, on the new base.

        Raises:
            EngineError: if replies are under way, or the weights are not the whole ``state_dict()``.
        """
        self._demand_idle()
        new = {name: tensor.detach() for name, tensor in weights}
        check_state_dict(new, self._shapes)
        with self._lock, compat.globals_kept():
            self._wake_up()
            compat.reload_base(self._llm, new.items())
            self._versions.update(dict.fromkeys(self._versions.keys() - self._adapters.keys(), version))

    def _demand_idle(self) -> None:
        if self._under_way:
            raise EngineError(
                f"{len(self._under_way)} replies are under way, whose first tokens had the old weights; load weights "
                "between rollouts, or `abort` first."
            )

    @cached_property
    def _shapes(self) -> dict[str, torch.Size]:
        with torch.device("meta"):
            model: Any = model_class(self._config).from_config(self._config)
        return {name: tensor.shape for name, tensor in model.state_dict().items()}

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""
        return dict(self._versions)

    def sleep(self) -> None:
        """Move the weights to the processor's memory and forget keys and values, where the engine was built to sleep.

        The next request or weights wake it. With replies under way it stays awake.
        """
        with self._lock:
            if self._can_sleep and not self._asleep and not self._under_way:
                self._llm.sleep(level=1)
                self._asleep = True

    def _wake_up(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False

    def close(self) -> None:
        """Free the model and its caches; the engine cannot be used afterwards."""
        if self._llm is None:
            return
        for request in self._adapters.values():
            del compat.ADAPTERS[request.lora_path]
        self._versions.clear()
        self._under_way.clear()
        llm, self._llm = self._llm, None
        with compat.globals_kept():
            compat.shut_down(llm)
        del llm
        gc.collect()


def end_ids(model: str | Path, source: Mapping[str, Any]) -> list[int]:
    """Read a model's end-of-sequence ids from its generation config, or from its config where it has none.

    Args:
        model: a name or directory.
        source: ``revision`` and the like.
    """
    try:
        ids = GenerationConfig.from_pretrained(model, **source).eos_token_id
    except OSError:
        ids = AutoConfig.from_pretrained(model, **source).eos_token_id
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)


def lora_rank_at_least(rank: int) -> int:
    """Round a rank up to one that vLLM has memory layouts for.

    Raises:
        ValueError: if it is not in [1, 512].

    Example:
        >>> lora_rank_at_least(8), lora_rank_at_least(12)
        (8, 16)
    """
    for allowed in LORA_RANKS:
        if 1 <= rank <= allowed:
            return allowed
    raise ValueError(f"`max_lora_rank` {rank} is not in [1, {LORA_RANKS[-1]}].")
