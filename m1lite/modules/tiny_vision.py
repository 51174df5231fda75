"""Tiny vision-language bases: random Qwen2.5-VL and Qwen3-VL models with a byte-level tokenizer, without a hub.

They have the families' layers, patch sizes, media tokens and chat markup, a few hundred thousand weights, and lie on
disk as transformers and vLLM load them. Text-only tiny bases are in ``tiny.py``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from m1lite.modules.tiny import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

Family = Literal["qwen2_5_vl", "qwen3_vl"]

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
"""One token each, as in the families; unlike the special tokens they are part of a reply's text."""
CALL_WORDS = (
    *("name", "arguments", "video_clip", "crop_video", "get_frames", "zoom", "start", "end", "fps", "times", "box"),
    *("seconds", "answer", "glue", "from", "to", "assistant", "user", "system"),
)
PROMPTS = (
    "You answer questions about a video of which you see frames each behind its time Tools These functions can look at "
    "the for JSON schemas stand one line tools To call write an object with name and arguments inside these tags end "
    "your turn function argument value Several calls may follow other Each is answered by what it shows type number "
    "description parameters properties minimum maximum default required additional Properties false Show window second "
    "begins ends per The lasts When Reply such as Go on or now not any more One word letter option seconds start"
)
"""Words of the agents' own prompts, one token each: spelt letter by letter they would be most of a tiny context."""
PATCH_SIZES: dict[str, int] = {"qwen2_5_vl": 14, "qwen3_vl": 16}
"""Pixels along the side of a patch; four patches become one token."""

# The families' markup: every turn is opened and closed alike, media stand between their two marks.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'video' -%}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- else -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def tiny_byte_tokenizer(
    words: Sequence[str] = (*WORDS, *CALL_WORDS, *PROMPTS.split()), *, whole_numbers: int = 0
) -> Qwen2Tokenizer:
    """Make a tokenizer of the families' kind: it spells any text in bytes, and each of these words as one token.

    Args:
        words: each gets a token of its own, with and without a blank before it; ``a-b`` and ``a_b`` one for each part,
            and digits are never joined, as the families' rules split there.
        whole_numbers: unlike in the families, numbers from 10 to below this are one token each, so that a tiny model
            copies a second in one step.

    Example:
        >>> tokenizer = tiny_byte_tokenizer(["red", "square"])
        >>> tokenizer.tokenize("red square 42!")
        ['red', 'Ġsquare', 'Ġ', '4', '2', '!']
    """
    rules = Qwen2Tokenizer(vocab={END_OF_TEXT: 0}, merges=[]).backend_tokenizer.pre_tokenizer
    spelt = Tokenizer(models.BPE())
    spelt.pre_tokenizer, spelt.decoder = rules, decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=100_000,  # more than there are merges: every word is joined up
        min_frequency=1,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    spelt.train_from_iterator([text for word in words for text in (word, f" {word}")], trainer)
    merges: Any = [tuple(pair) for pair in json.loads(spelt.to_str())["model"]["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=spelt.get_vocab(),
        merges=merges,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START, VISION_START, VISION_END, IMAGE, VIDEO],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    tokenizer.add_tokens([*MARKS, *map(str, range(10, whole_numbers))])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_processor(family: Family, tokenizer: Qwen2Tokenizer, *, patch_size: int) -> ProcessorMixin:
    """Make the family's processor, as vLLM wants to find one beside the weights.

    Args:
        family: of the two.
        tokenizer: with the media tokens.
        patch_size: pixels.
    """
    factor = 2 * patch_size
    size = {"shortest_edge": factor**2, "longest_edge": 1024 * factor**2}
    norm = {} if family == "qwen2_5_vl" else {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    cut: dict[str, Any] = {"patch_size": patch_size, "temporal_patch_size": 2, "merge_size": 2, "size": size, **norm}
    videos, processor = {
        "qwen2_5_vl": (Qwen2VLVideoProcessor, Qwen2_5_VLProcessor),
        "qwen3_vl": (Qwen3VLVideoProcessor, Qwen3VLProcessor),
    }[family]
    return processor(
        image_processor=Qwen2VLImageProcessor(**cut),
        tokenizer=tokenizer,
        video_processor=videos(**cut),
        chat_template=CHAT_TEMPLATE,
    )


def tiny_vision_config(
    family: Family, tokenizer: Qwen2Tokenizer, *, hidden_size: int, num_layers: int, patch_size: int | None = None
) -> PretrainedConfig:
    """Describe a tiny model: heads of 32, a tower of two blocks of half the width, tied embeddings, 4,096 tokens.

    Args:
        family: whose layers.
        tokenizer: names the media tokens.
        hidden_size: width of the language model, a multiple of 64.
        num_layers: its blocks.
        patch_size: pixels; None is the family's.

    Raises:
        ValueError: if the family is not one of the two, or the size is no multiple of 64.
    """
    if family not in PATCH_SIZES:
        raise ValueError(f"`family` {family!r} is not one of {sorted(PATCH_SIZES)}.")
    if hidden_size <= 0 or hidden_size % 64:
        raise ValueError(f"`hidden_size` {hidden_size} must be a positive multiple of 64 (heads of 32 on both sides).")
    marks = {"image": IMAGE, "video": VIDEO, "vision_start": VISION_START, "vision_end": VISION_END}
    media: dict[str, Any] = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(mark) for name, mark in marks.items()}
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": hidden_size // 32,
        "num_key_value_heads": hidden_size // 64,
        "max_position_embeddings": 4096,
        "initializer_range": 0.05,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": hidden_size // 2,
        "intermediate_size": hidden_size,
        "num_heads": hidden_size // 64,
        "patch_size": patch_size or PATCH_SIZES[family],
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": hidden_size,
        "initializer_range": 0.05,
    }
    rope = {"rope_type": "default", "rope_theta": 1000.0}
    if family == "qwen2_5_vl":
        text |= {"rope_parameters": {**rope, "mrope_section": [4, 6, 6]}}
        # Windows of two tokens a side in the first block, so that small frames have more than one.
        vision |= {"fullatt_block_indexes": [1], "window_size": 4 * vision["patch_size"], "tokens_per_second": 2}
    else:
        text |= {"rope_parameters": {**rope, "mrope_section": [6, 5, 5], "mrope_interleaved": True}, "head_dim": 32}
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    config = {"qwen2_5_vl": Qwen2_5_VLConfig, "qwen3_vl": Qwen3VLConfig}[family]
    return config(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        **media,
    )


