"""Which tools which models give."""

import pytest

from m1lite.toolbox import json_schema
from m1lite.toolbox.backends.bm25 import BM25
from m1lite.toolbox.backends.depth import DepthEstimator
from m1lite.toolbox.backends.detection import ZeroShotDetector
from m1lite.toolbox.backends.relevance import ImageTextEncoder
from m1lite.toolbox.backends.speech import WhisperTranscriber
from m1lite.toolbox.backends.tracking import Sam2Tracker
from m1lite.toolbox.backends.viewers import TransformersViewer
from m1lite.toolbox.learned.assembled import model_tools, tool_of
from m1lite.toolbox.learned.viewing import Viewing
from m1lite.toolbox.shape_tracker import track_shape

VIEWED = {"global_sampling", "time_step_retrieval", "rough_browser", "fine_browser", "video_qa", "get_caption"}
FOUND = {"video_retrieval", "image_retrieval", "grounding_tool", "ground_event"}


def names(tools):
    return {tool.name for tool in tools}


class Grey:
    identity = "grey"

    def __call__(self, instruction, frames=None):
        return "a grey dog" if frames is None or frames.timestamps[0] > 16 else "a grey cat"


def test_each_model_brings_its_tools(index, encoder):
    assert names(model_tools(index, encoder=encoder)) == FOUND | {"seek_video_frames"}
    assert names(model_tools(index, viewer=Grey())) == VIEWED
    assert names(model_tools(index, viewer=Grey(), scorer=BM25())) == VIEWED | FOUND
    assert names(model_tools(index, detector=lambda pixels, name: [[] for _ in pixels])) == {"spatial_tool"}
    assert names(model_tools(index, tracker=track_shape)) == {"track_object"}
    assert names(model_tools(index, transcriber=lambda sound: [])) == {"transcribe_speech"}


def test_the_backend_of_retrieval_is_an_argument(call, index, encoder):
    by_text = model_tools(index, viewer=Grey(), scorer=BM25())
    assert call(by_text, "video_retrieval", query="dog").text.startswith("clip 16 24 score ")
    by_frames = model_tools(index, viewer=Grey(), encoder=encoder)
    assert call(by_frames, "video_retrieval", query="red").text.startswith("clip 24 26 score ")


def test_what_does_not_fit_is_refused(index, encoder):
    with pytest.raises(ValueError, match="`scorer` searches the captions of a `viewer` in place of an `encoder`"):
        model_tools(index, scorer=BM25())
    with pytest.raises(ValueError, match="`depth` is told of detected objects; give a `detector` too"):
        model_tools(index, encoder=encoder, depth=len)
    with pytest.raises(ValueError, match="There is no model"):
        model_tools(index)
    assert tool_of(Viewing(Grey()), "video_qa").name == "video_qa"
    with pytest.raises(ValueError, match="`Viewing` has no tool 'zoom'; it has global_sampling, time_step_retrieval"):
        tool_of(Viewing(Grey()), "zoom")


def test_agents_can_read_every_tool_and_no_model_is_loaded_for_it(index, tmp_path):
    missing = str(tmp_path / "missing")  # loading it would be an error
    tools = model_tools(
        index,
        encoder=ImageTextEncoder(missing),
        viewer=TransformersViewer(missing),
        detector=ZeroShotDetector(missing),
        depth=DepthEstimator(missing),
        tracker=Sam2Tracker(missing),
        transcriber=WhisperTranscriber(missing),
    )
    assert names(tools) == VIEWED | FOUND | {"seek_video_frames", "spatial_tool", "track_object", "transcribe_speech"}
    for schema in map(json_schema, tools):
        arguments = schema["function"]["parameters"]["properties"]
        assert all(argument["description"] for argument in arguments.values())
