"""Vision-language models that look at frames and write: behind an OpenAI-compatible endpoint, or through transformers.

Every frame is preceded by its second, as text. What is asked is decided in ``learned/``.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m1lite.toolbox.backends.loading import ModelError, ModelSource
from m1lite.toolbox.sharing import shared

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.toolbox.chat_endpoint import ChatEndpoint
    from m1lite.video.reader import Frames


class EndpointViewer:
    """Asks a model behind an endpoint, such as ``vllm serve``; frames travel as JPEG in the request.

    Args:
        endpoint: sends chats; its options say how long a reply may be.
        quality: of the JPEG, from 1 to 100.
    """

    def __init__(self, endpoint: ChatEndpoint, *, quality: int = 90) -> None:
        if not 1 <= quality <= 100:
            raise ValueError(f"`quality` must be from 1 to 100, got {quality}.")
        self._endpoint = endpoint
        self._quality = quality

    def __repr__(self) -> str:
        return f"EndpointViewer({self._endpoint!r})"

    @property
    def identity(self) -> str:
        """What replies depend on; the endpoint's weights are known by its model's name only."""
        return json.dumps(["endpoint", self._endpoint.identity, self._quality])

    def __call__(self, instruction: str, frames: Frames | None = None) -> str:
        """Ask about frames.

        Args:
            instruction: what to do or to answer.
            frames: in order; ``None`` shows none.

        Returns:
            The reply without blanks around it.

        Raises:
            ModelError: if the endpoint gives no reply; says why.
        """
        parts: list[dict[str, Any]] = []
        for second, pixels in _shown(frames):
            url = f"data:image/jpeg;base64,{base64.b64encode(_jpeg(pixels, self._quality)).decode()}"
            parts += [{"type": "text", "text": f"{second:g} s:"}, {"type": "image_url", "image_url": {"url": url}}]
        parts.append({"type": "text", "text": instruction})
        (reply,) = self._endpoint([[{"role": "user", "content": parts}]])
        if reply.text is None:
            raise ModelError(f"{self._endpoint!r} gave no reply ({reply.problem}: {reply.detail}).")
        return reply.text.strip()


class TransformersViewer:
    """Generates with a vision-language model in this process, greedily.

    Args:
        model: a folder or a name on the hub, such as ``Qwen/Qwen2.5-VL-7B-Instruct``.
        max_new_tokens: of a reply, at least 1.
        revision: on the hub.
        device: where it runs.
        dtype: of the weights.
    """

    def __init__(
        self,
        model: str,
        *,
        max_new_tokens: int = 256,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "auto",
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens` must be at least 1, got {max_new_tokens}.")
        self._max_new_tokens = max_new_tokens
        self._source = shared(
            ModelSource,
            model=model,
            model_class="AutoModelForImageTextToText",
            processor_class="AutoProcessor",
            revision=revision,
            device=device,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        return f"TransformersViewer({self._source!r})"

    @property
    def identity(self) -> str:
        """What replies depend on."""
        return json.dumps(["transformers", self._source.identity, self._max_new_tokens])

    def __call__(self, instruction: str, frames: Frames | None = None) -> str:
        """Ask about frames; as :meth:`EndpointViewer.__call__`.

        Raises:
            ModelError: if the model cannot be loaded.
        """
        shown = _shown(frames)
        parts: list[dict[str, str]] = []
        for second, _ in shown:
            parts += [{"type": "text", "text": f"{second:g} s:"}, {"type": "image"}]
        parts.append({"type": "text", "text": instruction})
        with self._source.use() as loaded:
            text = loaded.processor.apply_chat_template(
                [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
            )
            images = [pixels for _, pixels in shown]
            inputs = loaded.processor(text=[text], images=images or None, return_tensors="pt")
            placed = self._source.placed(inputs)
            ids = loaded.model.generate(**placed, max_new_tokens=self._max_new_tokens, do_sample=False)
            reply = loaded.processor.batch_decode(
                ids[:, placed["input_ids"].shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )[0]
        return str(reply).strip()


def _shown(frames: Frames | None) -> Sequence[tuple[float, Tensor]]:
    return [] if frames is None else list(zip(frames.timestamps, frames.pixels, strict=True))


def _jpeg(pixels: Tensor, quality: int) -> bytes:
    """Write uint8 ``(3, H, W)`` as JPEG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy()).save(file, "jpeg", quality=quality)
    return file.getvalue()