def tiny_vision_base(
    family: Family = "qwen2_5_vl",
    *,
    hidden_size: int = 128,
    num_layers: int = 2,
    patch_size: int | None = None,
    whole_numbers: int = 0,
    seed: int = 0,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Make a random model and its processor; equal seeds give equal weights, the global generator stays untouched.

    Args:
        family: whose layers, media tokens and processor.
        hidden_size: width of the language model.
        num_layers: blocks of the language model.
        patch_size: pixels; None is the family's.
        whole_numbers: as in :func:`tiny_byte_tokenizer`.
        seed: of the weights.

    Returns:
        The float32 model in eval mode, and the processor with the tokenizer.

    Raises:
        ValueError: for an unknown family or an odd size.
    """
    tokenizer = tiny_byte_tokenizer(whole_numbers=whole_numbers)
    config = tiny_vision_config(
        family, tokenizer, hidden_size=hidden_size, num_layers=num_layers, patch_size=patch_size
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws its own first weights from the global generator
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.05, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id], pad_token_id=tokenizer.pad_token_id
    )
    return model.eval(), tiny_processor(family, tokenizer, patch_size=config.vision_config.patch_size)


def save_tiny_vision_base(directory: str | Path, family: Family = "qwen2_5_vl", **options: Any) -> None:
    """Write a tiny vision base as a directory that transformers and vLLM load.

    Args:
        directory: where to write; made if missing.
        family: as in :func:`tiny_vision_base`.
        **options: as in :func:`tiny_vision_base`.
    """
    model, processor = tiny_vision_base(family, **options)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
