"""A tiny SAM 2 from disk, against its own passes frame by frame."""

import pytest
import torch
from transformers import Sam2VideoModel, Sam2VideoProcessor

from m1lite.records import Box
from m1lite.toolbox.backends.loading import ModelError
from m1lite.toolbox.backends.tracking import Sam2Tracker, mask_box

BOX = Box(left=8, top=6, right=28, bottom=26)


@pytest.fixture(scope="module")
def pixels():
    """Give five frames of a red square that moves down and to the right."""
    frames = torch.zeros(5, 3, 48, 72, dtype=torch.uint8)
    for place, frame in enumerate(frames):
        top, left = 6 + 4 * place, 8 + 8 * place
        frame[:, top : top + 20, left : left + 20] = torch.tensor([250, 40, 90], dtype=torch.uint8)[:, None, None]
    return frames


def on_its_own(folder, pixels, box):
    """Show the model one frame after the other; whether the object is seen, and its mask of the picture's size."""
    model, processor = Sam2VideoModel.from_pretrained(folder).eval(), Sam2VideoProcessor.from_pretrained(folder)
    session = processor.init_video_session()
    found = []
    for number, frame in enumerate(pixels):
        picture = processor(images=frame, return_tensors="pt")
        if number == 0:
            processor.add_inputs_to_inference_session(
                session, 0, 1, input_boxes=[[box]], original_size=picture.original_sizes[0].tolist()
            )
        with torch.no_grad():
            output = model(session, frame=picture.pixel_values[0])
        mask = torch.nn.functional.interpolate(output.pred_masks, tuple(pixels.shape[2:]), mode="bilinear")[0, 0]
        found.append((float(output.object_score_logits) > 0, mask > 0))
    return found


def test_boxes_are_those_of_the_masks(sam2_folder, pixels):
    found = Sam2Tracker(sam2_folder)(pixels, BOX)
    expected = on_its_own(sam2_folder, pixels, [8.0, 6.0, 28.0, 26.0])
    assert found[0] == BOX
    assert len(found) == len(pixels)
    assert len({box for box in found if box is not None}) > 2, "masks that tell nothing"
    for box, (seen, mask) in list(zip(found, expected, strict=True))[1:]:
        assert seen
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert (box.left, box.top, box.right, box.bottom) == pytest.approx([int(one) for one in corners], abs=1)


def test_the_box_matters(sam2_folder, pixels):
    other = Box(left=50, top=20, right=70, bottom=45)
    tracker = Sam2Tracker(sam2_folder)
    assert tracker(pixels, other)[1:] != tracker(pixels, BOX)[1:]
    assert tracker(pixels[:1], other) == [other]


def test_an_object_that_the_model_takes_for_hidden(sam2_folder, pixels, tmp_path):
    model = Sam2VideoModel.from_pretrained(sam2_folder)
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(-1e4)
    model.save_pretrained(tmp_path)
    Sam2VideoProcessor.from_pretrained(sam2_folder).save_pretrained(tmp_path)
    assert Sam2Tracker(str(tmp_path))(pixels, BOX) == [BOX, None, None, None, None]


def test_masks():
    mask = torch.zeros(6, 8, dtype=torch.bool)
    assert mask_box(mask) is None
    mask[2, 7] = mask[5, 3] = True
    assert mask_box(mask) == Box(left=3, top=2, right=8, bottom=6)


def test_a_model_that_is_missing(tmp_path, pixels):
    with pytest.raises(ModelError, match="missing' cannot be loaded as Sam2VideoModel"):
        Sam2Tracker(str(tmp_path / "missing"))(pixels, BOX)
