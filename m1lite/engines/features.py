"""What a frozen vision tower makes of frames, computed once per (frame, size, weights) and kept within a bound."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from m1lite.engines.sight import sight_of
from m1lite.video.media import media_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from m1lite.engines.sight import Sight
    from m1lite.records import MediaRef, PlacedMedia
    from m1lite.video.cache import FrameCache

_PATCHES_AT_ONCE = 16384
_CLOSE = 1e-3
"""Relative distance that the batch around a frame may make in float32; another tower is further away."""


class StaleFeaturesError(RuntimeError):
    """Kept features that the tower would not give again."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Features:
    """Of one picture, N tokens of width D."""

    tokens: Tensor
    """float ``(N, D)``, in the place of the placeholders' embeddings."""
    deep: tuple[Tensor, ...] = ()
    """float ``(N, D)`` each, added after the first layers (Qwen3-VL's DeepStack)."""

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return self.tokens.nbytes + sum(part.nbytes for part in self.deep)


class VisionFeatures:
    """Features of pictures under one frozen tower, least recently used out first.

    A change of the tower's weights (a step of an optimiser, ``load_state_dict``, ``copy_``) empties it by itself. Not
    for several threads at once.

    Args:
        model: a vision-language model of transformers, bare (not inside PEFT).
        frames: decodes.
        max_bytes: of the features that are kept; larger ones are computed each time.

    Raises:
        ValueError: if the model does not see, or the bound is negative.
    """

    def __init__(self, model: Any, frames: FrameCache, *, max_bytes: int = 256 << 20) -> None:
        sight = sight_of(model.config)
        if sight is None:
            raise ValueError(f"{type(model).__name__} has no vision tower; give a model that sees.")
        if max_bytes < 0:
            raise ValueError(f"`max_bytes` must be at least 0, got {max_bytes}.")
        self.sight = sight
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_computed = 0
        """Pictures that went through the tower so far."""
        self.num_reused = 0
        """Pictures that were asked for and did not."""
        self._model, self._frames = model, frames
        self._kept: OrderedDict[MediaRef, Features] = OrderedDict()
        self._stamp = self._weights_stamp()

    def __call__(self, media: Sequence[MediaRef]) -> list[Features]:
        """Return the features of pictures, in the order given.

        Args:
            media: one time each, sizes of multiples of ``sight.factor``.

        Raises:
            VideoError: if a video cannot be read.
            ValueError: if the tower is trainable, or a reference does not fit.
        """
        stamp = self._weights_stamp()
        if stamp != self._stamp:
            self.clear()
            self._stamp = stamp
        known = {ref: self._kept[ref] for ref in media if ref in self._kept}
        missing = [ref for ref in dict.fromkeys(media) if ref not in known]
        for ref in known:
            self._kept.move_to_end(ref)
        self.num_reused += len(media) - len(missing)
        for batch in self._batches(missing):
            known |= dict(zip(batch, self._compute(batch), strict=True))
        for ref in missing:
            self._keep(ref, known[ref])
        return [known[ref] for ref in media]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.num_bytes = 0

    def check_fresh(self) -> None:
        """Compute the least recently used picture again and compare: one pass of the tower.

        Raises:
            StaleFeaturesError: if the tower gives something else now; names the frame.
        """
        for ref, kept in self._kept.items():
            (now,) = self._compute([ref])
            for old, new in zip((kept.tokens, *kept.deep), (now.tokens, *now.deep), strict=True):
                distance = (old - new).abs().max().item() / max(new.abs().max().item(), 1e-12)
                if distance > (_CLOSE if old.dtype == torch.float32 else 0.1):
                    raise StaleFeaturesError(
                        f"The kept features of the frame at {ref.timestamps[0]:g} s of {ref.uri!r} are {distance:.2g} "
                        "(relative) away from what the vision tower gives now: its weights changed unseen; call "
                        "`clear` after writing to them."
                    )
            return

    def __repr__(self) -> str:
        return (
            f"VisionFeatures(pictures={len(self._kept)}, bytes={self.num_bytes}/{self.max_bytes}, "
            f"computed={self.num_computed}, reused={self.num_reused})"
        )

    def _weights_stamp(self) -> tuple[tuple[int, int], ...]:
        """Where the tower's weights lie, and how often each was written to."""
        return tuple((weight.data_ptr(), weight._version) for weight in self._model.model.visual.parameters())

    def _batches(self, media: Sequence[MediaRef]) -> list[list[MediaRef]]:
        batches: list[list[MediaRef]] = []
        room = 0
        for ref in media:
            size = self.sight.num_tokens(ref.size) * self.sight.merge_size**2
            if not batches or size > room:
                batches.append([])
                room = _PATCHES_AT_ONCE
            batches[-1].append(ref)
            room -= size
        return batches

    @torch.no_grad()
    def _compute(self, media: Sequence[MediaRef]) -> list[Features]:
        if any(weight.requires_grad for weight in self._model.model.visual.parameters()):
            raise ValueError("The vision tower is trainable, so its features cannot be kept; freeze it.")
        self.num_computed += len(media)
        # A copy of each, so that keeping one does not keep the memory of the whole batch.
        return [
            Features(tokens=found.tokens.clone(), deep=tuple(part.clone() for part in found.deep))
            for found in _through_tower(self._model.model, self.sight, self._frames, media)
        ]

    def _keep(self, ref: MediaRef, features: Features) -> None:
        if features.nbytes > self.max_bytes:
            return
        while self.num_bytes + features.nbytes > self.max_bytes:
            self.num_bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept[ref] = features
        self.num_bytes += features.nbytes


