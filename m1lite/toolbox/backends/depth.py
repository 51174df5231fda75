"""How far away everything in a picture is: Depth Anything and its kin through transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m1lite.toolbox.backends.loading import ModelSource
from m1lite.toolbox.sharing import shared

if TYPE_CHECKING:
    from torch import Tensor


class DepthEstimator:
    """Estimates depth from single pictures.

    Args:
        model: a folder or a name on the hub, such as ``depth-anything/Depth-Anything-V2-Small-hf``.
        revision: on the hub.
        device: where it runs.
        dtype: of the weights.
        batch_size: pictures at a time.
    """

    def __init__(
        self, model: str, *, revision: str | None = None, device: str = "cpu", dtype: str = "auto", batch_size: int = 4
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        self._batch_size = batch_size
        self._source = shared(
            ModelSource,
            model=model,
            model_class="AutoModelForDepthEstimation",
            processor_class="AutoImageProcessor",
            revision=revision,
            device=device,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        return f"DepthEstimator({self._source!r})"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Estimate how near every pixel is, within its picture.

        Args:
            pixels: uint8 ``(N, 3, H, W)``, RGB.

        Returns:
            float32 ``(N, H, W)`` on the CPU: 1 is the nearest pixel of a picture and 0 its farthest; all 0 where there
            is no difference. Models of metres are turned over, so that nearer is more for them too.

        Raises:
            ModelError: if the model cannot be loaded.
        """
        import torch

        size = tuple(pixels.shape[2:])
        maps = []
        with self._source.use() as loaded:
            metric = getattr(loaded.model.config, "depth_estimation_type", "relative") == "metric"
            for batch in pixels.split(self._batch_size):
                inputs = loaded.processor(images=list(batch), return_tensors="pt")
                outputs = loaded.model(**self._source.placed(inputs))
                found = loaded.processor.post_process_depth_estimation(outputs, target_sizes=[size] * len(batch))
                maps += [one["predicted_depth"].float().cpu() for one in found]
        near = torch.stack(maps)
        near = -near if metric else near
        low, high = near.amin((1, 2), keepdim=True), near.amax((1, 2), keepdim=True)
        return (near - low) / (high - low).clamp(min=1e-12)
