"""Whether a server can be a rollout engine, asked at the start: each remedy names the option of ``vllm serve``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from m1lite.engines.base import EngineError
from m1lite.engines.replica import Replica, ReplicaError, ReplicaRefusedError, generation_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.engines.replica import Served

_ASKED_SECONDS = 30.0
_PROMPT = [11, 23, 17, 29]
_LOGPROB_TOLERANCE = 0.1
"""Between replicas, in nats: bfloat16 on unlike GPUs stays below it, other weights do not."""
_NOBODY = "m1lite-nobody"


def servers_of(replicas: Sequence[Replica], model: str, *, max_model_len: int, wait_seconds: float) -> list[Replica]:
    """Choose the servers of one base and check each of them, and that they are alike.

    Args:
        replicas: servers of any bases.
        model: name or directory of the base.
        max_model_len: tokens of context that are needed.
        wait_seconds: servers that are still starting have so long.

    Raises:
        EngineError: naming the server, what is wrong and the remedy.
    """
    due = time.monotonic() + wait_seconds
    served = {replica: _wait_for(replica, due, wait_seconds) for replica in replicas}
    own = {replica: what for replica, what in served.items() if model in what.names}
    if not own:
        bases = {replica.url: sorted(what.names) for replica, what in served.items()}
        raise EngineError(
            f"No rollout server serves the base {model!r}, there are {bases}; start one with `vllm serve {model}`, or "
            f"with `--served-model-name {model}` if it loads the same weights from elsewhere."
        )
    first = next(iter(own))
    for replica, what in own.items():
        if what.version != own[first].version:
            raise EngineError(
                f"Two replicas have different versions: {first.url} runs vLLM {own[first].version}, {replica.url} runs "
                f"{what.version}; a reply must not depend on who draws it."
            )
        if what.max_model_len < max_model_len:
            raise EngineError(
                f"{replica.url} has a context of {what.max_model_len} tokens, {max_model_len} are needed; start it "
                f"with `--max-model-len {max_model_len}`."
            )
        _check_adapters(replica)
    expected = _check_logprobs(first, model)
    for replica in own:
        found = _check_logprobs(replica, model)
        if abs(found - expected) > _LOGPROB_TOLERANCE:
            raise EngineError(
                f"Two replicas have different weights: the likeliest token after {_PROMPT} has log-prob {expected:.4f} "
                f"on {first.url} and {found:.4f} on {replica.url}; start both on the same base {model!r}."
            )
    return list(own)


def _wait_for(replica: Replica, due: float, seconds: float) -> Served:
    while True:
        left = due - time.monotonic()
        try:
            replica.check_health(max(0.1, min(left, _ASKED_SECONDS)))
            return replica.describe(_ASKED_SECONDS)
        except ReplicaError as error:
            if left <= 0:
                raise EngineError(
                    f"No healthy rollout server within {seconds:g} s (`start_seconds`): {error}"
                ) from error
            time.sleep(min(1.0, left))


def _check_adapters(replica: Replica) -> None:
    """Raise unless adapters can be loaded while the server runs: one that nobody has is looked for in vain."""
    try:
        replica.unload_adapter(_NOBODY, _ASKED_SECONDS)
    except ReplicaRefusedError as refusal:
        raise EngineError(
            f"{replica.url} takes no adapters while it runs; start it with the environment variable "
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=1. ({refusal})"
        ) from refusal
    try:
        replica.load_adapter(_NOBODY, f"/{_NOBODY}", _ASKED_SECONDS)
    except ReplicaRefusedError as refusal:
        if "No adapter found" not in str(refusal):
            raise EngineError(
                f"{replica.url} was started without LoRA; add `--enable-lora --max-loras N --max-lora-rank R`. "
                f"({refusal})"
            ) from refusal


def _check_logprobs(replica: Replica, model: str) -> float:
    """Check whose log-probs a server reports, and return that of the likeliest token at temperature 1.

    At temperature 2 a likeliest token is less likely than at 1; raw log-probs do not know the temperature.
    """
    try:
        greedy, flat = (
            replica.generate(
                generation_body(
                    model, _PROMPT, {"temperature": temperature, "max_tokens": 1, "seed": 0, "logprobs": 2}
                ),
                _ASKED_SECONDS,
            ).best_logprob
            for temperature in (0.0, 2.0)
        )
    except ReplicaRefusedError as refusal:
        raise EngineError(
            f"{replica.url} does not give replies as token ids; start it with `--enable-scale-out`. ({refusal})"
        ) from refusal
    if flat >= greedy:
        raise EngineError(
            f"{replica.url} reports log-probs that do not know the temperature ({greedy:.4f} at 1, {flat:.4f} at 2); "
            "start it with `--logprobs-mode processed_logprobs`."
        )
    return greedy
