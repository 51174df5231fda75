"""Tiny OWLv2 and Grounding DINO models from disk, against their own forward pass on single pictures."""

import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
from transformers.models.owlv2.modeling_owlv2 import Owlv2ObjectDetectionOutput

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


def test_logits_and_boxes_of_owlv2_by_hand(owlv2_folder, monkeypatch):
    """A picture of 40 x 64 is padded below to a square of 64; OWLv2's boxes are shares of that square."""
    detector = ZeroShotDetector(owlv2_folder, threshold=0.5, batch_size=2)
    rows = [  # score, centre and size as shares of the square, corners in pixels or None where it is left out
        (0.6, (0.5, 0.25, 0.5, 0.25), (16, 8, 48, 24)),
        (0.9, (0.25, 0.5, 0.25, 0.5), (8, 16, 24, 40)),  # reaches to 48, below the picture
        (0.49, (0.5, 0.25, 0.5, 0.25), None),  # below the threshold
        (0.7, (0.0, 0.125, 0.5, 0.25), (0, 0, 16, 16)),  # begins left of the picture
        (0.8, (0.5, 0.9, 0.5, 0.1), None),  # in the padding alone
    ]
    scores = torch.tensor([row[0] for row in rows])
    outputs = Owlv2ObjectDetectionOutput(
        logits=torch.logit(scores)[None, :, None].repeat(2, 1, 1),
        pred_boxes=torch.tensor([row[1] for row in rows])[None].repeat(2, 1, 1),
    )
    outputs.logits[1] -= 10  # nothing in the second picture
    with detector._source.use() as loaded:
        monkeypatch.setattr(loaded.model, "forward", lambda **inputs: outputs)
    found = detector(torch.zeros(2, 3, 40, 64, dtype=torch.uint8), "dog")
    assert found[1] == []
    assert [one.score for one in found[0]] == pytest.approx([0.9, 0.7, 0.6])
    boxes = [(one.box.left, one.box.top, one.box.right, one.box.bottom) for one in found[0]]
    for box, expected in zip(boxes, [rows[1][2], rows[3][2], rows[0][2]], strict=True):
        assert box == pytest.approx(expected, abs=1e-3)
    # A tall picture is padded on the right.
    (tall, _) = detector(torch.zeros(2, 3, 64, 40, dtype=torch.uint8), "dog")
    assert [one.score for one in tall] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    corners = [(one.box.left, one.box.top, one.box.right, one.box.bottom) for one in tall]
    assert corners[0] == pytest.approx((8, 16, 24, 48), abs=1e-3)
    assert corners[1] == pytest.approx((16, 54.4, 40, 60.8), abs=1e-3)
    assert corners[3] == pytest.approx((16, 8, 40, 24), abs=1e-3)


def test_arguments():
    with pytest.raises(
        ValueError, match=r"`threshold` must be from 0 to 1 and `batch_size` at least 1, got 1\.5 and 4"
    ):
        ZeroShotDetector("x", threshold=1.5)
