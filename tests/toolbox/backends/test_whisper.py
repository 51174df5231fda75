"""A tiny Whisper from disk writes what it writes on its own, with times that are those of the sound."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

from m1lite.toolbox.backends.loading import ModelError
from m1lite.toolbox.backends.speech import SAMPLE_RATE, WhisperTranscriber
from m1lite.toolbox.base import ToolContext
from m1lite.toolbox.index import VideoIndex
from m1lite.toolbox.learned.speech import Speech, SpeechReader
from m1lite.video.audio import read_audio
from m1lite.video.cache import FrameCache
from tests.sounds import write_sound


def chirp(seconds, rate=SAMPLE_RATE):
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (100 + 300 * time) * time)


def on_its_own(folder, sound):
    """Ask transformers look by look, 2 seconds each; every look begins where the last segment ended."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    inputs = processor.feature_extractor(sound.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, return_timestamps=True)[0].tolist()
    return processor.tokenizer.decode(ids, output_offsets=True)["offsets"]


def test_a_look_is_written_as_transformers_writes_it(whisper_folder):
    sound = torch.from_numpy(chirp(2)).float()
    found = WhisperTranscriber(whisper_folder, no_speech_threshold=None)(sound)
    expected = [one for one in on_its_own(whisper_folder, sound) if one["text"].strip()]
    assert expected
    assert [one.text for one in found] == [one["text"].strip() for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.start, one.end) == pytest.approx(other["timestamp"])


def test_a_long_sound_is_heard_to_its_end(whisper_folder):
    sound = torch.from_numpy(chirp(7)).float()
    found = WhisperTranscriber(whisper_folder)(sound)
    assert found[-1].end > 5
    assert all(0 <= one.start < one.end <= 7 for one in found)
    assert [one.start for one in found] == sorted(one.start for one in found)
    assert WhisperTranscriber(whisper_folder)(sound[: SAMPLE_RATE // 2])[-1].end <= 0.5


def test_silence_has_no_words(whisper_folder, tmp_path):
    missing = WhisperTranscriber(str(tmp_path / "missing"))  # loading it would be an error
    assert missing(torch.zeros(SAMPLE_RATE)) == missing(torch.zeros(0)) == []
    with pytest.raises(ModelError, match="missing' cannot be loaded as AutoModelForSpeechSeq2Seq"):
        missing(torch.ones(SAMPLE_RATE))


def test_languages(whisper_folder):
    sound = torch.from_numpy(chirp(2)).float()
    english, german = (WhisperTranscriber(whisper_folder, language=language) for language in ("en", "de"))
    assert english(sound) != german(sound)
    assert english.identity != german.identity
    with pytest.raises(ModelError, match="does not transcribe this: Unsupported language: xx"):
        WhisperTranscriber(whisper_folder, language="xx")(sound)
    with pytest.raises(ValueError, match=r"`no_speech_threshold` must be from 0 to 1, got 2"):
        WhisperTranscriber("x", no_speech_threshold=2)


def test_another_model_is_refused(sentence_folder):
    with pytest.raises(ModelError, match="cannot be loaded as AutoModelForSpeechSeq2Seq"):
        WhisperTranscriber(sentence_folder)(torch.ones(SAMPLE_RATE))


def test_the_tool_on_a_real_file(whisper_folder, tmp_path):
    video = str(write_sound(tmp_path / "chirp.mp4", chirp(6, 44_100)))
    model = WhisperTranscriber(whisper_folder)
    index = VideoIndex(tmp_path / "index")
    (tool,) = SpeechReader(Speech(index, model, piece_seconds=3)).tools
    result = tool(ToolContext(video=video, duration=6.0, frames=FrameCache(0), look=None))
    lines = [
        f"{one.start + begin:g} to {one.end + begin:g}: {one.text}"
        for begin in (0, 3)
        for one in model(read_audio(video, begin, begin + 3))
    ]
    assert lines
    assert result.text.split("\n") == lines
    assert index.counts["made"] == 2
