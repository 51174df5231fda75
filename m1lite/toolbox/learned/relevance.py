"""How relevant the seconds and clips of a video are to a query: by frames that are indexed, or by texts with times.

Tools that retrieve, seek or ground take either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from m1lite.toolbox.index import Entry, Recipe, VideoIndex
from m1lite.video.sampling import Window, rate_times
from m1lite.video.subtitles import Subtitle, subtitles_by_window

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.toolbox.base import ToolContext
    from m1lite.video.cache import FrameCache

_FRAMES_AT_ONCE = 32

TextScorer = Callable[[str, Sequence[str]], "list[float | None]"]
"""Scores documents by a query, higher is better; ``None`` where one has nothing to do with it."""
Passages = Callable[["ToolContext"], Sequence[Subtitle]]
"""Texts with times of a video: subtitles, captions, a transcript."""


class ImageTextModel(Protocol):
    """Encodes pictures and texts into one space; vectors are float32 of length 1."""

    @property
    def identity(self) -> str:
        """What the vectors depend on."""

    def images(self, pixels: Tensor) -> Tensor:
        """Encode uint8 ``(N, 3, H, W)``, at least one, to ``(N, D)``."""

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Encode M texts to ``(M, D)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Relevance over time."""

    seconds: tuple[float, ...]
    """Ascending."""
    scores: tuple[float, ...]
    """One for each second; higher is better."""

    def between(self, start: float, end: float) -> Curve:
        """Keep the seconds in ``[start, end)``."""
        kept = [pair for pair in zip(self.seconds, self.scores, strict=True) if start <= pair[0] < end]
        return Curve(seconds=tuple(second for second, _ in kept), scores=tuple(score for _, score in kept))


class Relevance(Protocol):
    """Compares a video with queries."""

    def curve(self, context: ToolContext, query: str) -> Curve:
        """Score seconds of the whole video; none where nothing has to do with the query.

        Raises:
            VideoError: if the video cannot be read.
            ModelError: if the model cannot be loaded.
        """

    def clips(self, context: ToolContext, query: str, windows: Sequence[Window]) -> list[float | None]:
        """Score windows; ``None`` where one has nothing to do with the query. Raises as :meth:`curve`."""


class FrameRelevance:
    """Relevance by frames: their vectors are indexed once, a query costs one text and a product.

    Args:
        index: keeps the vectors.
        model: encodes frames and queries.
        fps: frames per second that are encoded, above 0.
        max_frames: of one video; a longer one is looked at less often.

    References:
        Clips are compared by the mean of their frames' vectors: CLIP4Clip, arXiv:2104.08860, its mean pooling.
    """

    def __init__(self, index: VideoIndex, model: ImageTextModel, *, fps: float = 1.0, max_frames: int = 20_000) -> None:
        if not fps > 0 or max_frames < 1:
            raise ValueError(f"`fps` must be above 0 and `max_frames` at least 1, got {fps} and {max_frames}.")
        self._index = index
        self._model = model
        self._fps = fps
        self._max_frames = max_frames

    def curve(self, context: ToolContext, query: str) -> Curve:
        """Score every indexed frame by the cosine of its vector and the query's."""
        seconds, vectors = self.vectors(context)
        scores = (vectors @ self._model.texts([query])[0]).tolist()
        return Curve(seconds=tuple(seconds), scores=tuple(scores))

    def clips(self, context: ToolContext, query: str, windows: Sequence[Window]) -> list[float | None]:
        """Score windows by the cosine of their frames' mean and the query; ``None`` where one holds no frame."""
        seconds, vectors = self.vectors(context)
        text = self._model.texts([query])[0]
        scores: list[float | None] = []
        for start, end in windows:
            inside = [place for place, second in enumerate(seconds) if start <= second < end]
            mean = vectors[inside].mean(0) if inside else None
            scores.append(None if mean is None else float(mean @ text / mean.norm().clamp(min=1e-12)))
        return scores

    def vectors(self, context: ToolContext) -> tuple[list[float], Tensor]:
        """Give the indexed frames of a video.

        Returns:
            Their seconds, ascending, and float32 ``(N, D)``; what lies past the question's duration is left out.

        Raises:
            ValueError: if scenes are symbolic.
        """
        frames = frames_of(context)
        duration = frames.metadata(context.video).duration
        fps = min(self._fps, self._max_frames / duration)
        recipe = Recipe(kind="frames", maker=self._model.identity, sampling={"fps": fps})
        entry = self._index.entry(
            context.video, recipe, lambda: _encode(frames, context.video, rate_times(0.0, duration, fps), self._model)
        )
        seconds, vectors = entry.tensors["seconds"], entry.tensors["vectors"]
        kept = int((seconds < context.duration).sum())
        return seconds[:kept].tolist(), vectors[:kept]


class TextRelevance:
    """Relevance by texts with times, such as captions and subtitles.

    Args:
        passages: the texts of a video.
        scorer: compares them with a query.
    """

    def __init__(self, passages: Passages, scorer: TextScorer) -> None:
        self._passages = passages
        self._scorer = scorer

    def curve(self, context: ToolContext, query: str) -> Curve:
        """Score the middle of every text that has to do with the query."""
        passages = _clipped(self._passages(context), context.duration)
        scores = self._scorer(query, [passage.text for passage in passages])
        best: dict[float, float] = {}
        for passage, score in zip(passages, scores, strict=True):
            middle = (passage.start + passage.end) / 2
            if score is not None:
                best[middle] = max(score, best.get(middle, score))
        return Curve(seconds=tuple(sorted(best)), scores=tuple(best[second] for second in sorted(best)))

    def clips(self, context: ToolContext, query: str, windows: Sequence[Window]) -> list[float | None]:
        """Score windows by what is said in them."""
        return self._scorer(query, subtitles_by_window(self._passages(context), windows))


def frames_of(context: ToolContext) -> FrameCache:
    """Give what decodes the video.

    Raises:
        ValueError: if scenes are symbolic, so that there is nothing to decode.
    """
    if context.frames is None:
        raise ValueError("This tool looks at pixels, but the toolbox has no `frames`; give it a `FrameCache`.")
    return context.frames


def _encode(frames: FrameCache, video: str, times: list[float], model: ImageTextModel) -> Entry:
    import torch

    chunks = [times[first : first + _FRAMES_AT_ONCE] for first in range(0, len(times), _FRAMES_AT_ONCE)]
    vectors = torch.cat([model.images(frames.frames_at(video, chunk).pixels) for chunk in chunks])
    return Entry(tensors={"seconds": torch.tensor(times, dtype=torch.float64), "vectors": vectors})


def _clipped(passages: Sequence[Subtitle], duration: float) -> list[Subtitle]:
    """Leave out what begins after the end, and end the rest with the video."""
    return [
        Subtitle(start=passage.start, end=min(passage.end, duration), text=passage.text)
        for passage in passages
        if passage.start < duration
    ]
