import pytest
import torch
from transformers import AutoModelForCausalLM

from m1lite.modules.tiny import (
    CHAT_TEMPLATE,
    GRAMMAR,
    OBJECTS,
    TOOLS,
    WORDS,
    load_tokenizer,
    save_tiny_base,
    tiny_base,
    tiny_tokenizer,
)

CHAT = [
    {"role": "system", "content": "tools grounding_tool video_retrieval"},
    {"role": "user", "content": "video 47 : next red-square ? blue-circle green-diamond"},
    {"role": "assistant", "content": "grounding_tool red-square ; rough_browser objects 10 30"},
    {"role": "user", "content": "me : grounding_tool red-square = red-square 9 15 | keep ?"},
]
CHAT_TEXT = (
    "<sys> tools grounding_tool video_retrieval "
    "<user> video 47 : next red-square ? blue-circle green-diamond "
    "<bot> grounding_tool red-square ; rough_browser objects 10 30 <end> "
    "<user> me : grounding_tool red-square = red-square 9 15 | keep ? <bot>"
)


def test_every_word_of_the_world_is_one_token_and_comes_back():
    tokenizer = tiny_tokenizer()
    text = " ".join(WORDS)
    ids = tokenizer(text).input_ids
    assert len(ids) == len(WORDS) == len(set(WORDS))
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text
    assert len(OBJECTS) == 24
    assert len(TOOLS) == 8
    assert {"0", "64", "me", "|", "invalid"} <= set(WORDS)
    assert "65" not in WORDS
    assert len(GRAMMAR) == 28


def test_unknown_words_become_unk_and_specials_are_skipped_on_request():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("keep zebra <end>").input_ids
    assert ids[1:] == [tokenizer.unk_token_id, tokenizer.eos_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "keep"


def test_chat_template_renders_the_contract_and_only_appends():
    tokenizer = tiny_tokenizer()
    assert tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == CHAT_TEXT
    first = tokenizer.apply_chat_template(CHAT[:2], add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]
    assert whole == tokenizer(CHAT_TEXT).input_ids
    assert whole[: len(first)] == first
    assert len(whole) == len(CHAT_TEXT.split())


@pytest.mark.parametrize("word", ["keep", "two words", "", "<end>"])
def test_bad_words_are_refused_by_name(word):
    with pytest.raises(ValueError, match=f"got {word!r}"):
        tiny_tokenizer(["keep", word])


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2"])
def test_base_depends_on_the_seed_alone(architecture):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model, tokenizer = tiny_base(architecture, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, _ = tiny_base(architecture, seed=3)
    other, _ = tiny_base(architecture, seed=4)
    weights, twin, stranger = model.state_dict(), again.state_dict(), other.state_dict()
    assert all(torch.equal(weights[name], twin[name]) for name in weights)
    assert not torch.equal(weights["model.embed_tokens.weight"], stranger["model.embed_tokens.weight"])
    assert model.config.model_type == architecture
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(parameter.numel() for parameter in model.parameters()) < 350_000
    assert weights["model.embed_tokens.weight"].std().item() == pytest.approx(0.05, rel=0.02)
    assert weights["model.norm.weight"].eq(1).all()
    assert len(tokenizer) == model.config.vocab_size
    assert model.config.rope_parameters["rope_theta"] == 1000.0


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2"])
def test_saved_base_loads_as_it_was_made(tmp_path, architecture):
    save_tiny_base(tmp_path / "base", architecture, seed=7)
    made, _ = tiny_base(architecture, seed=7)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    tokenizer = load_tokenizer(tmp_path / "base")
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.eos_token == "<end>"
    assert tokenizer.pad_token == "<pad>"
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    ids = tokenizer(CHAT_TEXT, return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == CHAT_TEXT
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, made(ids).logits)


def test_bad_shapes_are_refused_by_value():
    with pytest.raises(ValueError, match=r"'llama' is not one of \['qwen2', 'qwen3'\]"):
        tiny_base("llama")
    with pytest.raises(ValueError, match="`hidden_size` 100 must be"):
        tiny_base(hidden_size=100)
