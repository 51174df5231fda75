"""Every test of reading and writing runs on both backends."""

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
