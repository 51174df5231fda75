"""Tiny vision bases: the families' own processors read what we spell, and what is saved loads as it was made."""

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from m1lite.modules.bases import load_base, stored_tiny_vision_base
from m1lite.modules.tiny_vision import (
    CHAT_TEMPLATE,
    IMAGE,
    MARKS,
    WORDS,
    save_tiny_vision_base,
    tiny_byte_tokenizer,
    tiny_vision_base,
)

FAMILIES = ["qwen2_5_vl", "qwen3_vl"]
CHAT = [
    {"role": "system", "content": "You see."},
    {"role": "user", "content": [{"type": "text", "text": "<0.5 seconds>"}, {"type": "image"}]},
]


def test_tokenizer_spells_anything_and_keeps_words_whole():
    tokenizer = tiny_byte_tokenizer()
    for text in (
        '<tool_call>{"name": "zoom", "arguments": {"start": 4.25}}</tool_call>',
        "héllo 世界 \x07",
        "red-square",
    ):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    for word in WORDS:
        if word.isalpha():
            assert len(tokenizer(word).input_ids) == len(tokenizer(f" {word}").input_ids) == 1
    for mark in MARKS:
        (number,) = tokenizer(mark).input_ids
        assert tokenizer.decode([number], skip_special_tokens=True) == mark  # part of a reply's text
    assert tiny_byte_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_whole_numbers_are_one_token_each():
    tokenizer = tiny_byte_tokenizer(whole_numbers=61)
    assert tokenizer.tokenize("<12.0 seconds>", split_special_tokens=True) == ["<", "12", ".", "0", "Ġseconds", ">"]
    assert len(tokenizer("60").input_ids) == 1 < len(tokenizer("61").input_ids)
    assert tokenizer.decode(tokenizer("9.00 to 17.83").input_ids) == "9.00 to 17.83"


@pytest.mark.parametrize("family", FAMILIES)
def test_base_depends_on_the_seed_alone(family):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model, processor = tiny_vision_base(family, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    twin, stranger = (tiny_vision_base(family, seed=seed)[0].state_dict() for seed in (3, 4))
    weights = model.state_dict()
    assert all(torch.equal(weights[name], twin[name]) for name in weights)
    assert not all(torch.equal(weights[name], stranger[name]) for name in weights)
    assert model.config.model_type == family
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert sum(parameter.numel() for parameter in model.parameters()) < 800_000
    assert processor.tokenizer.convert_tokens_to_ids(IMAGE) == model.config.image_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_base_loads_as_it_was_made_and_its_tower_matters(tmp_path, family):
    save_tiny_vision_base(tmp_path / "base", family, seed=7)
    made, _ = tiny_vision_base(family, seed=7)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "base").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.chat_template == processor.chat_template == CHAT_TEMPLATE
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert loaded.generation_config.eos_token_id == [tokenizer.eos_token_id, tokenizer.pad_token_id]
    text = processor.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou see.<|im_end|>\n"
        "<|im_start|>user\n<0.5 seconds><|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    pictures = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inputs = [processor(text=[text], images=[picture], return_tensors="pt") for picture in pictures]
    assert inputs[0]["input_ids"].eq(loaded.config.image_token_id).sum() == 6  # 2 x 3 tokens of 28 or 32 pixels
    with torch.no_grad():
        one, other = (loaded(**batch).logits for batch in inputs)
        assert torch.equal(one, made(**inputs[0]).logits)
    assert (one - other).abs().max() > 0.1


def test_stored_base_is_written_once_and_loaded_with_its_tower(tmp_path):
    folder = str(tmp_path / "base")
    base = stored_tiny_vision_base(folder, "qwen2_5_vl", patch_size=8, seed=1)
    again = stored_tiny_vision_base(folder, "qwen2_5_vl", patch_size=8, seed=2)  # what lies there is taken as it is
    for name, tensor in base.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])
    assert base.model.config.vision_config.patch_size == 8
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert {parameter.device.type for parameter in load_base(folder, weights=False).model.parameters()} == {"meta"}


def test_bad_shapes_are_refused_by_value():
    with pytest.raises(ValueError, match=r"'qwen2_vl' is not one of \['qwen2_5_vl', 'qwen3_vl'\]"):
        tiny_vision_base("qwen2_vl")
    with pytest.raises(ValueError, match="`hidden_size` 100 must be a positive multiple of 64"):
        tiny_vision_base(hidden_size=100)
