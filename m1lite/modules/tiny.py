"""Tiny bases for the synthetic world: random Qwen-shaped language models and a word-level tokenizer, without a hub.

Nothing here is trained and no adapter is attached; see ``sft.py`` for the cold start and ``team.py`` for the policies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from m1lite.toolbox.perception import LANES, OBJECTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

NUMBERS = tuple(str(number) for number in range(65))
"""Seconds of the longest video and pixels of the frame, both inclusive."""
TOOLS = (
    *("global_sampling", "video_retrieval", "image_retrieval", "time_step_retrieval"),
    *("rough_browser", "fine_browser", "grounding_tool", "spatial_tool"),
)
GRAMMAR = (
    *("answer", "keep", "?", "revise", "none", "me", ":", "=", "|", ";", "t", "clip", "box", "seen", "objects"),
    *(*LANES, "video", "next", "when", "where", "count", "track", "list"),
    *("tools", "error", "invalid"),
)
AGENTS = ("ada", "bea", "cyd", "dov")
WORDS = (*OBJECTS, *NUMBERS, *TOOLS, *GRAMMAR, *AGENTS)
"""Every word that the compact spelling can write in the synthetic world."""

PAD, UNKNOWN, SYSTEM, USER, BOT, END = "<pad>", "<unk>", "<sys>", "<user>", "<bot>", "<end>"
# Only a reply is closed: so the last word of a question stands right before the mark that the reply begins with, where
# one layer of attention to the previous token finds it.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ {'system': '" + SYSTEM + "', 'user': '" + USER + "', 'assistant': '" + BOT + "'}[message['role']] }}"
    " {{ message['content'] }} {% if message['role'] == 'assistant' %}" + END + " {% endif %}{% endfor -%}"
    "{%- if add_generation_prompt -%}" + BOT + "{%- endif -%}"
)


def tiny_tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per blank-separated word.

    Args:
        words: the vocabulary, without blanks inside a word; the six special tokens are added in front of it.

    Returns:
        A tokenizer that pads with ``<pad>``, ends a turn with ``<end>`` and reads any other word as ``<unk>``.

    Raises:
        ValueError: if a word is given twice, is empty, holds a blank, or is a special token.

    Example:
        >>> tokenizer = tiny_tokenizer(["keep", "revise"])
        >>> chat = [{"role": "user", "content": "keep"}]
        >>> tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        '<user> keep <bot>'
        >>> tokenizer("keep  keep revise other").input_ids
        [6, 6, 7, 1]
    """
    vocabulary: dict[str, int] = {}
    for word in (PAD, UNKNOWN, SYSTEM, USER, BOT, END, *words):
        if word in vocabulary or not word or word.split() != [word]:
            raise ValueError(f"`words` needs distinct words without blanks, not special tokens; got {word!r}.")
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # WhitespaceSplit and not Whitespace: the latter would cut `red-square` at its hyphen.
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, BOT],
        clean_up_tokenization_spaces=False,  # `keep ?` must not become `keep?`
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def load_tokenizer(name_or_path: str | Path, **kwargs: Any) -> PreTrainedTokenizerBase:
    """Load a tokenizer by name or from a directory, word-level ones included.

    ``AutoTokenizer`` reads every directory of a Qwen2 model with Qwen2's own byte-level tokenizer, whatever class and
    file it was saved with, and thereby turns a tiny base's words into wrong ids without a word of warning.

    Args:
        name_or_path: a model's name, or a directory as :func:`save_tiny_base` writes it.
        **kwargs: passed to ``AutoTokenizer.from_pretrained`` (revision, trust_remote_code, ...).
    """
    file = Path(name_or_path) / "tokenizer.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8"))["model"]["type"] == "WordLevel":
        return PreTrainedTokenizerFast.from_pretrained(file.parent)
    return AutoTokenizer.from_pretrained(name_or_path, **kwargs)


def tiny_config(
    architecture: Literal["qwen3", "qwen2"], tokenizer: PreTrainedTokenizerFast, *, hidden_size: int, num_layers: int
) -> PretrainedConfig:
    """Describe a tiny model: 4 heads over 2 key-value heads, tied embeddings, a context of 1,024 tokens.

    Raises:
        ValueError: if the architecture is not one of the two, or the hidden size is not a multiple of 8.
    """
    classes = {"qwen3": Qwen3Config, "qwen2": Qwen2Config}
    if architecture not in classes:
        raise ValueError(f"`architecture` {architecture!r} is not one of {sorted(classes)}.")
    if hidden_size <= 0 or hidden_size % 8:
        raise ValueError(f"`hidden_size` {hidden_size} must be a positive multiple of 8 (4 heads of an even size).")
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden_size // 4,
        "max_position_embeddings": 1024,
    }
    return classes[architecture](
        **shape,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        # The default 0.02 learnt the reply format here but not to read the context.
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_base(
    architecture: Literal["qwen3", "qwen2"] = "qwen3",
    *,
    hidden_size: int = 128,
    num_layers: int = 2,
    seed: int = 0,
    words: Sequence[str] = WORDS,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Make a random model and its tokenizer; equal seeds give equal weights, the global generator stays untouched.

    Args:
        architecture: which family's layers.
        hidden_size: width of the residual stream; the feed-forward layers are twice as wide.
        num_layers: number of transformer blocks.
        seed: of the weights.
        words: the tokenizer's vocabulary.

    Returns:
        The float32 model in eval mode, and the tokenizer.

    Raises:
        ValueError: for an unknown architecture or an odd size.
    """
    tokenizer = tiny_tokenizer(words)
    config = tiny_config(architecture, tokenizer, hidden_size=hidden_size, num_layers=num_layers)
    with torch.random.fork_rng(devices=[]):  # transformers draws its own first weights from the global generator
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, config.initializer_range, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model.eval(), tokenizer


def save_tiny_base(
    directory: str | Path,
    architecture: Literal["qwen3", "qwen2"] = "qwen3",
    *,
    hidden_size: int = 128,
    num_layers: int = 2,
    seed: int = 0,
    words: Sequence[str] = WORDS,
) -> None:
    """Write a tiny base as a directory that transformers, :func:`load_tokenizer` and vLLM load.

    Args:
        directory: where to write; made if missing.
        architecture: as in :func:`tiny_base`.
        hidden_size: as in :func:`tiny_base`.
        num_layers: as in :func:`tiny_base`.
        seed: as in :func:`tiny_base`.
        words: as in :func:`tiny_base`.
    """
    model, tokenizer = tiny_base(architecture, hidden_size=hidden_size, num_layers=num_layers, seed=seed, words=words)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
