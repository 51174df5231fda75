"""An object followed from its first box: SAM 2 through transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m1lite.records import Box
from m1lite.toolbox.backends.loading import ModelSource
from m1lite.toolbox.sharing import shared

if TYPE_CHECKING:
    from torch import Tensor


class Sam2Tracker:
    """Segments the object in the first box, and again in every frame, by what it remembers of those before.

    Args:
        model: a folder or a name on the hub, such as ``facebook/sam2.1-hiera-tiny``.
        revision: on the hub.
        device: where it runs.
        dtype: of the weights.

    References:
        SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714.
    """

    def __init__(self, model: str, *, revision: str | None = None, device: str = "cpu", dtype: str = "auto") -> None:
        self._source = shared(
            ModelSource,
            model=model,
            model_class="Sam2VideoModel",
            processor_class="Sam2VideoProcessor",
            revision=revision,
            device=device,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        return f"Sam2Tracker({self._source!r})"

    def __call__(self, pixels: Tensor, box: Box) -> list[Box | None]:
        """Follow an object.

        Args:
            pixels: uint8 ``(N, 3, H, W)``, RGB, in the order of the video.
            box: of the object in the first frame, in pixels.

        Returns:
            One box per frame around the object's mask, the first one as given; ``None`` where it is not seen.

        Raises:
            ModelError: if the model cannot be loaded.
        """
        height, width = pixels.shape[2:]
        found: list[Box | None] = [box]
        with self._source.use() as loaded:
            processor = loaded.processor
            session = processor.init_video_session(
                video=pixels,
                inference_device=self._source.device,
                video_storage_device="cpu",
                dtype=loaded.model.dtype,
            )
            processor.add_inputs_to_inference_session(
                session, frame_idx=0, obj_ids=1, input_boxes=[[[box.left, box.top, box.right, box.bottom]]]
            )
            for output in loaded.model.propagate_in_video_iterator(session, start_frame_idx=0):
                if output.frame_idx == 0:
                    continue
                (masks,) = processor.post_process_masks([output.pred_masks], [(height, width)])  # (1, 1, H, W)
                seen = float(output.object_score_logits.flatten()[0]) > 0
                found.append(mask_box(masks[0, 0].cpu()) if seen else None)
        return found


def mask_box(mask: Tensor) -> Box | None:
    """Give the smallest box around a mask, bool ``(H, W)``; ``None`` where it is empty.

    Example:
        >>> import torch
        >>> mask = torch.zeros(4, 5, dtype=torch.bool)
        >>> mask[1:3, 2] = True
        >>> mask_box(mask)
        Box(left=2, top=1, right=3, bottom=3)
    """
    rows, columns = (mask.any(side).nonzero().flatten().tolist() for side in (1, 0))
    return Box(left=columns[0], top=rows[0], right=columns[-1] + 1, bottom=rows[-1] + 1) if rows else None
