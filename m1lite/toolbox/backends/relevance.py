"""Pictures and texts in one space, by SigLIP, SigLIP 2, CLIP and their kin through transformers.

What is compared with what, and where the vectors are kept, is decided in ``learned/relevance.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m1lite.toolbox.backends.loading import Loaded, ModelError, ModelSource
from m1lite.toolbox.sharing import shared

if TYPE_CHECKING:
    from torch import Tensor


class ImageTextEncoder:
    """A model with a tower for pictures and one for texts whose cosine tells how well they fit.

    Args:
        model: a folder or a name on the hub, such as ``google/siglip2-base-patch16-224``.
        revision: on the hub.
        device: where it runs.
        dtype: of the weights.
        batch_size: pictures at a time.
    """

    def __init__(
        self, model: str, *, revision: str | None = None, device: str = "cpu", dtype: str = "auto", batch_size: int = 32
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        self._source = shared(
            ModelSource,
            model=model,
            model_class="AutoModel",
            processor_class="AutoProcessor",
            revision=revision,
            device=device,
            dtype=dtype,
        )
        self._batch_size = batch_size

    def __repr__(self) -> str:
        return f"ImageTextEncoder({self._source!r})"

    @property
    def identity(self) -> str:
        """What the vectors depend on."""
        return self._source.identity

    def images(self, pixels: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            pixels: uint8 ``(N, 3, H, W)``, RGB, at least one.

        Returns:
            float32 ``(N, D)`` on the CPU, of length 1.

        Raises:
            ModelError: if the model cannot be loaded or is of another kind.
        """
        import torch

        with self._source.use() as loaded:
            self._check(loaded)
            batches = []
            for batch in pixels.split(self._batch_size):
                inputs = loaded.processor.image_processor(images=list(batch), return_tensors="pt")
                batches.append(_unit(loaded.model.get_image_features(**self._source.placed(inputs))))
            return torch.cat(batches)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts; what is longer than the model reads is cut.

        Returns:
            float32 ``(M, D)`` on the CPU, of length 1.

        Raises:
            ModelError: as :meth:`images`.
        """
        with self._source.use() as loaded:
            self._check(loaded)
            config = loaded.model.config
            length = config.text_config.max_position_embeddings
            siglip = config.model_type.startswith("siglip")
            inputs = loaded.processor.tokenizer(
                list(texts),
                padding="max_length" if siglip else True,
                max_length=length,
                truncation=True,
                return_tensors="pt",
            )
            if siglip:  # trained on padded texts without a mask, the last token pooled
                inputs.pop("attention_mask", None)
            return _unit(loaded.model.get_text_features(**self._source.placed(inputs)))

    def _check(self, loaded: Loaded) -> None:
        if not hasattr(loaded.model, "get_image_features") or not hasattr(loaded.model, "get_text_features"):
            raise ModelError(
                f"The model {self._source.name!r} is a {type(loaded.model).__name__}, which does not encode pictures "
                "and texts into one space; give one such as SigLIP or CLIP."
            )


def _unit(found: Any) -> Tensor:
    """Take the features out of what a tower gives, with length 1."""
    from torch.nn.functional import normalize

    features = getattr(found, "pooler_output", found)
    return normalize(features.float(), dim=-1).cpu()
