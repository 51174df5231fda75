"""Tiny OWLv2 and Grounding DINO models from disk, against their own forward pass on single pictures."""

import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from m1lite.toolbox.backends.detection import ZeroShotDetector


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (3, 3, 40, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_boxes_are_those_of_single_pictures(detector_folder, pixels):
    model = AutoModelForZeroShotObjectDetection.from_pretrained(detector_folder).eval()
    processor = AutoProcessor.from_pretrained(detector_folder)
    found = ZeroShotDetector(detector_folder, threshold=0.0, batch_size=2)(pixels, "Red dog.")
    assert all(found)
    for picture, objects in zip(pixels, found, strict=True):
        inputs = processor(images=[picture], text=[["red dog"]], return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        scores = outputs.logits.sigmoid().amax(-1)[0]
        centre = outputs.pred_boxes[0]
        side = (64, 64, 64, 64) if "owlv2" in detector_folder else (64, 40, 64, 40)  # OWLv2 pads to a square
        corners = torch.cat([centre[:, :2] - centre[:, 2:] / 2, centre[:, :2] + centre[:, 2:] / 2], 1)
        corners = corners * torch.tensor(side)
        expected = [
            (float(score), box)
            for score, box in zip(scores, corners.clamp(min=0).minimum(torch.tensor([64, 40, 64, 40])), strict=True)
            if box[0] < box[2] and box[1] < box[3]
        ]
        expected.sort(key=lambda one: -one[0])
        assert [one.score for one in objects] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert objects[0].box.left == pytest.approx(float(expected[0][1][0]), abs=0.05)
        assert objects[0].box.bottom == pytest.approx(float(expected[0][1][3]), abs=0.05)


def test_the_threshold_leaves_out(detector_folder, pixels):
    every = ZeroShotDetector(detector_folder, threshold=0.0)(pixels, "cat")
    middle = sum(one.score for objects in every for one in objects) / sum(map(len, every))
    kept = ZeroShotDetector(detector_folder, threshold=middle)(pixels, "cat")
    assert kept == [[one for one in objects if one.score > middle] for objects in every]
    assert ZeroShotDetector(detector_folder, threshold=1.0)(pixels, "cat") == [[], [], []]


def test_arguments():
    with pytest.raises(
        ValueError, match=r"`threshold` must be from 0 to 1 and `batch_size` at least 1, got 1\.5 and 4"
    ):
        ZeroShotDetector("x", threshold=1.5)
