"""Supervised training of one language model on token rows: the cold start of a base, or of adapters on one.

Rows carry a weight per token, so a demonstration is learnt where the policy would write, and answers can count more.
Every process trains its own model here; nothing is averaged over ranks.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from m1lite.engines.model_classes import sees
from m1lite.modules.optimizer import clip_gradients
from m1lite.modules.packing import predicting_states, prepare_packing
from m1lite.modules.seeing import never_sampled, seen_states
from m1lite.records import PlacedMedia, TurnKind
from m1lite.rl.logprobs import hidden_logprobs
from m1lite.rl.losses import cross_entropy, token_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from m1lite.engines.features import FreshFeatures, VisionFeatures
    from m1lite.records import Turn

_POOL_BATCHES = 16  # rows of this many batches are sorted by length together: little padding, still mixed well


@dataclass(kw_only=True, slots=True)
class SftRow:
    """One sequence to learn from."""

    input_ids: list[int]
    weights: list[float]
    """Weight of each token's loss, 0 on tokens that are only read; the first token must have 0."""
    answer_mask: list[bool]
    """True on the tokens that must all be right for the row to count as answered; may be all false."""
    agent: str = ""
    """Whose row it is, where rows of several agents lie together."""
    media: tuple[PlacedMedia, ...] = ()
    """What the row shows, by place."""

    def __post_init__(self) -> None:
        if not len(self.input_ids) == len(self.weights) == len(self.answer_mask) >= 1:
            raise ValueError(
                f"`SftRow` has {len(self.input_ids)} tokens, {len(self.weights)} weights and {len(self.answer_mask)} "
                "answer marks; give one of each for every token, and at least one token."
            )
        if self.weights[0] != 0:
            raise ValueError(f"`SftRow` weighs its first token with {self.weights[0]}; nothing predicts it, use 0.")

    def __repr__(self) -> str:
        return f"SftRow(tokens={len(self.input_ids)}, weight={sum(self.weights):g}, answer={sum(self.answer_mask)})"


def turns_row(turns: Sequence[Turn], weights: Sequence[float], *, agent: str = "") -> SftRow:
    """Make a row of one agent's turns: replies are learnt with their turn's weight, all else is read.

    Args:
        turns: of one trajectory.
        weights: one per turn; 0 leaves the turn out of the loss. A weighted answer turn is the row's answer.
        agent: whose turns they are.

    Raises:
        ValueError: if the lengths differ.
    """
    ids: list[int] = []
    losses: list[float] = []
    answer: list[bool] = []
    media: list[PlacedMedia] = []
    for turn, weight in zip(turns, weights, strict=True):
        shown = zip(turn.media, turn.media_offsets, strict=True)
        media += [PlacedMedia(media=one, offset=len(ids) + offset) for one, offset in shown]
        ids += turn.prompt_ids
        ids += turn.reply_ids
        losses += [0.0] * len(turn.prompt_ids) + [float(weight)] * len(turn.reply_ids)
        is_answer = turn.kind is TurnKind.ANSWER and weight > 0
        answer += [False] * len(turn.prompt_ids) + [is_answer] * len(turn.reply_ids)
    return SftRow(input_ids=ids, weights=losses, answer_mask=answer, agent=agent, media=tuple(media))


class SftBatch:
    """Rows padded on the right. B rows, T tokens.

    Args:
        input_ids: long ``(B, T)``.
        weights: float32 ``(B, T)``, 0 on padding.
        answer_mask: bool ``(B, T)``.
        num_tokens: of all rows, without padding.
        media: per row what it shows, by place; may be empty where no row shows anything.
    """

    agent, names = "the demonstrations", ()
    """For messages about a row."""

    def __init__(
        self,
        input_ids: Tensor,
        weights: Tensor,
        answer_mask: Tensor,
        num_tokens: int,
        media: tuple[tuple[PlacedMedia, ...], ...] = (),
    ) -> None:
        self.input_ids = input_ids
        self.weights = weights
        self.answer_mask = answer_mask
        self.num_tokens = num_tokens
        self.media = media

    def to(self, device: torch.device | str, **kwargs: Any) -> SftBatch:
        """Return the batch on a device."""
        return SftBatch(
            self.input_ids.to(device, **kwargs),
            self.weights.to(device, **kwargs),
            self.answer_mask.to(device, **kwargs),
            self.num_tokens,
            self.media,
        )

    def __repr__(self) -> str:
        rows, width = self.input_ids.shape
        return f"SftBatch(rows={rows}, width={width}, weight={float(self.weights.sum()):g})"


def collate_rows(rows: Sequence[SftRow], *, pad_id: int) -> SftBatch:
    """Pad rows to the longest of them."""
    width = max(len(row.input_ids) for row in rows)

    def padded(lists: Iterable[Sequence[Any]], fill: Any, dtype: torch.dtype) -> Tensor:
        return torch.tensor([[*values, *[fill] * (width - len(values))] for values in lists], dtype=dtype)

    return SftBatch(
        padded((row.input_ids for row in rows), pad_id, torch.long),
        padded((row.weights for row in rows), 0.0, torch.float32),
        padded((row.answer_mask for row in rows), False, torch.bool),
        sum(len(row.input_ids) for row in rows),
        tuple(row.media for row in rows) if any(row.media for row in rows) else (),
    )


