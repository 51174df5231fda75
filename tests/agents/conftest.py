"""A tool of every argument kind, samples of every task, and byte-level tokenizers with ChatML templates."""

from __future__ import annotations

from typing import Annotated

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from m1lite.records import Answer, Sample, Task, ToolResult
from m1lite.toolbox import Between, ToolContext, tool
from m1lite.toolbox.classical import CLASSICAL_TOOLS

QWEN2 = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
# As Qwen3 does it: thoughts of replies before the last user message are dropped, and with thinking off the prompt of a
# reply holds an empty thought, which the same reply has no longer once it is history.
QWEN3 = (
    "{%- set ns = namespace(last=-1) %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}"
    "{%- endfor %}"
    "{%- for message in messages %}"
    "{%- set content = message.content %}"
    "{%- if message.role == 'assistant' and loop.index0 < ns.last %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}"
    "{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)


def byte_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on a few lines, so that `plan` is one token and `p` `l` `a` `n` are four."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["plan keep revise answer system user assistant the red square"] * 8, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=special[1:2]
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def qwen2() -> PreTrainedTokenizerFast:
    return byte_tokenizer(QWEN2)


@pytest.fixture(scope="session")
def qwen3() -> PreTrainedTokenizerFast:
    return byte_tokenizer(QWEN3)


@tool
def every_kind(
    context: ToolContext,
    *,
    text: str,
    count: Annotated[int, Between(-5, 5)] = 1,
    share: float | None = None,
    exact: bool = False,
    note: str | None = None,
) -> ToolResult:
    """Take every kind of argument.

    Args:
        context: the video.
        text: any word.
        count: a whole number.
        share: a number.
        exact: yes or no.
        note: another word.
    """
    return ToolResult()


@pytest.fixture(scope="session")
def tools() -> tuple:
    return (*CLASSICAL_TOOLS, every_kind)


def make_sample(task: Task = Task.GROUNDING) -> Sample:
    asked = {
        Task.GROUNDING: "when red-square",
        Task.CHOICE: "next red-square",
        Task.COUNTING: "count objects",
        Task.GROUNDED_QA: "where red-square",
        Task.TRACKING: "track red-square",
        Task.CAPTION: "list objects",
    }
    options = ("blue-circle", "green-square", "red-circle", "blue-square") if task is Task.CHOICE else ()
    times = (10.0, 14.0) if task is Task.TRACKING else ()
    return Sample(
        id=task.value,
        video="clip",
        duration=47.0,
        task=task,
        question=asked[task],
        answer=Answer(),
        options=options,
        times=times,
    )


@pytest.fixture(scope="session")
def sample_of():
    return make_sample
