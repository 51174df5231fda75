"""How a vision-language model sees: patches, placeholder tokens and positions, as arithmetic over its configuration.

Shared by the chat, the engines and the trainer, so that all of them count, cut and place alike. Of the Qwen2.5-VL and
Qwen3-VL families; a picture is an image, never a video of theirs: Qwen2.5-VL has no place for timestamps in a video,
and pairs of frames would be merged that the policy asked for one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from m1lite.records import PlacedMedia

_NORMS = {
    "qwen2_5_vl": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "qwen3_vl": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation per channel, of values in [0, 1], that the families' processors normalise with."""


class MediaMismatchError(ValueError):
    """Placeholder tokens and media that do not belong together; names the prompt, both counts and the place."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Sight:
    """What turns pictures into tokens."""

    patch_size: int
    """Pixels along the side of a patch."""
    merge_size: int
    """Patches along the side of a token."""
    temporal_patch_size: int
    """Times that a still picture is repeated."""
    image_id: int
    """The placeholder: one stands for each feature of a picture."""
    video_id: int
    start_id: int
    end_id: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def factor(self) -> int:
        """Height and width of a picture are multiples of this many pixels."""
        return self.patch_size * self.merge_size

    @property
    def media_ids(self) -> tuple[int, ...]:
        """Tokens that a policy may never sample: they would stand for pictures that are not there."""
        return self.image_id, self.video_id, self.start_id, self.end_id

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return how many tokens high and wide a picture is.

        Args:
            size: height and width in pixels.

        Raises:
            ValueError: if they are no multiples of ``factor``.
        """
        height, width = size
        if height % self.factor or width % self.factor or min(size) < 1:
            raise ValueError(f"A picture of {height} x {width} pixels must have multiples of {self.factor} a side.")
        return height // self.factor, width // self.factor

    def num_tokens(self, size: tuple[int, int]) -> int:
        """Return how many placeholders stand for a picture; arguments as in :meth:`grid`."""
        rows, columns = self.grid(size)
        return rows * columns

    def block(self, size: tuple[int, int]) -> list[int]:
        """Return a picture's ids: its placeholders between the two marks; arguments as in :meth:`grid`."""
        return [self.start_id, *[self.image_id] * self.num_tokens(size), self.end_id]

    def patches(self, pixels: Tensor) -> Tensor:
        """Cut pictures into normalised patches, in the order in which the tower merges them.

        Args:
            pixels: uint8 ``(N, 3, H, W)``.

        Returns:
            float32 ``(N, P, 3 * T * S * S)``: P patches of side S, each repeated T times.
        """
        count, channels, height, width = pixels.shape
        self.grid((height, width))
        side, merge, times = self.patch_size, self.merge_size, self.temporal_patch_size
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (self.mean, self.std))
        # One product and one sum, as the families' processor does it: bit for bit what vLLM's renderer gives.
        values = (pixels.float() - mean * 255) / (std * 255)
        cut = values.reshape(
            count, channels, height // side // merge, merge, side, width // side // merge, merge, side
        ).permute(0, 2, 5, 3, 6, 1, 4, 7)
        repeated = cut.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, times, -1, -1)
        return repeated.reshape(count, (height // side) * (width // side), channels * times * side * side)

    def positions(self, length: int, media: Sequence[PlacedMedia]) -> Tensor:
        """Give every token its place in time, height and width (multimodal rotary positions).

        Text counts on in all three. A picture stands still in time, counts its rows and columns, and what follows goes
        on after the larger of the two.

        Args:
            length: T tokens.
            media: by place; whole blocks inside of the T tokens.

        Returns:
            long ``(3, T)``.

        References:
            Bai et al. 2025, arXiv:2502.13923, section 2.1.3, for still pictures.
        """
        places = torch.empty(3, length, dtype=torch.long)
        token = position = 0
        for picture in media:
            text = torch.arange(position, position + picture.offset - token)
            places[:, token : picture.offset] = text
            position += len(text)
            rows, columns = self.grid(picture.media.size)
            end = picture.offset + rows * columns
            places[0, picture.offset : end] = position
            places[1, picture.offset : end] = position + torch.arange(rows).repeat_interleave(columns)
            places[2, picture.offset : end] = position + torch.arange(columns).repeat(rows)
            token, position = end, position + max(rows, columns)
        places[:, token:] = torch.arange(position, position + length - token)
        return places

    def check(self, ids: Sequence[int], media: Sequence[PlacedMedia], name: str) -> None:
        """Check that every placeholder belongs to a picture, and every picture has its placeholders.

        Args:
            ids: of one prompt or row.
            media: by place.
            name: of the prompt or row, for the message.

        Raises:
            MediaMismatchError: if not.
        """
        token = 0
        for picture in media:
            count, shown = self.num_tokens(picture.media.size), picture.media
            if len(shown.timestamps) != 1 or picture.offset < token:
                raise MediaMismatchError(
                    f"{name}: the picture at token {picture.offset} must come after the one before it and be of one "
                    f"time, got {shown}."
                )
            found = sum(token == self.image_id for token in ids[picture.offset : picture.offset + count])
            around = [ids[place] if 0 <= place < len(ids) else None for place in _ends(picture.offset, count)]
            if found != count or around != [self.start_id, self.end_id]:
                raise MediaMismatchError(
                    f"{name}: the frame at {shown.timestamps[0]:g} s of {shown.uri!r} has {count} features, but at "
                    f"token {picture.offset} stand {found} placeholders between the tokens {around}; text and media "
                    "were not cut or moved together."
                )
            token = picture.offset + count
        expected = sum(self.num_tokens(picture.media.size) for picture in media)
        total = sum(token == self.image_id or token == self.video_id for token in ids)
        if total != expected:
            raise MediaMismatchError(
                f"{name}: {total} placeholder tokens, but {len(media)} pictures with {expected} features; every "
                "placeholder needs its picture."
            )


def _ends(offset: int, count: int) -> tuple[int, int]:
    return offset - 1, offset + count


def sight_of(config: Any) -> Sight | None:
    """Read how a model sees from its configuration; ``None`` for one that does not.

    Args:
        config: of transformers.

    Raises:
        ValueError: if the model sees in a way that is not known here.
    """
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return None
    if config.model_type not in _NORMS:
        raise ValueError(f"Models of type {config.model_type!r} see in an unknown way; known are {sorted(_NORMS)}.")
    mean, std = _NORMS[config.model_type]
    return Sight(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        image_id=config.image_token_id,
        video_id=config.video_token_id,
        start_id=config.vision_start_token_id,
        end_id=config.vision_end_token_id,
        mean=mean,
        std=std,
    )