class FreshFeatures:
    """Features of pictures under a tower that is trained: nothing is kept, gradients flow back into it.

    Args:
        model: a vision-language model of transformers, bare.
        frames: decodes.

    Raises:
        ValueError: if the model does not see.
    """

    def __init__(self, model: Any, frames: FrameCache) -> None:
        sight = sight_of(model.config)
        if sight is None:
            raise ValueError(f"{type(model).__name__} has no vision tower; give a model that sees.")
        self.sight = sight
        self._model, self._frames = model, frames

    def __call__(self, media: Sequence[MediaRef]) -> list[Features]:
        """Return the features of pictures, in the order given; arguments and errors as of :class:`VisionFeatures`."""
        return _through_tower(self._model.model, self.sight, self._frames, media) if media else []


def _through_tower(model: Any, sight: Sight, frames: FrameCache, media: Sequence[MediaRef]) -> list[Features]:
    """Decode pictures and give them to the tower as one batch."""
    device = next(model.visual.parameters()).device
    places: dict[Any, list[int]] = {}
    for place, ref in enumerate(media):
        if len(ref.timestamps) != 1:
            raise ValueError(f"Features are of one picture each, got {len(ref.timestamps)} times: {ref}.")
        places.setdefault((ref.uri, ref.size, ref.box), []).append(place)
    pictures: list[Tensor] = [torch.empty(0)] * len(media)
    for found in places.values():  # pictures of one video are decoded together
        times = tuple(media[place].timestamps[0] for place in found)
        pixels = media_pixels(frames, replace(media[found[0]], timestamps=times)).to(device)
        for place, cut in zip(found, sight.patches(pixels), strict=True):
            pictures[place] = cut
    grids = [[1, *(side * sight.merge_size for side in sight.grid(ref.size))] for ref in media]
    seen = model.get_image_features(torch.cat(pictures), torch.tensor(grids, device=device), return_dict=True)
    deep = list(zip(*getattr(seen, "deepstack_features", ()), strict=True)) or [()] * len(media)
    return [Features(tokens=tokens, deep=tuple(parts)) for tokens, parts in zip(seen.pooler_output, deep, strict=True)]


def model_inputs(features: VisionFeatures, rows: Sequence[Sequence[PlacedMedia]]) -> dict[str, Any]:
    """Make the arguments by which a transformers model takes pictures that went through the tower before.

    Args:
        features: of the model's own tower.
        rows: per row of the batch its pictures, by place.

    Returns:
        ``mm_encoder_outputs``, or nothing where no row shows anything.
    """
    found = features([picture.media for row in rows for picture in row])
    if not found:
        return {}
    levels = len(found[0].deep)
    pictures = SimpleNamespace(
        pooler_output=tuple(part.tokens for part in found),
        deepstack_features=[tuple(part.deep[level] for part in found) for level in range(levels)],
    )
    return {"mm_encoder_outputs": {"image": pictures}}
