"""Pictures as vLLM takes them from us, tried with 0.32.0: patches that we cut, at places that we say.

vLLM's own way expands placeholders and finds their places by itself, which a stray placeholder leads astray. Here the
ids stay as they are, and it is given what its renderer would make: patches, grid, hash and place.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from m1lite.video.media import media_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.engines.sight import Sight
    from m1lite.records import MediaRef, PlacedMedia
    from m1lite.video.cache import FrameCache

_MAX_BYTES = 256 << 20


@dataclass(kw_only=True, slots=True, frozen=True)
class Rendered:
    """One picture of a prompt."""

    item: Any
    """vLLM's ``MultiModalKwargsItem``."""
    hash: str
    """Of (URI, times, size, part): vLLM's caches of features, keys and values know it by this."""
    offset: int
    length: int
    """Placeholders."""


class Renderer:
    """Makes vLLM's form of pictures, each once while it is among the last of 256 MiB.

    Args:
        sight: how the model sees.
        frames: decodes.
    """

    def __init__(self, sight: Sight, frames: FrameCache) -> None:
        self.num_rendered = 0
        self._sight, self._frames = sight, frames
        self._kept: OrderedDict[MediaRef, tuple[Any, int]] = OrderedDict()
        self._num_bytes = 0

    def __call__(self, media: Sequence[PlacedMedia]) -> list[Rendered]:
        """Return the pictures of a prompt, in the order given.

        Raises:
            VideoError: if a video cannot be read.
        """
        return [
            Rendered(
                item=self._item(picture.media),
                hash=media_hash(picture.media),
                offset=picture.offset,
                length=self._sight.num_tokens(picture.media.size),
            )
            for picture in media
        ]

    def _item(self, ref: MediaRef) -> Any:
        if ref in self._kept:
            self._kept.move_to_end(ref)
            return self._kept[ref][0]
        patches = self._sight.patches(media_pixels(self._frames, ref))[0]
        rows, columns = self._sight.grid(ref.size)
        item = _item(patches, [1, rows * self._sight.merge_size, columns * self._sight.merge_size])
        self.num_rendered += 1
        self._kept[ref] = item, patches.nbytes
        self._num_bytes += patches.nbytes
        while self._num_bytes > _MAX_BYTES and len(self._kept) > 1:
            self._num_bytes -= self._kept.popitem(last=False)[1][1]
        return item


def media_hash(ref: MediaRef) -> str:
    """Name what a reference shows: equal references have equal names, in every process."""
    return hashlib.blake2b(repr((ref.uri, ref.timestamps, ref.size, ref.box)).encode(), digest_size=32).hexdigest()


def _item(patches: torch.Tensor, grid: list[int]) -> Any:
    from transformers import BatchFeature
    from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems

    values = BatchFeature({"pixel_values": patches, "image_grid_thw": torch.tensor([grid])})
    fields = {
        "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", torch.tensor([len(patches)])),
        "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
    }
    return MultiModalKwargsItems.from_hf_inputs(values, fields)["image"][0]


def prompt_input(prompt_ids: Sequence[int], media: Sequence[Rendered]) -> Any:
    """Make vLLM's input of ids and pictures; the ids are taken as they are.

    Args:
        prompt_ids: with one placeholder for each feature.
        media: by place.
    """
    from vllm.inputs import mm_input, tokens_input

    if not media:
        return tokens_input(list(prompt_ids))
    from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange

    return mm_input(
        list(prompt_ids),
        MultiModalKwargsItems({"image": [picture.item for picture in media]}),
        {"image": [picture.hash for picture in media]},
        {"image": [PlaceholderRange(offset=picture.offset, length=picture.length) for picture in media]},
    )
