"""A vision-language model that tools ask through one of m1lite's engines, such as vLLM in this process."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from m1lite.agents.chat import Chat
from m1lite.agents.media_chat import MediaChat
from m1lite.engines.base import EngineError, Request, Sampling
from m1lite.engines.sight import sight_of
from m1lite.records import MediaRef, PlacedMedia
from m1lite.toolbox.backends.loading import LOADING, ModelError
from m1lite.toolbox.learned.search import shown_size
from m1lite.toolbox.sharing import shared
from m1lite.video.reader import Frames, resized

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from m1lite.engines.base import Engine
    from m1lite.video.cache import FrameCache

_POLICY = "viewer"
_SYSTEM = "You are a helpful assistant."


class EngineViewer:
    """Asks greedily; what several threads ask meanwhile is drawn as one batch. The engine is built when first asked.

    Args:
        model: a folder or a name on the hub, of the Qwen2.5-VL or Qwen3-VL family.
        make: builds the engine; called with the model, the policies' names, ``max_model_len`` and ``frames``.
        max_new_tokens: of a reply, at least 1.
        max_context: tokens of instruction, frames and reply together.
    """

    def __init__(
        self, model: str, *, make: Callable[..., Engine], max_new_tokens: int = 256, max_context: int = 16_384
    ) -> None:
        if not 1 <= max_new_tokens < max_context:
            raise ValueError(
                f"`max_new_tokens` must be at least 1 and below `max_context`, got {max_new_tokens} and {max_context}."
            )
        self._model = model
        self._make = make
        self._sampling = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
        self._max_context = max_context
        self._held = _HeldFrames()
        self._opened: tuple[Engine, MediaChat] | None = None
        self._waiting: list[tuple[Request, Future[str]]] = []
        self._opening, self._queueing, self._drawing = Lock(), Lock(), Lock()

    def __repr__(self) -> str:
        return f"EngineViewer({self._model!r})"

    @property
    def identity(self) -> str:
        """What replies depend on; the weights are known by the model's folder or name only."""
        return json.dumps(["engine", self._model, self._sampling.max_new_tokens])

    def __call__(self, instruction: str, frames: Frames | None = None) -> str:
        """Ask about frames, each behind its second.

        Args:
            instruction: what to do or to answer.
            frames: in order; ``None`` shows none. They are resized to what the model takes.

        Raises:
            ModelError: if the model cannot be loaded or does not see, or the engine fails or refuses the length.
        """
        engine, chat = self._open()
        shown = [] if frames is None else list(zip(frames.timestamps, frames.pixels, strict=True))
        refs = [self._held.add(second, pixels, chat.sight.factor) for second, pixels in shown]
        try:
            prompt = chat.open(_SYSTEM, [*refs, instruction])
            media = tuple(
                PlacedMedia(media=ref, offset=at) for ref, at in zip(prompt.media, prompt.offsets, strict=True)
            )
            request = Request(policy=_POLICY, prompt_ids=prompt.ids, sampling=self._sampling, seed=0, media=media)
            return self._ask(engine, chat, request)
        except EngineError as error:
            raise ModelError(f"The model {self._model!r} gave no reply: {error}") from error
        finally:
            for ref in refs:
                self._held.drop(ref)

    def close(self) -> None:
        """Free the engine, if there is one; it is built anew when asked again."""
        with self._opening, self._drawing:
            if self._opened is not None:
                self._opened[0].close()
                self._opened = None

    def _ask(self, engine: Engine, chat: MediaChat, request: Request) -> str:
        """Queue a request; whoever gets to draw draws all that wait by then."""
        reply: Future[str] = Future()
        with self._queueing:
            self._waiting.append((request, reply))
        with self._drawing:
            with self._queueing:
                batch, self._waiting = self._waiting, []
            if batch:
                _draw(engine, chat, batch)
        return reply.result()

    def _open(self) -> tuple[Engine, MediaChat]:
        from transformers import AutoConfig, AutoTokenizer

        with self._opening:
            if self._opened is None:
                try:
                    with LOADING:
                        sight = sight_of(AutoConfig.from_pretrained(self._model))
                        if sight is None:
                            raise ModelError(
                                f"The model {self._model!r} does not see through engines; give one of Qwen2.5-VL's or "
                                "Qwen3-VL's family, or ask it through transformers or an endpoint."
                            )
                        chat = MediaChat(Chat(AutoTokenizer.from_pretrained(self._model)), sight)
                        made = self._make(
                            self._model,
                            [_POLICY],
                            max_model_len=self._max_context,
                            frames=cast("FrameCache", self._held),
                        )
                # Engines and the loaders of transformers raise many kinds of errors for what they find.
                except (EngineError, OSError, ValueError) as error:
                    raise ModelError(f"No engine could be built for {self._model!r}: {error}") from error
                self._opened = made, chat
            return self._opened


