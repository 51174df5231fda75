"""The papers' files become rows that our own reader takes."""

import pytest
import torch

from m1lite.data.converting import charades_rows, got10k_rows, next_gqa_rows, write_rows
from m1lite.data.readers.jsonl import read_jsonl
from m1lite.records import Box, Task
from m1lite.video.writer import write_video


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A clip of 4 s at 5 frames a second, 40 pixels high and 80 wide."""
    root = tmp_path_factory.mktemp("converted")
    write_video(root / "abc.mp4", torch.zeros(20, 3, 40, 80, dtype=torch.uint8), fps=5)
    return root


def read(root, rows):
    write_rows(rows, root / "train.jsonl")
    return read_jsonl(root, "train")


def test_charades_gives_a_question_per_sentence(root):
    entry = {"duration": 4.0, "timestamps": [[0, 1.5], [1, 4.6], [3, 3]], "sentences": ["A Man sits.", "he eats", "x"]}
    first, second = read(root, charades_rows({"abc": entry}))
    assert (first.task, first.question, first.duration) == (Task.GROUNDING, "a man sits", 4.0)
    assert [(one.answer.spans[0].start, one.answer.spans[0].end) for one in (first, second)] == [(0, 1.5), (1, 4.0)]


def test_next_gqa_gives_options_and_spans(root):
    entry = {
        "video": "abc", "question": "why does it fall ", "options": ["(A) wind", "(B) the (big) dog"], "duration": 4,
        "glue": [[0.5, 1], [2, 3]], "type": "CW", "answer": "(B)",
    }  # fmt: skip
    (grounded,) = read(root, next_gqa_rows([entry]))
    assert (grounded.task, grounded.options, grounded.answer.text) == (
        Task.GROUNDED_QA,
        ("wind", "the (big) dog"),
        "the (big) dog",
    )
    assert len(grounded.answer.spans) == 2
    (plain,) = read(root, next_gqa_rows([entry], spans=False))
    assert (plain.task, plain.answer.spans, plain.question) == (Task.CHOICE, (), "why does it fall")
    with pytest.raises(ValueError, match=r"`answer` '\(C\)' of 'why does it fall ' must begin one of the options"):
        next_gqa_rows([entry | {"answer": "(C)"}])


def test_got_10k_gives_eight_different_frames_and_boxes_in_pixels(root):
    boxes = [[0.1 * place, 0, 0.1 * place + 0.25, 0.5] for place in range(8)]
    (sample,) = read(root, got10k_rows([{"path": "abc.mp4", "object": "cup", "gt": boxes}], root))
    frames = [int(second * 5) for second in sample.times]
    assert frames == [0, 3, 5, 8, 11, 14, 16, 19], "from the first to the last, each once"
    assert sample.answer.boxes[0] == Box(left=0, top=0, right=20, bottom=20)
    assert sample.answer.boxes[2].left == pytest.approx(16)
    assert "Follow the cup, which is at [0.000, 0.000, 0.250, 0.500]" in sample.question
    assert sample.size == (40, 80)
