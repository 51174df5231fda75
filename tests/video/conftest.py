"""Every test of reading and writing runs on both backends."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from m1lite.video.writer import write_video


@pytest.fixture(params=["torchcodec", "pyav"])
def backend(request):
    return request.param


@pytest.fixture
def ramp():
    """12 flat frames whose grey level tells their number: frame i is 20 * i everywhere."""
    levels = torch.arange(12, dtype=torch.uint8) * 20
    return levels[:, None, None, None].expand(12, 3, 32, 48).contiguous()


def frame_numbers(pixels):
    return (pixels.float().mean((1, 2, 3)) / 20).round().int().tolist()


@pytest.fixture
def numbers():
    return frame_numbers


@pytest.fixture
def clip(tmp_path, ramp):
    """12 frames at 5 fps: 2.4 s."""
    path = tmp_path / "clip.mp4"
    write_video(path, ramp, fps=5)
    return path


@pytest.fixture
def varying(tmp_path):
    """Frames of the grey levels 0, 20, 40 and 60 that start at 0, 0.1, 1 and 3 seconds."""
    path = tmp_path / "varying.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv444p"
        stream.codec_context.time_base = Fraction(1, 10)
        for level, when in ((0, 0), (20, 1), (40, 10), (60, 30)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), level, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = when, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
