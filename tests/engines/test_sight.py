"""How models see: patches, counts and positions against the families' own processors and models."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from m1lite.engines.sight import MediaMismatchError, Sight, sight_of
from m1lite.modules.tiny import tiny_base
from m1lite.modules.tiny_vision import tiny_vision_base
from m1lite.records import MediaRef, PlacedMedia

FAMILIES = ["qwen2_5_vl", "qwen3_vl"]


def placed(offset, size, second=0.0):
    return PlacedMedia(media=MediaRef(uri="v.mp4", timestamps=(second,), size=size), offset=offset)


def row_of(sight, *parts):
    """Ids and media of text lengths and sizes, in turn."""
    ids, media = [], []
    for part in parts:
        if isinstance(part, int):
            ids += [7] * part
        else:
            media.append(placed(len(ids) + 1, part))
            ids += sight.block(part)
    return ids, media


@pytest.fixture(params=FAMILIES)
def made(request):
    return tiny_vision_base(request.param, seed=1)


def test_patches_are_those_of_the_processor(made):
    model, processor = made
    sight = sight_of(model.config)
    size = (2 * sight.factor, 3 * sight.factor)
    pixels = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = processor.image_processor(list(pixels), return_tensors="pt")
    assert torch.equal(sight.patches(pixels).flatten(0, 1), expected["pixel_values"])
    assert expected["image_grid_thw"].tolist() == [[1, 4, 6]] * 2
    assert sight.grid(size) == (2, 3)
    assert sight.num_tokens(size) == 6


def test_ids_are_those_of_the_tokenizer(made):
    model, processor = made
    sight = sight_of(model.config)
    assert isinstance(sight, Sight)
    pictures = [torch.zeros(3, 2 * sight.factor, sight.factor, dtype=torch.uint8)]
    ids = processor(text=["<|vision_start|><|image_pad|><|vision_end|>"], images=pictures)["input_ids"][0]
    assert list(ids) == sight.block((2 * sight.factor, sight.factor))
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    assert list(sight.media_ids) == processor.tokenizer.convert_tokens_to_ids(list(names))


def test_positions_are_those_of_the_model(made):
    model, _ = made
    sight = sight_of(model.config)
    side = sight.factor
    ids, media = row_of(sight, 4, (2 * side, 3 * side), 1, (3 * side, side), (side, side), 5)
    kinds = torch.tensor([[int(token == sight.image_id) for token in ids]])
    grids = torch.tensor([[1, *(2 * edge for edge in sight.grid(one.media.size))] for one in media])
    expected, _ = model.model.get_rope_index(torch.tensor([ids]), kinds, image_grid_thw=grids)
    assert torch.equal(sight.positions(len(ids), media), expected[:, 0])
    assert sight.positions(3, []).tolist() == [[0, 1, 2]] * 3
    cut = media[1].offset  # a prefix sees what it holds
    assert torch.equal(sight.positions(cut, media[:1]), expected[:, 0, :cut])


def test_placeholders_without_pictures_and_pictures_without_placeholders_are_named(made):
    sight = sight_of(made[0].config)
    side = sight.factor
    ids, media = row_of(sight, 2, (side, 2 * side), 3, (side, side), 1)
    sight.check(ids, media, "row 0")
    with pytest.raises(MediaMismatchError, match=r"clip3/k2: 3 placeholder tokens, but 1 pictures with 2 features"):
        sight.check(ids, media[:1], "clip3/k2")
    shifted = [media[0], placed(media[1].offset + 1, (side, side), 4.5)]
    with pytest.raises(MediaMismatchError, match=r"clip3/k2: the frame at 4\.5 s of 'v\.mp4' has 1 features, but at"):
        sight.check(ids, shifted, "clip3/k2")
    larger = [placed(media[0].offset, (2 * side, 2 * side)), media[1]]
    with pytest.raises(MediaMismatchError, match="has 4 features"):
        sight.check(ids, larger, "clip3/k2")
    with pytest.raises(MediaMismatchError, match="must come after the one before"):
        sight.check(ids, media[::-1], "clip3/k2")
    cut = ids[: media[1].offset]
    with pytest.raises(MediaMismatchError, match="has 1 features, but at token 10 stand 0"):
        sight.check(cut, media, "clip3/k2")
    with pytest.raises(ValueError, match=f"30 x {side} pixels must have multiples of {side}"):
        sight.num_tokens((30, side))


def test_models_that_do_not_see_and_unknown_ones():
    model, _ = tiny_base(hidden_size=32)
    assert sight_of(model.config) is None
    strange, _ = tiny_vision_base()
    strange.config.model_type = "other_vl"
    with pytest.raises(
        ValueError, match=r"type 'other_vl' see in an unknown way; known are \['qwen2_5_vl', 'qwen3_vl'"
    ):
        sight_of(strange.config)


def test_positions_of_a_loaded_base(vision_bases):
    for directory in vision_bases.values():
        model = AutoModelForImageTextToText.from_pretrained(directory)
        assert sight_of(model.config).factor in (28, 32)
