"""What is said in a sound, with times: Whisper and its kin through transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m1lite.toolbox.backends.loading import Loaded, ModelError, ModelSource
from m1lite.toolbox.sharing import shared
from m1lite.video.subtitles import Subtitle

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE = 16_000
"""Samples per second of the sound that Whisper hears."""
_SILENCE = 1e-3
"""Loudest sample of what counts as silence, 60 dB below the loudest possible; Whisper makes up words for it."""
_MIN_LOGPROB = -1.0
"""With a high probability of no speech, what is less likely per token than this is left out; Whisper's own default."""


class WhisperTranscriber:
    """Writes down what is said, greedily.

    Args:
        model: a folder or a name on the hub, such as ``openai/whisper-large-v3-turbo``.
        language: such as ``en``; ``None`` lets the model tell it.
        no_speech_threshold: probability of no speech above which unlikely words are left out, from 0 to 1; ``None``
            keeps all.
        revision: on the hub.
        device: where it runs.
        dtype: of the weights.

    References:
        Robust Speech Recognition via Large-Scale Weak Supervision, arXiv:2212.04356, section 4.5.
    """

    def __init__(
        self,
        model: str,
        *,
        language: str | None = None,
        no_speech_threshold: float | None = 0.6,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "auto",
    ) -> None:
        if no_speech_threshold is not None and not 0 <= no_speech_threshold <= 1:
            raise ValueError(f"`no_speech_threshold` must be from 0 to 1, got {no_speech_threshold}.")
        self._language = language
        self._no_speech = no_speech_threshold
        self._source = shared(
            ModelSource,
            model=model,
            model_class="AutoModelForSpeechSeq2Seq",
            processor_class="AutoProcessor",
            revision=revision,
            device=device,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        return f"WhisperTranscriber({self._source!r})"

    @property
    def identity(self) -> str:
        """What the words depend on."""
        return f"{self._source.identity} {self._language} {self._no_speech}"

    def __call__(self, sound: Tensor) -> list[Subtitle]:
        """Write down a sound of any length.

        Args:
            sound: float32 ``(N,)`` from -1 to 1, 16,000 samples per second.

        Returns:
            Texts with seconds since the sound's beginning, in order; none for silence.

        Raises:
            ModelError: if the model cannot be loaded, is of another kind, or does not know the language.
        """
        if not len(sound) or float(sound.abs().max()) < _SILENCE:
            return []
        with self._source.use() as loaded:
            self._check(loaded)
            inputs = self._source.placed(_features(loaded.processor.feature_extractor, sound))
            options: dict[str, Any] = {}
            if self._language is not None:
                options["language"] = self._language
            if self._no_speech is not None:
                options |= {"no_speech_threshold": self._no_speech, "logprob_threshold": _MIN_LOGPROB}
            try:
                found = loaded.model.generate(
                    **inputs, return_timestamps=True, return_segments=True, temperature=0.0, **options
                )
            except ValueError as error:  # an unknown language, or a model that has none
                raise ModelError(f"The model {self._source.name!r} does not transcribe this: {error}") from error
            segments = found["segments"][0]
            tokens = [one["tokens"].tolist() for one in segments]
            texts = loaded.processor.batch_decode(tokens, skip_special_tokens=True)
        return _timed(segments, texts, len(sound) / SAMPLE_RATE)

    def _check(self, loaded: Loaded) -> None:
        rate = getattr(getattr(loaded.processor, "feature_extractor", None), "sampling_rate", None)
        if loaded.model.config.model_type != "whisper" or rate != SAMPLE_RATE:
            raise ModelError(
                f"The model {self._source.name!r} is a {type(loaded.model).__name__} that hears {rate} samples per "
                f"second; give a Whisper, which hears {SAMPLE_RATE}."
            )


def _features(extractor: Any, sound: Tensor) -> dict[str, Any]:
    """Make the model's input; what is longer than one look of it stays whole."""
    long = len(sound) > extractor.n_samples
    options: dict[str, Any] = {"truncation": False, "padding": "longest"} if long else {}
    made: dict[str, Any] = extractor(
        sound.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True, **options
    )
    return made


def _timed(segments: list[dict[str, Any]], texts: list[str], end: float) -> list[Subtitle]:
    """Cut times to the sound, which was filled up with silence, and leave out what is empty."""
    rows = [
        (float(one["start"]), min(float(one["end"]), end), " ".join(text.split()))
        for one, text in zip(segments, texts, strict=True)
    ]
    return [Subtitle(start=start, end=stop, text=text) for start, stop, text in rows if text and start < stop]
