"""Load a model of transformers once, when it is first used, and name it by its weights.

Which classes to load and what to ask of them is decided in the files beside this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

LOADING = Lock()
"""Held by the one thread that loads: transformers changes torch's initialisation meanwhile, for all threads, and tied
weights of a second model were found to be drawn anew."""


class ModelError(RuntimeError):
    """A model that cannot be loaded or does not do what is asked of it; names it and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that is ready."""

    model: Any
    """In eval mode, on its device."""
    processor: Any
    """Makes its inputs."""
    identity: str
    """Changes with the weights, their precision and the processor's settings, but not with their place."""


class ModelSource:
    """Where a model comes from. Safe for threads: :meth:`use` lets one at a time in.

    Args:
        model: a folder, or a name on the hub, from where it is downloaded when it is first used.
        model_class: the name of a class of transformers, such as ``AutoModel``.
        processor_class: such as ``AutoProcessor``.
        revision: branch, tag or commit on the hub.
        device: where it runs.
        dtype: of the weights, such as ``bfloat16``; ``auto`` is that of the files.
    """

    def __init__(
        self,
        model: str,
        *,
        model_class: str,
        processor_class: str,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "auto",
    ) -> None:
        if not model:
            raise ValueError("`model` is empty; give a folder or a name on the hub.")
        self.name = model
        self.device = device
        self._model_class, self._processor_class = model_class, processor_class
        self._revision, self._dtype = revision, dtype
        self._loaded: Loaded | None = None
        self._lock = RLock()  # tokenizers refuse two threads at once, and memory is planned for one batch

    def __repr__(self) -> str:
        return f"{self._model_class}({self.name!r} on {self.device})"

    @property
    def identity(self) -> str:
        """As in :class:`Loaded`; loads the model."""
        with self.use() as loaded:
            return loaded.identity

    @contextmanager
    def use(self) -> Iterator[Loaded]:
        """Give the model, loaded, to one thread at a time and without gradients.

        Raises:
            ModelError: if it cannot be loaded.
        """
        import torch

        with self._lock, torch.no_grad():
            if self._loaded is None:
                self._loaded = self._load()
            yield self._loaded

    def placed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Move what a processor made to the model's device, and numbers to its precision."""
        dtype = None if self._loaded is None else self._loaded.model.dtype
        return {
            name: value.to(self.device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if hasattr(value, "is_floating_point")
        }

    def _load(self) -> Loaded:
        import transformers

        try:
            # Pickled weights and code from a hub could run anything.
            options: dict[str, Any] = {"revision": self._revision or "main", "trust_remote_code": False}
            processor = getattr(transformers, self._processor_class).from_pretrained(self.name, **options)
            with LOADING:
                model = getattr(transformers, self._model_class).from_pretrained(
                    self.name, dtype=self._dtype, use_safetensors=True, **options
                )
        # The loaders of transformers raise many kinds of errors for what they find.
        except Exception as error:
            raise ModelError(
                f"The model {self.name!r} cannot be loaded as {self._model_class} ({type(error).__name__}: {error}). "
                "Give a folder or a name on the hub that holds such a model in safetensors; without a network, "
                "download it before."
            ) from error
        model = model.to(self.device).eval()
        return Loaded(model=model, processor=processor, identity=model_identity(model, processor))


def model_identity(model: nn.Module, processor: Any) -> str:
    """Name a model by its class, configuration, weights and processor."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    config: Any = model.config
    settings = {name: value for name, value in config.to_dict().items() if not name.startswith("_")}
    settings.pop("transformers_version", None)
    digest.update(json.dumps([type(model).__name__, settings], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for part in ("image_processor", "video_processor", "feature_extractor"):
        own = getattr(processor, part, None)
        if own is not None:
            digest.update(json.dumps(own.to_dict(), sort_keys=True, default=str).encode())
    tokenizer = getattr(processor, "tokenizer", processor)
    if hasattr(tokenizer, "get_vocab"):
        template = str(getattr(processor, "chat_template", None))
        digest.update(json.dumps([sorted(tokenizer.get_vocab().items()), template]).encode())
    return digest.hexdigest()
