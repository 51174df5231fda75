"""`toolbox=models` with tiny models on disk: every tool answers on a real file, and every model is loaded once."""

from collections import Counter

import numpy as np
import pytest
from hydra.utils import instantiate

from m1lite.configuration import compose
from m1lite.modules.tiny_vision import save_tiny_vision_base
from m1lite.records import Answer, Sample, Task, ToolCall
from m1lite.toolbox.backends.loading import ModelSource
from tests.sounds import write_sound

CALLS = {
    "global_sampling": {"num_frames": 2},
    "video_retrieval": {"query": "a red dog"},
    "image_retrieval": {"query": "a red dog", "top_k": 2},
    "time_step_retrieval": {"start": 1, "end": 3},
    "rough_browser": {"question": "what is shown?"},
    "fine_browser": {"question": "what is shown?", "start": 0, "end": 2},
    "grounding_tool": {"event": "the dog barks"},
    "spatial_tool": {"question": "dog, cat"},
    "video_qa": {"question": "what is shown?"},
    "get_caption": {},
    "seek_video_frames": {"query": "a dog", "num_frames": 2},
    "ground_event": {"event": "the dog barks"},
    "transcribe_speech": {},
    "video_clip": {"start": 1, "end": 2},
    "crop_video": {"start_time": 1, "end_time": 4},
    "zoom": {"start": 1, "end": 2, "box": [0.25, 0.25, 0.75, 0.75]},
    "get_frames": {"times": [1, 5]},
    "track_object": {"start": 1, "box": [8, 8, 30, 30], "times": [2, 3]},
}


@pytest.fixture
def toolbox(tmp_path, sam2_folder, whisper_folder, owlv2_folder, siglip_folder, depth_anything_folder):
    save_tiny_vision_base(tmp_path / "viewer", hidden_size=64)
    models = {
        "viewer": f"{tmp_path}/viewer", "encoder": siglip_folder, "detector": owlv2_folder, "tracker": sam2_folder,
        "depth": depth_anything_folder, "transcriber": whisper_folder,
    }  # fmt: skip
    overrides = [f"backends.{need}.model={folder}" for need, folder in models.items()]
    small = ["backends.viewer.max_new_tokens=4", "backends.detector.threshold=0"]
    config = compose(["toolbox=models", f"output_dir={tmp_path}", f"cache_dir={tmp_path}", *overrides, *small])
    return instantiate(config.toolbox)


def test_every_tool_answers_and_every_model_is_loaded_once(toolbox, tmp_path, monkeypatch):
    loads = Counter()
    load = ModelSource._load
    monkeypatch.setattr(ModelSource, "_load", lambda self: loads.update([self.name]) or load(self))
    time = np.arange(6 * 44_100) / 44_100
    video = write_sound(tmp_path / "clip.mp4", 0.5 * np.sin(2 * np.pi * (100 + 300 * time) * time))
    sample = Sample(
        id="a", video=str(video), duration=6.0, task=Task.CHOICE, question="?", answer=Answer(text="unseen")
    )
    assert set(CALLS) == set(toolbox.names)
    calls = [(sample, ToolCall(tool=tool, args=args)) for tool, args in CALLS.items()]
    results = dict(zip(CALLS, toolbox.run(calls), strict=True))
    assert {tool: result.error for tool, result in results.items()} == dict.fromkeys(CALLS)
    assert set(loads.values()) == {1}
    assert len(loads) == 6
    assert len(list((tmp_path / "index").rglob("*.safetensors"))) == 5  # frames, speech, captions, segments, summary
    assert results["video_retrieval"].text.startswith("clip 0 6 score ")
    assert results["track_object"].text.startswith("t 2 ")
    assert " near " in results["spatial_tool"].text
    assert results["transcribe_speech"].text[0].isdigit()
    assert results["get_caption"].text.startswith("video: ")
    assert len(results["seek_video_frames"].media[0].timestamps) == 2
    again = dict(zip(CALLS, toolbox.run(calls), strict=True))
    assert all(result.cached for result in again.values())
    assert sum(loads.values()) == 6
