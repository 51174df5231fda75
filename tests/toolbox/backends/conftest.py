"""Tiny models with random weights, of the classes that people use, written to disk with processors made here."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Processor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

WORDS = (
    *("a", "red", "blue", "green", "dog", "cat", "barks", "at", "the", "moon", "sleeps", "in", "house"),
    *("what", "is", "shown", "?"),
)


def word_tokenizer(**options):
    marks = ["<pad>", "<unk>", "<bos>", "<eos>"]
    vocabulary = {word: number for number, word in enumerate([*marks, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        **options,
    )


def save(model, processor, folder):
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


SIDES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def text_side(tokenizer):
    return {**SIDES, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}


def tiny_clip(folder):
    tokenizer = word_tokenizer()
    text = {**text_side(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = CLIPConfig(text_config=text, vision_config={**SIDES, "image_size": 32, "patch_size": 8}, projection_dim=24)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(CLIPModel(config), CLIPProcessor(pictures, tokenizer), folder)


def tiny_siglip(folder):
    tokenizer = word_tokenizer()
    config = SiglipConfig(text_config=text_side(tokenizer), vision_config={**SIDES, "image_size": 32, "patch_size": 8})
    pictures = SiglipImageProcessor(size={"height": 32, "width": 32})
    return save(SiglipModel(config), SiglipProcessor(pictures, tokenizer), folder)


def tiny_siglip2(folder):
    tokenizer = word_tokenizer()
    vision = {**SIDES, "num_patches": 16, "patch_size": 8}
    config = Siglip2Config(text_config=text_side(tokenizer), vision_config=vision)
    pictures = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    return save(Siglip2Model(config), Siglip2Processor(pictures, tokenizer), folder)


@pytest.fixture(scope="session", params=[tiny_clip, tiny_siglip, tiny_siglip2], ids=["clip", "siglip", "siglip2"])
def image_text_folder(request, tmp_path_factory):
    """Give the folder of a tiny model of each family, on disk as transformers loads it."""
    torch.manual_seed(0)
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture(scope="session")
def sentence_folder(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = word_tokenizer(model_input_names=["input_ids", "attention_mask"])
    config = BertConfig(**SIDES, vocab_size=len(tokenizer), max_position_embeddings=16)
    return save(BertModel(config), tokenizer, tmp_path_factory.mktemp("sentences"))