class SftLoader:
    """Batches of rows of similar length; every pass has its own order, drawn from (seed, pass).

    Args:
        rows: what to learn from.
        batch_size: rows of a batch; a pass leaves the remainder out when it shuffles.
        pad_id: fills rows on the right.
        seed: of the order, and of what ``rename`` draws.
        shuffle: False gives every row once, by length, as validation needs it.
        rename: a row's ids and a source of chance to ids that say the same in other words; see data/renaming.py. Every
            pass draws anew.

    Raises:
        ValueError: if there are fewer rows than one batch needs.
    """

    def __init__(
        self,
        rows: Sequence[SftRow],
        batch_size: int,
        *,
        pad_id: int,
        seed: int = 0,
        shuffle: bool = True,
        rename: Callable[[Sequence[int], random.Random], list[int]] | None = None,
    ) -> None:
        if batch_size < 1 or (shuffle and len(rows) < batch_size) or not rows:
            raise ValueError(f"`batch_size` is {batch_size}; it must be from 1 to the number of rows, {len(rows)}.")
        self.rows, self.batch_size, self.pad_id, self.seed, self.shuffle = rows, batch_size, pad_id, seed, shuffle
        self.rename = rename
        self.passes = 0

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size if self.shuffle else -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[SftBatch]:
        draw = random.Random(f"rename {self.seed}/{self.passes}")
        for indices in self.indices(self.passes):
            rows = [self.rows[index] for index in indices]
            if self.rename is not None:
                rows = [replace(row, input_ids=self.rename(row.input_ids, draw)) for row in rows]
            yield collate_rows(rows, pad_id=self.pad_id)
        self.passes += 1

    def indices(self, passes: int) -> list[list[int]]:
        """Return the row indices of each batch of a pass."""
        order = list(range(len(self.rows)))
        pool = len(order)
        draw = random.Random(f"{self.seed}/{passes}")
        if self.shuffle:
            draw.shuffle(order)
            order = order[: len(self) * self.batch_size]
            pool = self.batch_size * _POOL_BATCHES
        batches: list[list[int]] = []
        for start in range(0, len(order), pool):
            like = sorted(order[start : start + pool], key=lambda index: len(self.rows[index].input_ids))
            batches += [like[at : at + self.batch_size] for at in range(0, len(like), self.batch_size)]
        if self.shuffle:
            draw.shuffle(batches)
        return batches


