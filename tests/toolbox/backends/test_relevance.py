"""Tiny CLIP, SigLIP and SigLIP 2 models from disk, against transformers' own forward pass over both towers."""

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from m1lite.toolbox.backends.loading import ModelError
from m1lite.toolbox.backends.relevance import ImageTextEncoder

TEXTS = ["a red dog", "the cat sleeps in the blue house"]


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (5, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_cosines_are_those_of_the_whole_model(image_text_folder, pixels):
    encoder = ImageTextEncoder(image_text_folder, batch_size=2)
    images, texts = encoder.images(pixels), encoder.texts(TEXTS)
    model, processor = AutoModel.from_pretrained(image_text_folder), AutoProcessor.from_pretrained(image_text_folder)
    siglip = model.config.model_type != "clip"
    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels]
    padding = {"padding": "max_length", "max_length": 16} if siglip else {"padding": True}
    words = processor.tokenizer(TEXTS, return_tensors="pt", **padding)
    if siglip:
        del words["attention_mask"]
    with torch.no_grad():
        out = model(**words, **processor.image_processor(pictures, return_tensors="pt"))
    assert images.shape == (5, model.config.text_config.projection_size if siglip else 24)
    assert images.dtype == texts.dtype == torch.float32
    torch.testing.assert_close(images.norm(dim=1), torch.ones(5))
    expected = out.image_embeds @ out.text_embeds.T
    torch.testing.assert_close(images @ texts.T, expected, atol=1e-5, rtol=1e-4)
    assert (expected.max() - expected.min()) > 1e-4  # else any wrong vector would pass


def test_a_text_is_the_same_alone_and_among_longer_ones_and_may_be_too_long(image_text_folder):
    encoder = ImageTextEncoder(image_text_folder)
    torch.testing.assert_close(encoder.texts(TEXTS)[:1], encoder.texts(TEXTS[:1]), atol=1e-5, rtol=1e-4)
    assert encoder.texts(["dog " * 100]).shape[0] == 1


def test_the_identity_follows_the_weights_and_the_processor_not_the_place(image_text_folder, tmp_path):
    first = ImageTextEncoder(image_text_folder).identity
    model, processor = AutoModel.from_pretrained(image_text_folder), AutoProcessor.from_pretrained(image_text_folder)
    model.save_pretrained(tmp_path / "same")
    processor.save_pretrained(tmp_path / "same")
    assert ImageTextEncoder(str(tmp_path / "same")).identity == first
    assert ImageTextEncoder(image_text_folder, dtype="bfloat16").identity != first
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    model.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    assert ImageTextEncoder(str(tmp_path / "other")).identity != first
    processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    model = AutoModel.from_pretrained(image_text_folder)
    model.save_pretrained(tmp_path / "processor")
    processor.save_pretrained(tmp_path / "processor")
    assert ImageTextEncoder(str(tmp_path / "processor")).identity != first


def test_errors_name_the_model_and_the_remedy(sentence_folder, tmp_path, pixels):
    with pytest.raises(ModelError, match=r"'.*missing' cannot be loaded as AutoModel .* Give a folder or a name"):
        ImageTextEncoder(str(tmp_path / "missing")).images(pixels)
    with pytest.raises(ModelError, match="is a BertModel, which does not encode pictures and texts"):
        ImageTextEncoder(sentence_folder).texts(["a dog"])
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        ImageTextEncoder("x", batch_size=0)
    with pytest.raises(ValueError, match="`model` is empty"):
        ImageTextEncoder("")


def test_nothing_is_loaded_before_it_is_used(tmp_path):
    assert "missing" in repr(ImageTextEncoder(str(tmp_path / "missing")))