def _draw(engine: Engine, chat: MediaChat, batch: Sequence[tuple[Request, Future[str]]]) -> None:
    """Draw a batch and hand out the replies; where it fails, each request for itself, so that one spoils no other."""
    try:
        replies = engine.generate([request for request, _ in batch])
    except EngineError as error:
        if len(batch) == 1:
            batch[0][1].set_exception(error)
            return
        for one in batch:
            _draw(engine, chat, [one])
        return
    # Whatever else is raised reaches the thread that draws; the others must not wait for ever.
    except BaseException as fault:
        for _, reply in batch:
            reply.set_exception(EngineError(f"{type(fault).__name__}: {fault}"))
        return
    for (_, reply), drawn in zip(batch, replies, strict=True):
        reply.set_result(chat.decode(drawn.token_ids).strip())


def vllm_viewer(
    model: str,
    *,
    max_new_tokens: int = 256,
    max_context: int = 16_384,
    dtype: str = "bfloat16",
    kv_cache_bytes: int = 4 << 30,
) -> EngineViewer:
    """Ask a model through vLLM in this process; equal arguments give one viewer, and so one engine, for all tools.

    Args:
        model: as for :class:`EngineViewer`.
        max_new_tokens: of a reply.
        max_context: tokens of instruction, frames and reply together.
        dtype: of the weights.
        kv_cache_bytes: memory for keys and values.
    """
    engine = {"dtype": dtype, "kv_cache_bytes": kv_cache_bytes}
    return shared(_vllm_viewer, model=model, max_new_tokens=max_new_tokens, max_context=max_context, engine=engine)


def _vllm_viewer(model: str, max_new_tokens: int, max_context: int, engine: Mapping[str, Any]) -> EngineViewer:
    def make(model: str, policies: Sequence[str], **options: Any) -> Engine:
        from m1lite.engines.vllm import VllmEngine  # here, so that a configuration is read without vLLM

        return VllmEngine(model, policies, max_adapters=0, **engine, **options)

    return EngineViewer(model, make=make, max_new_tokens=max_new_tokens, max_context=max_context)


class _HeldFrames:
    """Gives an engine the frames that a tool has decoded already, by their content."""

    def __init__(self) -> None:
        self._pixels: dict[str, Tensor] = {}
        self._users: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, second: float, pixels: Tensor, factor: int) -> MediaRef:
        """Hold uint8 ``(3, H, W)`` until it is dropped; it is shown at multiples of ``factor``."""
        height, width = pixels.shape[1:]
        size = shown_size(height, width, max(height, width, factor), factor)
        fitted = resized(pixels[None], size)
        uri = f"held:{hashlib.blake2b(fitted.contiguous().numpy().tobytes(), digest_size=16).hexdigest()}"
        with self._lock:
            self._pixels[uri] = fitted
            self._users[uri] += 1
        return MediaRef(uri=uri, timestamps=(second,), size=size)

    def drop(self, ref: MediaRef) -> None:
        """Forget a frame when its last user drops it."""
        with self._lock:
            self._users[ref.uri] -= 1
            if not self._users[ref.uri]:
                del self._users[ref.uri], self._pixels[ref.uri]

    def frames_at(self, uri: str | Path, seconds: Sequence[float], size: Any = None, **_: Any) -> Frames:
        """Give what is held, as ``FrameCache.frames_at`` does for a video."""
        with self._lock:
            pixels = self._pixels[str(uri)]
        return Frames(pixels=pixels.expand(len(seconds), -1, -1, -1), timestamps=list(seconds))
