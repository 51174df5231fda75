"""Real footage made with ffmpeg's sources, cut together, and encoders that see colours and nothing else."""

import av
import pytest
import torch

from m1lite.records import Answer, Sample, Task, ToolCall
from m1lite.toolbox import Toolbox
from m1lite.toolbox.base import ToolContext
from m1lite.toolbox.index import VideoIndex
from m1lite.video.cache import FrameCache
from m1lite.video.writer import write_video

FPS = 4
SCENES = (("red", 6), ("mandelbrot", 6), ("blue", 5), ("testsrc2", 6), ("red", 3))
"""Source and seconds: red 0-6, mandelbrot 6-12, blue 12-17, testsrc2 17-23, red 23-26."""
DURATION = sum(seconds for _, seconds in SCENES)
COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


def source_frames(source, seconds):
    """Give uint8 (N, 3, 48, 64) of one of ffmpeg's sources."""
    graph = av.filter.Graph()
    colour = source in COLOURS
    name, options = ("color", f"c={source}:size=64x48:rate={FPS}") if colour else (source, f"size=64x48:rate={FPS}")
    graph.link_nodes(graph.add(name, options), graph.add("format", "rgb24"), graph.add("buffersink")).configure()
    frames = [torch.from_numpy(graph.pull().to_ndarray(format="rgb24")) for _ in range(seconds * FPS)]
    return torch.stack(frames).permute(0, 3, 1, 2)


@pytest.fixture(scope="session")
def footage(tmp_path_factory):
    path = tmp_path_factory.mktemp("footage") / "cuts.mp4"
    write_video(path, torch.cat([source_frames(*scene) for scene in SCENES]), fps=FPS, pixel_format="yuv420p")
    return str(path)


class ColourEncoder:
    """Encodes a picture as its mean colour and a text as the colour that it names."""

    identity = "mean colour"

    def __init__(self):
        self.pictures = 0

    def images(self, pixels):
        self.pictures += len(pixels)
        return torch.nn.functional.normalize(pixels.float().mean((2, 3)), dim=-1)

    def texts(self, texts):
        found = [next(COLOURS[word] for word in text.split() if word in COLOURS) for text in texts]
        return torch.tensor(found)


@pytest.fixture
def encoder():
    return ColourEncoder()


@pytest.fixture
def index(tmp_path):
    return VideoIndex(tmp_path / "index")


@pytest.fixture
def context(footage):
    return ToolContext(video=footage, duration=DURATION, frames=FrameCache(2**24), look=None)


@pytest.fixture
def call(footage):
    """Give a function that calls one of some tools on the footage through a toolbox, as agents do."""

    def run(tools, name, **args):
        toolbox = Toolbox(tools, FrameCache(2**24))
        sample = Sample(
            id="a", video=footage, duration=DURATION, task=Task.CHOICE, question="?", answer=Answer(text="unseen")
        )
        return toolbox.run([(sample, ToolCall(tool=name, args=args))])[0]

    return run
