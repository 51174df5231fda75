"""Replies drawn from a transformers model: batches of like length, left-padded, each row with chance of its own.

Which weights draw is ``hf.py``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from m1lite.engines.base import Generation
from m1lite.engines.checks import nonnegative_seed
from m1lite.engines.features import VisionFeatures, model_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

    from m1lite.engines.base import Request
    from m1lite.engines.sight import Sight


def batches(rows: Sequence[int], requests: Sequence[Request], max_batch_tokens: int) -> Iterator[list[int]]:
    """Cut rows into batches of like length whose padded size stays under a bound (one row may exceed it).

    Args:
        rows: indices into ``requests``.
        requests: all requests of the call.
        max_batch_tokens: bound on rows times (longest prompt + longest reply).
    """
    batch: list[int] = []
    longest_reply = 0
    for row in sorted(rows, key=lambda row: len(requests[row].prompt_ids)):
        reply = max(longest_reply, requests[row].sampling.max_new_tokens)
        if batch and (len(batch) + 1) * (len(requests[row].prompt_ids) + reply) > max_batch_tokens:
            yield batch
            batch, reply = [], requests[row].sampling.max_new_tokens
        batch, longest_reply = [*batch, row], reply
    if batch:
        yield batch


@torch.inference_mode()
def draw(
    model: PreTrainedModel | PeftModel,
    requests: Sequence[Request],
    *,
    eos_token_ids: frozenset[int],
    max_model_len: int,
    version: int,
    sight: Sight | None = None,
    features: VisionFeatures | None = None,
) -> list[Generation]:
    """Draw one reply for each request in one left-padded batch; a finished row leaves the batch.

    Args:
        model: gives ``logits`` and takes a key-value cache.
        requests: the rows, B of them.
        eos_token_ids: a reply ends with the first of these.
        max_model_len: bounds prompt and reply together.
        version: goes into every generation.
        sight: how the model sees, where it does; its media tokens are then never drawn.
        features: of what the requests show.
    """
    device = model.device
    ids, mask = left_padded([request.prompt_ids for request in requests])  # (B, T)
    ids, mask = ids.to(device), mask.to(device)
    positions = first_positions(requests, mask, sight)
    shown = {} if features is None else model_inputs(features, [request.media for request in requests])
    never = None if sight is None else torch.tensor(sight.media_ids, device=device)
    room = [min(row.sampling.max_new_tokens, max_model_len - len(row.prompt_ids)) for row in requests]
    temperature = torch.tensor([row.sampling.temperature for row in requests], device=device)
    uniform = uniforms([row.seed for row in requests], max(room)).to(device)  # (B, max(room))
    tokens: list[list[int]] = [[] for _ in requests]
    logprobs: list[list[float]] = [[] for _ in requests]
    alive = torch.arange(len(requests), device=device)
    cache = None
    for step in range(max(room)):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **shown,
        )
        shown = {}
        cache = output.past_key_values
        logits = output.logits[:, -1].float()
        if never is not None:
            logits[:, never] = -torch.inf
        chosen, chosen_logprobs = choose(logits, temperature[alive], uniform[alive, step])
        going = []
        for place, (row, token, logprob) in enumerate(
            zip(alive.tolist(), chosen.tolist(), chosen_logprobs.tolist(), strict=True)
        ):
            tokens[row].append(token)
            logprobs[row].append(logprob)
            if token not in eos_token_ids and step + 1 < room[row]:
                going.append(place)
        if not going:
            break
        keep = torch.tensor(going, device=device)
        if len(going) < len(alive):
            cache.batch_select_indices(keep)
        alive, ids, positions = alive[keep], chosen[keep, None], positions[..., keep, -1:] + 1
        mask = torch.cat([mask[keep], mask.new_ones(len(going), 1)], dim=-1)
    return [
        Generation(
            token_ids=tokens[row],
            logprobs=logprobs[row],
            policy_version=version,
            finish_reason="stop" if tokens[row][-1] in eos_token_ids else "length",
        )
        for row in range(len(requests))
    ]


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Make ids and mask, both long ``(B, T)``; padding holds id 0 under mask 0.

    Example:
        >>> left_padded([[5, 6], [7]])
        (tensor([[5, 6],
                [0, 7]]), tensor([[1, 1],
                [0, 1]]))
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def first_positions(requests: Sequence[Request], mask: Tensor, sight: Sight | None) -> Tensor:
    """Give the tokens of left-padded prompts their positions.

    Args:
        requests: B rows.
        mask: long ``(B, T)``, 0 on padding.
        sight: how the model sees, where it does.

    Returns:
        Long ``(B, T)``, or ``(3, B, T)`` of time, height and width where the model sees.
    """
    if sight is None:
        return (mask.cumsum(-1) - 1).clamp_min(0)
    positions = mask.new_zeros(3, *mask.shape)
    for row, request in enumerate(requests):
        length = len(request.prompt_ids)
        positions[:, row, mask.shape[1] - length :] = sight.positions(length, request.media)
    return positions


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Draw ``count`` uniform numbers in [0, 1) from each seed: float64 ``(B, count)``.

    All of a row's chance is drawn here, so it depends neither on the other rows nor on when they finish.
    """
    generators = [torch.Generator().manual_seed(nonnegative_seed(seed)) for seed in seeds]
    return torch.stack([torch.rand(count, generator=generator, dtype=torch.float64) for generator in generators])


def choose(logits: Tensor, temperature: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Pick one token a row by inverting its cumulative distribution.

    Args:
        logits: float32 ``(B, V)``.
        temperature: float ``(B,)``; 0 takes the largest logit.
        uniform: float64 ``(B,)`` in [0, 1).

    Returns:
        Token ids, long ``(B,)``, and their log-probs after temperature (unscaled where it is 0), float32 ``(B,)``.
    """
    greedy = temperature == 0
    all_logprobs = (logits / torch.where(greedy, 1.0, temperature)[:, None]).log_softmax(-1)  # (B, V)
    cumulative = all_logprobs.double().exp().cumsum(-1)
    threshold = uniform[:, None] * cumulative[:, -1:]
    # side="right": a token of probability 0 has an empty interval and is never met.
    sampled = torch.searchsorted(cumulative, threshold, side="right")[:, 0].clamp_max(logits.shape[-1] - 1)
    tokens = torch.where(greedy, logits.argmax(-1), sampled)
    return tokens, all_logprobs.gather(-1, tokens[:, None])[:, 0]
