"""Features of a frozen tower: those of the model itself, computed once, bounded, and never stale."""

import copy

import pytest
import torch
from transformers import AutoModelForImageTextToText

from m1lite.engines.features import FreshFeatures, StaleFeaturesError, VisionFeatures, model_inputs
from m1lite.modules.tiny import tiny_base
from m1lite.records import MediaRef, PlacedMedia
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl"])
def model(request, vision_bases):
    return AutoModelForImageTextToText.from_pretrained(vision_bases[request.param]).eval().requires_grad_(False)


def refs(features, clip, seconds, rows=2, columns=3):
    side = features.sight.factor
    return [MediaRef(uri=clip, timestamps=(second,), size=(rows * side, columns * side)) for second in seconds]


@pytest.fixture
def features(model):
    return VisionFeatures(model, FrameCache(10_000_000))


def test_logits_are_those_of_the_model_that_sees_by_itself(model, features, clip):
    sight = features.sight
    ids, rows = [], []
    for seconds in ((0.5, 3.0), (3.0, 6.5)):
        row, media = [], []
        for ref in refs(features, clip, seconds):
            row += [11, 12]
            media.append(PlacedMedia(media=ref, offset=len(row) + 1))
            row += sight.block(ref.size)
        ids.append([*row, 13, 14])
        rows.append(media)
    inputs = torch.tensor(ids)
    shown = [picture.media for row in rows for picture in row]
    with torch.no_grad():
        expected = model(
            input_ids=inputs,
            pixel_values=torch.cat([sight.patches(media_pixels(FrameCache(0), ref))[0] for ref in shown]),
            image_grid_thw=torch.tensor([[1, 4, 6]] * 4),
            mm_token_type_ids=(inputs == sight.image_id).int(),
        ).logits
        positions = torch.stack([sight.positions(len(ids[0]), row) for row in rows], dim=1)  # (3, B, T)
        found = model(input_ids=inputs, position_ids=positions, **model_inputs(features, rows)).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (features.num_computed, features.num_reused) == (3, 1)  # the frame of second 3 is in both rows
    assert model_inputs(features, [[], []]) == {}


def test_each_picture_is_computed_once_for_each_size(features, clip):
    first = features(refs(features, clip, (1.0, 2.0)))
    again = features(refs(features, clip, (2.0, 1.0)))
    assert [a is b for a, b in zip(first, again[::-1], strict=True)] == [True, True]
    features(refs(features, clip, (1.0,), rows=1))
    assert (features.num_computed, features.num_reused) == (3, 2)
    assert features.num_bytes == sum(part.nbytes for part in features._kept.values()) > 0


def test_memory_is_bounded_and_the_oldest_goes_first(model, features, clip):
    one = features(refs(features, clip, (0.0,)))[0].nbytes
    small = VisionFeatures(model, FrameCache(0), max_bytes=2 * one)
    small(refs(small, clip, (0.0, 1.0)))
    small(refs(small, clip, (0.0,)))
    small(refs(small, clip, (2.0,)))  # second 1 has to go
    assert [ref.timestamps for ref in small._kept] == [(0.0,), (2.0,)]
    assert small.num_bytes == 2 * one
    none = VisionFeatures(model, FrameCache(0), max_bytes=0)
    torch.testing.assert_close(
        none(refs(none, clip, (0.0,)))[0].tokens, features(refs(features, clip, (0.0,)))[0].tokens
    )
    assert len(none._kept) == 0


def test_a_new_tower_empties_the_cache_by_itself(model, features, clip):
    pictures = refs(features, clip, (1.0,))
    (before,) = features(pictures)
    with torch.no_grad():
        next(model.model.visual.parameters()).mul_(1.5)
    (after,) = features(pictures)
    assert features.num_computed == 2
    assert (before.tokens - after.tokens).abs().max() > 1e-3
    state = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    features(pictures)
    assert features.num_computed == 3


def test_features_that_went_stale_unseen_stop_with_the_frame_named(model, features, clip):
    features(refs(features, clip, (2.5, 4.0)))
    features.check_fresh()
    next(model.model.visual.parameters()).data.mul_(1.5)  # `.data` leaves no trace
    assert features(refs(features, clip, (2.5,)))[0] is features._kept[refs(features, clip, (2.5,))[0]]
    with pytest.raises(StaleFeaturesError, match=r"frame at 4 s of '.*blocks\.mp4' are .* away from what the vision"):
        features.check_fresh()
    features.clear()
    features.check_fresh()


def test_what_cannot_be_kept_is_refused(model, features, clip):
    with pytest.raises(ValueError, match="one picture each, got 2 times"):
        features([MediaRef(uri=clip, timestamps=(0.0, 1.0), size=(features.sight.factor,) * 2)])
    model.model.visual.requires_grad_(True)
    with pytest.raises(ValueError, match="tower is trainable"):
        features(refs(features, clip, (1.0,)))
    blind, _ = tiny_base(hidden_size=32)
    with pytest.raises(ValueError, match="Qwen3ForCausalLM has no vision tower"):
        VisionFeatures(blind, FrameCache(0))


def test_a_tower_that_is_trained_gets_gradients_and_keeps_nothing(model, features, clip):
    shown = [*refs(features, clip, (1.0, 3.0)), *refs(features, clip, (1.0,), rows=1, columns=1)]
    kept = features(shown)
    fresh = FreshFeatures(model, FrameCache(10_000_000))
    assert fresh([]) == []
    weights = list(model.model.visual.requires_grad_(True).parameters())
    found = fresh(shown)
    for one, other in zip(found, kept, strict=True):
        torch.testing.assert_close(one.tokens, other.tokens, atol=1e-5, rtol=1e-5)
        assert len(one.deep) == len(other.deep)
    sum(part.square().sum() for one in found for part in (one.tokens, *one.deep)).backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in weights)
    with torch.no_grad():
        weights[0].mul_(1.5)
        assert not torch.allclose(fresh(shown)[0].tokens, kept[0].tokens)
    base, _ = tiny_base("qwen3")
    with pytest.raises(ValueError, match="has no vision tower"):
        FreshFeatures(base, FrameCache(0))
