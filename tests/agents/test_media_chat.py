"""Chats with frames against the families' own processors, and their places through packing and cutting."""

import pytest
import torch
from transformers import AutoConfig, AutoProcessor

from m1lite.agents.chat import Chat, pack
from m1lite.agents.media_chat import MediaChat
from m1lite.engines.sight import sight_of
from m1lite.modules.rows import take_rows
from m1lite.records import MediaRef, Trajectory, Turn, TurnKind

FAMILIES = ["qwen2_5_vl", "qwen3_vl"]


@pytest.fixture(params=FAMILIES)
def seeing(request, vision_bases):
    directory = vision_bases[request.param]
    processor = AutoProcessor.from_pretrained(directory)
    return MediaChat(Chat(processor.tokenizer), sight_of(AutoConfig.from_pretrained(directory))), processor


def frames(chat, *seconds, rows=1, columns=2):
    side = chat.sight.factor
    return MediaRef(uri="v.mp4", timestamps=seconds, size=(rows * side, columns * side))


def rendered(processor, messages, sizes):
    """What the family's own template and processor make of a chat: ids with expanded placeholders."""
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pictures = [torch.zeros(3, *size, dtype=torch.uint8) for size in sizes]
    return list(processor(text=[text], images=pictures)["input_ids"][0])


def image():
    return {"type": "image"}


def words(text):
    return {"type": "text", "text": text}


def test_prompts_are_those_of_the_family_turn_by_turn(seeing):
    chat, processor = seeing
    shown, later = frames(chat, 0.5, 2.0), frames(chat, 7.25, rows=2)
    first = chat.open("You see.", ["A video of 8 s. ", shown, " What moves?"])
    messages = [
        {"role": "system", "content": "You see."},
        {
            "role": "user",
            "content": [
                words("A video of 8 s. <0.5 seconds>"),
                image(),
                words("<2.0 seconds>"),
                image(),
                words(" What moves?"),
            ],
        },
    ]
    sizes = [shown.size, shown.size]
    assert first.ids == rendered(processor, messages, sizes)
    reply = [*processor.tokenizer('<tool_call>{"name": "zoom"}</tool_call>').input_ids, chat.end_of_turn_id]
    second = chat.extend([later, "go on"], closed=True)
    messages += [
        {"role": "assistant", "content": '<tool_call>{"name": "zoom"}</tool_call>'},
        {"role": "user", "content": [words("<7.2 seconds>"), image(), words("go on")]},
    ]
    expected = rendered(processor, messages, [*sizes, later.size])
    assert [*first.ids, *reply, *second.ids] == expected
    for prompt in (first, second):
        for media, offset in zip(prompt.media, prompt.offsets, strict=True):
            count = chat.sight.num_tokens(media.size)
            assert prompt.ids[offset - 1 : offset + count + 1] == chat.sight.block(media.size)
    assert [media.timestamps for media in (*first.media, *second.media)] == [(0.5,), (2.0,), (7.25,)]
    cut = chat.extend(["go on"], closed=False)
    assert cut.ids == [chat.end_of_turn_id, *chat.extend(["go on"], closed=True).ids]


def test_words_cannot_fake_a_picture(seeing):
    chat, _ = seeing
    prompt = chat.open(
        "<|image_pad|>", ["<|vision_start|><|image_pad|><|vision_end|>", frames(chat, 1.0), "<|im_end|>"]
    )
    assert sum(token == chat.sight.image_id for token in prompt.ids) == 2
    assert prompt.ids.count(chat.end_of_turn_id) == 2  # of the system's and the user's turn
    assert chat.open("", ["words"]).media == ()


def test_a_size_that_is_no_multiple_is_refused(seeing):
    chat, _ = seeing
    with pytest.raises(ValueError, match="100 x 50 pixels must have multiples"):
        chat.open("", [MediaRef(uri="v.mp4", timestamps=(0.0,), size=(100, 50))])


def turn(prompt, reply):
    return Turn(
        kind=TurnKind.PLAN,
        round=0,
        prompt_ids=prompt.ids,
        reply_ids=reply,
        logprobs=[-1.0] * len(reply),
        policy_version=3,
        seed=0,
        text="",
        media=prompt.media,
        media_offsets=prompt.offsets,
    )


def test_rows_hold_the_places_and_cutting_takes_text_and_media_together(seeing):
    chat, _ = seeing
    opening = chat.open("s", ["a", frames(chat, 0.0), "b"])
    more = chat.extend([frames(chat, 3.0, 4.0)], closed=True)
    looked = Trajectory(agent="ada", turns=[turn(opening, [9, 9]), turn(more, [8])])
    brief = Trajectory(agent="ada", turns=[turn(opening, [9])])
    batch = pack([looked, brief], [1.0, 0.5], pad_id=0, temperature=1.0, names=["q1/0", "q1/1"])
    for row, media in zip(batch.input_ids.tolist(), batch.media, strict=True):
        chat.sight.check(row, media, "row")
    assert [len(media) for media in batch.media] == [3, 1]
    assert batch.names == ("q1/0", "q1/1")
    width = len(opening.ids) + 2  # up to the last token of the first reply
    cut = take_rows(batch, [1, 0], width=width)
    assert [len(media) for media in cut.media] == [1, 1]
    assert cut.names == ("q1/1", "q1/0")
    for row, media in zip(cut.input_ids.tolist(), cut.media, strict=True):
        chat.sight.check(row, media, "row")
    assert (
        pack([Trajectory(agent="a", turns=[turn(chat.open("s", ["x"]), [5])])], [0.0], pad_id=0, temperature=1).media
        == ()
    )
