"""Objects named in free words, found in pictures: Grounding DINO, OWLv2 and their kin through transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m1lite.records import Box
from m1lite.toolbox.backends.loading import ModelSource
from m1lite.toolbox.sharing import shared

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object in a picture."""

    score: float
    """From 0 to 1."""
    box: Box
    """Pixels of the picture."""


class ZeroShotDetector:
    """Finds what a few words name.

    One name is asked at a time, so that every box is of that name: the phrases that Grounding DINO reads out of
    several names can be parts of them.

    Args:
        model: a folder or a name on the hub, such as ``IDEA-Research/grounding-dino-tiny`` or
            ``google/owlv2-base-patch16-ensemble``.
        threshold: least score, from 0 to 1.
        revision: on the hub.
        device: where it runs.
        dtype: of the weights.
        batch_size: pictures at a time.
    """

    def __init__(
        self,
        model: str,
        *,
        threshold: float = 0.3,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "auto",
        batch_size: int = 4,
    ) -> None:
        if not 0 <= threshold <= 1 or batch_size < 1:
            raise ValueError(
                f"`threshold` must be from 0 to 1 and `batch_size` at least 1, got {threshold} and {batch_size}."
            )
        self._threshold = threshold
        self._batch_size = batch_size
        self._source = shared(
            ModelSource,
            model=model,
            model_class="AutoModelForZeroShotObjectDetection",
            processor_class="AutoProcessor",
            revision=revision,
            device=device,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        return f"ZeroShotDetector({self._source!r})"

    def __call__(self, pixels: Tensor, name: str) -> list[list[Found]]:
        """Find an object.

        Args:
            pixels: uint8 ``(N, 3, H, W)``, RGB.
            name: in free words.

        Returns:
            One list per picture, surest first; boxes are clipped to the picture.

        Raises:
            ModelError: if the model cannot be loaded.
        """
        asked = " ".join(name.replace(".", " ").split()).lower()  # Grounding DINO takes a point for the end of a name
        height, width = pixels.shape[2:]
        found: list[list[Found]] = []
        with self._source.use() as loaded:
            for batch in pixels.split(self._batch_size):
                inputs = loaded.processor(images=list(batch), text=[[asked]] * len(batch), return_tensors="pt")
                outputs = loaded.model(**self._source.placed(inputs))
                results = loaded.processor.post_process_grounded_object_detection(
                    outputs, threshold=self._threshold, target_sizes=[(height, width)] * len(batch)
                )
                found += [_listed(result, height, width) for result in results]
        return found


def _listed(result: Any, height: int, width: int) -> list[Found]:
    objects = []
    for score, corners in zip(result["scores"].tolist(), result["boxes"].tolist(), strict=True):
        left, right = (min(max(corners[side], 0.0), width) for side in (0, 2))
        top, bottom = (min(max(corners[side], 0.0), height) for side in (1, 3))
        if left < right and top < bottom:
            objects.append(Found(score=score, box=Box(left=left, top=top, right=right, bottom=bottom)))
    return sorted(objects, key=lambda one: -one.score)
