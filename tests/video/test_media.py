"""Media references become pixels: the frames of their times, cut out and resized, each decoded once."""

import pytest
import torch
from torch.nn.functional import interpolate

from m1lite.records import MediaRef
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels, pixel_box
from m1lite.video.writer import write_video


@pytest.fixture
def video(tmp_path):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (6, 3, 4, 6), generator=generator).float()
    frames = interpolate(coarse, size=(40, 60)).round().to(torch.uint8)
    write_video(tmp_path / "v.mp4", frames, fps=2)
    return str(tmp_path / "v.mp4")


def test_whole_frames_are_those_of_the_cache(video):
    frames = FrameCache(10_000_000)
    shown = media_pixels(frames, MediaRef(uri=video, timestamps=(2.0, 0.5), size=(20, 30)))
    assert torch.equal(shown, FrameCache(0).frames_at(video, [2.0, 0.5], size=(20, 30)).pixels)
    media_pixels(frames, MediaRef(uri=video, timestamps=(0.5,), size=(20, 30)))
    assert (frames.misses, frames.hits) == (2, 1)


def test_a_part_is_cut_out_of_the_original_pixels(video):
    frames = FrameCache(10_000_000)
    part = MediaRef(uri=video, timestamps=(1.0,), size=(20, 25), box=(0.25, 0.5, 0.66, 1.0))
    whole = frames.frames_at(video, [1.0]).pixels
    assert pixel_box(part.box, 40, 60) == (15, 20, 40, 40)
    assert torch.equal(media_pixels(frames, part), whole[:, :, 20:40, 15:40])  # of this very size: not resized
    small = MediaRef(uri=video, timestamps=(1.0,), size=(10, 10), box=part.box)
    expected = interpolate(whole[:, :, 20:40, 15:40].float(), size=(10, 10), mode="bilinear", antialias=True)
    # Whole numbers are rounded after each of the two directions.
    assert (media_pixels(frames, small).float() - expected).abs().max() <= 1


def test_bad_references_are_refused_by_value(video):
    with pytest.raises(ValueError, match=r"at least one time and a size of at least 1 pixel a side, got \(\)"):
        MediaRef(uri=video, timestamps=(), size=(4, 4))
    with pytest.raises(ValueError, match=r"0 <= left < right <= 1 .* got \(0\.5, 0, 0\.5, 1\)"):
        MediaRef(uri=video, timestamps=(0.0,), size=(4, 4), box=(0.5, 0, 0.5, 1))
    with pytest.raises(ValueError, match="lasts from 0 to 3"):
        media_pixels(FrameCache(0), MediaRef(uri=video, timestamps=(3.5,), size=(4, 4)))
