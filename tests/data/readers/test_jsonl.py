"""Rows of every task come back as samples, on real footage, and every broken row is named with its line and remedy."""

import json
import re
import shutil
import subprocess

import pytest
import torch

from m1lite.data.readers.jsonl import DataError, read_jsonl
from m1lite.records import Answer, Box, Span, Task
from m1lite.video.writer import write_video

GROUNDING = {"video": "clip.mp4", "task": "grounding", "question": "when does it start?", "spans": [[1, 2.5]]}
CHOICE = GROUNDING | {"task": "choice", "options": ["a cat", "a dog"], "answer": "a dog"}
CHOICE.pop("spans")
COUNTING = {"video": "clip.mp4", "task": "counting", "question": "how many?", "answer": 3}
GROUNDED_QA = GROUNDING | {"task": "grounded_qa", "answer": "in the kitchen"}
TRACKING = {"video": "clip.mp4", "task": "tracking", "question": "follow the cup", "times": [0, 1.5]}
TRACKING["boxes"] = [[0, 0, 10, 10], [2, 3, 32, 16.5]]
CAPTION = {"video": "clip.mp4", "task": "caption", "question": "what happens?", "answer": ["enters", "sits down"]}


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Give a folder with a clip of 4 seconds, 32 pixels wide and 24 high."""
    root = tmp_path_factory.mktemp("footage")
    pixels = torch.randint(0, 255, (16, 3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_video(root / "clip.mp4", pixels, fps=4)
    return root


@pytest.fixture
def root(footage, tmp_path):
    (tmp_path / "clip.mp4").symlink_to(footage / "clip.mp4")
    return tmp_path


def write(root, *rows, split="train"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (root / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (GROUNDING, Answer(spans=(Span(start=1, end=2.5),))),
        (CHOICE, Answer(text="a dog")),
        (COUNTING, Answer(number=3)),
        (GROUNDED_QA, Answer(text="in the kitchen", spans=(Span(start=1, end=2.5),))),
        (
            TRACKING,
            Answer(boxes=(Box(left=0, top=0, right=10, bottom=10), Box(left=2, top=3, right=32, bottom=16.5))),
        ),
        (CAPTION, Answer(events=("enters", "sits down"))),
    ],
    ids=lambda value: value["task"] if isinstance(value, dict) else "",
)
def test_a_row_of_every_task(root, row, answer):
    write(root, row)
    (sample,) = read_jsonl(root, "train")
    assert sample.answer == answer
    assert sample.task is Task(row["task"])
    assert (sample.id, sample.question, sample.video) == ("train-1", row["question"], str(root / "clip.mp4"))
    assert sample.duration == pytest.approx(4.0, abs=0.01)
    assert sample.options == tuple(row.get("options", ()))
    assert sample.times == tuple(row.get("times", ()))


def test_optional_fields_and_empty_lines(root):
    write(root, "", GROUNDING | {"id": "q7", "duration": 3.5, "tags": {"source": "kitchen"}, "options": []}, "  ")
    (sample,) = read_jsonl(root, "train")
    assert (sample.id, sample.duration, sample.tags) == ("q7", 3.5, {"source": "kitchen"})


def test_grounded_questions_may_have_options_and_several_spans(root):
    row = GROUNDED_QA | {"options": ["a cat", "a dog"], "answer": "a dog", "spans": [[0, 1], [2, 3.5]]}
    write(root, row)
    (sample,) = read_jsonl(root, "train")
    assert (sample.options, sample.answer.text) == (("a cat", "a dog"), "a dog")
    assert [(span.start, span.end) for span in sample.answer.spans] == [(0, 1), (2, 3.5)]
    write(root, row | {"answer": "a cow"}, GROUNDING | {"spans": [[0, 1], [2, 3]]}, GROUNDED_QA | {"spans": []})
    with pytest.raises(DataError) as error:
        read_jsonl(root, "train")
    first, second, third = str(error.value).splitlines()[1:]
    assert "`answer` is 'a cow'; allowed: one of ['a cat', 'a dog']" in first
    assert "allowed: exactly one [start, end]" in second
    assert "allowed: one or several [start, end]" in third


def test_tracking_tells_the_size_of_the_video(root):
    write(root, TRACKING, GROUNDING)
    assert [sample.size for sample in read_jsonl(root, "train")] == [(24, 32), None]


def test_a_span_that_was_rounded_up_is_clipped(root):
    write(root, GROUNDING | {"spans": [[1, 4.9]]})
    assert read_jsonl(root, "train")[0].answer.spans[0].end == pytest.approx(4.0, abs=0.01)


def test_an_absolute_path_and_another_split(root, footage):
    write(root, GROUNDING | {"video": str(footage / "clip.mp4")}, split="val")
    (sample,) = read_jsonl(str(root), "val")
    assert (sample.id, sample.video) == ("val-1", str(footage / "clip.mp4"))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ('{"video": "clip.mp4",', '`row` is \'{"video": "clip.mp4",\'; allowed: one JSON object per line; at column'),
        ("[1, 2]", '`row` is [1, 2]; allowed: one JSON object per line; write {"video": ...'),
        (GROUNDING | {"task": "locate"}, "`task` is 'locate'; allowed: grounding choice counting grounded_qa tracking"),
        (
            {"video": "clip.mp4", "task": "counting", "answer": 1},
            "`question` is None; allowed: given for task",
        ),
        (CHOICE | {"options": None}, "`options` is None; allowed: given for task choice; add it; choice needs"),
        (COUNTING | {"spans": [[1, 2]]}, "`spans` is [[1, 2]]; allowed: empty for task counting; remove it or"),
        (COUNTING | {"anwser": 3}, "`anwser` is 3; allowed: one of the fields video task question options answer"),
        (COUNTING | {"question": " "}, "`question` is ' '; allowed: a text that is not empty"),
        (COUNTING | {"video": "none.mp4"}, "`video` is 'none.mp4'; allowed: a file under"),
        (COUNTING | {"duration": "4"}, "`duration` is '4'; allowed: a finite number; write it without quotes"),
        (COUNTING | {"duration": 0}, "`duration` is 0.0; allowed: seconds above 0; leave it out to read it"),
        (COUNTING | {"answer": 2.5}, "`answer` is 2.5; allowed: a whole number from 0"),
        (COUNTING | {"answer": True}, "`answer` is True; allowed: a whole number from 0"),
        (COUNTING | {"answer": "three"}, "`answer` is 'three'; allowed: a whole number from 0"),
        (CHOICE | {"answer": "B"}, "`answer` is 'B'; allowed: one of ['a cat', 'a dog']; write the option's text"),
        (CHOICE | {"options": ["a dog"]}, "`options` is ['a dog']; allowed: a list of 2 or more texts"),
        (CHOICE | {"options": ["a dog", "a dog"]}, "`options` is ['a dog', 'a dog']; allowed: texts that differ"),
        (GROUNDING | {"spans": [1, 2]}, "`spans` is [1, 2]; allowed: exactly one [start, end]; write seconds as"),
        (GROUNDING | {"spans": [[1, None]]}, "`spans` is [[1, None]]; allowed: two finite numbers"),
        (GROUNDING | {"spans": [[2, 1]]}, "`spans` is [[2, 1]]; allowed: 0 <= start < end"),
        (GROUNDING | {"spans": [[1, 60]]}, "`spans` is [[1, 60]]; allowed: within the video's 4 s; clip the span"),
        (TRACKING | {"times": [0, 4.5]}, "`times` is [0, 4.5]; allowed: seconds in [0, 4)"),
        (TRACKING | {"times": "0 1"}, "`times` is '0 1'; allowed: a list of seconds; write [10.0, 14.5]"),
        (TRACKING | {"boxes": [[0, 0, 9, 9]]}, "`boxes` is [[0, 0, 9, 9]]; allowed: one box for each of the 2 times"),
        (TRACKING | {"boxes": [[0, 0, 9], []]}, "`boxes` is [0, 0, 9]; allowed: four finite numbers"),
        (TRACKING | {"boxes": [[0, 0, 33, 9]] * 2}, "`boxes` is [0, 0, 33, 9]; allowed: pixels, left < right <= 32"),
        (
            TRACKING | {"boxes": [[0.1, 0.1, 0.5, 0.5]] * 2},
            "these look like shares of the frame: multiply by",
        ),
        (CAPTION | {"answer": "enters"}, "`answer` is 'enters'; allowed: a list of 1 or more texts"),
        (COUNTING | {"tags": {"level": 3}}, "`tags` is {'level': 3}; allowed: texts by name"),
    ],
)
def test_a_broken_row_is_named(root, row, text):
    write(root, COUNTING, row)
    with pytest.raises(DataError, match=re.escape(text)) as error:
        read_jsonl(root, "train")
    assert str(error.value).splitlines()[0] == "1 broken row(s):"
    assert str(error.value).splitlines()[1].startswith(f"{root / 'train.jsonl'}:2: `")


def test_all_broken_rows_are_named_at_once(root):
    write(root, COUNTING | {"answer": -1}, COUNTING, COUNTING | {"task": None}, COUNTING | {"id": "train-2"})
    with pytest.raises(DataError) as error:
        read_jsonl(root, "train")
    head, *lines = str(error.value).splitlines()
    assert head == "3 broken row(s):"
    assert [line.removeprefix(f"{root}/train.jsonl:").split(" is ")[0] for line in lines] == [
        "1: `answer`",
        "3: `task`",
        "4: `id`",
    ]
    assert lines[-1].endswith("`id` is 'train-2'; allowed: an id of its own; line 2 has it already.")


def test_a_long_list_of_broken_rows_is_cut_with_its_count(root):
    write(root, *[COUNTING | {"answer": -1}] * 103)
    with pytest.raises(DataError, match=r"(?s)^103 broken row.*:100: .*\n\.\.\. and 3 more broken rows$"):
        read_jsonl(root, "train")


def test_an_unreadable_video_is_named_for_each_of_its_rows(root):
    (root / "broken.mp4").write_bytes(b"not a video")
    write(root, *[COUNTING | {"video": "broken.mp4"}] * 2)
    with pytest.raises(DataError, match="replace the file or drop the row") as error:
        read_jsonl(root, "train")
    assert str(error.value).count("broken.mp4'; allowed: a readable video") == 2


def test_missing_root_split_and_rows(root):
    with pytest.raises(DataError, match="The dataset root /nowhere/at/all is not a folder; give the folder"):
        read_jsonl("/nowhere/at/all", "train")
    write(root, GROUNDING, split="test")
    with pytest.raises(DataError, match=re.escape("train.jsonl does not exist; the splits in")) as error:
        read_jsonl(root, "train")
    assert "are ['test']" in str(error.value)
    write(root, "", split="val")
    with pytest.raises(DataError, match=r"val\.jsonl holds no row"):
        read_jsonl(root, "val")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed")
def test_footage_of_the_ffmpeg_command(tmp_path):
    source = ["-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=3", "-pix_fmt", "yuv420p"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *source, str(tmp_path / "camera.mp4")], check=True)
    row = {"video": "camera.mp4", "task": "tracking", "question": "the square", "times": [2.9]}
    write(tmp_path, row | {"boxes": [[0, 0, 160, 120]]})
    (sample,) = read_jsonl(tmp_path, "train")
    assert sample.duration == pytest.approx(3.0, abs=0.05)
    assert sample.answer.boxes == (Box(left=0, top=0, right=160, bottom=120),)