class SftModule(pl.LightningModule):
    """Trains a language model's trainable weights by weighted cross-entropy.

    The learning rate rises linearly over the first part of the budget, stays, and falls linearly to 0 over the last
    part, at whose end training stops. The budget is seconds, steps, or whichever is used up first; with
    :meth:`cool_down` the last part begins at once.

    Args:
        model: a transformers causal language model, bare (trained in full) or with PEFT adapters.
        optimizer: named parameters to optimiser, for example ``partial(AdamW, lr=5e-3)``; its rates are the peaks.
        seconds: wall time of the budget, validation included; None for no limit.
        steps: optimiser steps of the budget; None for no limit.
        warmup: share of the budget over which the rate rises, in [0, 1).
        cooldown: share of the budget over which the rate falls, in (0, 1 - warmup]; None lets it fall from the top of
            the rise on.
        max_grad_norm: the gradient is clipped to this norm; None leaves it. One that is not a number raises either way.
        packing: compute a batch's rows end to end instead of padded (``packing.py``): the same loss and gradients.
        features: of the model's vision tower; None where no row shows anything.

    Raises:
        ValueError: if there is no budget or no trainable weight, a value is out of range, or packing is impossible.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer],
        seconds: float | None = None,
        steps: int | None = None,
        warmup: float = 0.05,
        cooldown: float | None = None,
        max_grad_norm: float | None = 1.0,
        packing: bool = False,
        features: VisionFeatures | FreshFeatures | None = None,
    ) -> None:
        super().__init__()
        if not (seconds or steps) or min(seconds or 1, steps or 1) <= 0:
            raise ValueError(f"The budget is seconds={seconds}, steps={steps}; give at least one, above 0.")
        if not 0 <= warmup < 1:
            raise ValueError(f"`warmup` is {warmup}; it is a share of the budget and must be in [0, 1).")
        cooldown = 1 - warmup if cooldown is None else cooldown
        if not 0 < cooldown <= 1 - warmup:
            raise ValueError(f"`cooldown` is {cooldown}; it must be above 0 and, with the warm-up {warmup}, at most 1.")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError("`model` has no trainable weight; call `requires_grad_()` on what should learn.")
        self.model = model
        self.seconds = seconds
        self.steps = steps
        self.warmup = warmup
        self.cooldown = cooldown
        self.falls_from = 1.0 - cooldown
        """Progress at which the rate begins to fall."""
        self.max_grad_norm = max_grad_norm
        self.packing = packing
        self.features = features
        if packing:
            prepare_packing(self._bare())
        self.elapsed_before = 0.0
        """Seconds of the runs before a resume."""
        self._make_optimizer = optimizer
        self._started: float | None = None
        self._sums = torch.zeros(4)

    @property
    def elapsed_seconds(self) -> float:
        """Wall time used of the budget."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self.elapsed_before + running

    def progress(self) -> float:
        """Return the used share of the budget, 0 at the start and 1 or more at its end."""
        by_time = self.elapsed_seconds / self.seconds if self.seconds else 0.0
        by_steps = self.global_step / self.steps if self.steps else 0.0
        return max(by_time, by_steps)

    def cool_down(self) -> None:
        """Let the rate fall from now on, where it does not fall yet."""
        self.falls_from = min(self.falls_from, self.progress())

    @override
    def configure_optimizers(self) -> Any:
        trainable = [(name, value) for name, value in self.model.named_parameters() if value.requires_grad]
        optimizer = self._make_optimizer(trainable)

        def factor(_: int) -> float:
            return learning_rate_factor(self.progress(), self.warmup, self.falls_from, self.cooldown)

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    @override
    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        clip_gradients(optimizer, self.max_grad_norm, step=self.global_step)

    @override
    def on_train_start(self) -> None:
        self._started = time.monotonic()

    @override
    def training_step(self, batch: SftBatch, batch_idx: int) -> Tensor:
        total, weight, _ = self._losses(batch)
        loss = total / weight.clamp(min=1e-9)
        self.log("sft/loss", loss.detach(), prog_bar=True, batch_size=1)
        return loss

    @staticmethod
    def trained_tokens(batch: SftBatch) -> int:
        """Return how many tokens a training step on this batch goes over, padding left out."""
        return batch.num_tokens

    @override
    def on_train_batch_end(self, *_: Any) -> None:
        if self.progress() >= self.falls_from + self.cooldown:
            self.trainer.should_stop = True

    @override
    def on_validation_epoch_start(self) -> None:
        self._sums = torch.zeros(4, device=self.device)

    @override
    def validation_step(self, batch: SftBatch, batch_idx: int) -> None:
        total, weight, right = self._losses(batch, answers=True)
        asked = batch.answer_mask.any(dim=1)
        self._sums += torch.stack([total, weight, (right & asked).sum().float(), asked.sum().float()])

    @override
    def on_validation_epoch_end(self) -> None:
        total, weight, right, asked = self._sums.tolist()
        self.log("sft/val_loss", total / max(weight, 1e-9), prog_bar=True)
        if asked:
            self.log("sft/val_exact", right / asked, prog_bar=True)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["elapsed_seconds"] = self.elapsed_seconds
        checkpoint["falls_from"] = self.falls_from

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.elapsed_before = checkpoint["elapsed_seconds"]
        self.falls_from = checkpoint["falls_from"]

    def _bare(self) -> Any:
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _losses(self, batch: SftBatch, *, answers: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of weighted losses and of weights, and per row whether its answer tokens are likeliest."""
        model = self._bare()
        learnt = batch.weights > 0
        wanted = learnt | batch.answer_mask if answers else learnt
        states, never = self._states(model, batch, wanted), never_sampled(model)  # (M, D)
        head = model.get_output_embeddings().weight
        scores, _ = hidden_logprobs(states[learnt[wanted]], head, batch.input_ids[learnt], never=never)
        logprobs = torch.zeros_like(batch.weights).masked_scatter(learnt, scores.float())
        total, weight = token_sum(cross_entropy(logprobs, batch.weights), batch.weights)
        right = torch.ones_like(batch.answer_mask)
        if answers:
            mask = batch.answer_mask
            logits = states[mask[wanted]] @ head.T
            if never is not None:
                logits[:, never] = -torch.inf
            right[mask] = logits.argmax(-1) == batch.input_ids[mask]
        return total, weight, right.all(dim=1)

    def _states(self, model: Any, batch: SftBatch, wanted: Tensor) -> Tensor:
        if sees(model.config):
            return seen_states(model, batch, wanted, self.features, packed=self.packing)
        return predicting_states(model, batch.input_ids, wanted, packed=self.packing)


def learning_rate_factor(progress: float, warmup: float, falls_from: float, cooldown: float) -> float:
    """Return the share of the peak rate: a rise over ``warmup``, then 1, then a fall to 0 that takes ``cooldown``.

    Args:
        progress: used share of the budget.
        warmup: share of the budget.
        falls_from: progress at which the fall begins.
        cooldown: share of the budget, above 0.

    Example:
        >>> [round(learning_rate_factor(progress, 0.2, 0.6, 0.4), 3) for progress in (0.1, 0.2, 0.6, 0.9, 1.0, 1.5)]
        [0.5, 1.0, 1.0, 0.25, 0.0, 0.0]
    """
    rise = max(progress, 1e-3) / warmup if progress < warmup else 1.0
    fall = (falls_from + cooldown - progress) / cooldown
    return max(0.0, min(rise, fall, 1.0))
