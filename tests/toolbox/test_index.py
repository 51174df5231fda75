"""Entries on real files: kept by content, never trusted when damaged, made once by threads and by processes."""

import json
import logging
import multiprocessing
import os
import random
import shutil
import threading
import time

import pytest
import torch

from m1lite.toolbox.index import Entry, Recipe, VideoIndex, pack_entry, unpack_entry
from m1lite.video.base import VideoError

RECIPE = Recipe(kind="frames", maker="model 1", sampling={"fps": 1.0})


class Maker:
    """Makes entries and counts them."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        vectors = torch.arange(12, dtype=torch.float32).view(3, 4)
        seconds = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        return Entry(tensors={"vectors": vectors, "seconds": seconds}, texts=("a dog", 'a "cat" — 猫'))


@pytest.fixture
def make():
    return Maker()


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(range(256)) * 40)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "index"


def same(found):
    expected = Maker()()
    return (
        found.texts == expected.texts
        and found.tensors.keys() == expected.tensors.keys()
        and all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())
    )


def test_an_entry_is_made_once_for_all_runs(video, folder, make):
    index = VideoIndex(folder)
    assert same(index.entry(video, RECIPE, make))
    assert same(index.entry(video, RECIPE, make))
    later = VideoIndex(folder)
    assert same(later.entry(video, RECIPE, make))
    assert make.made == 1
    assert index.counts == {"made": 1, "remembered": 1}
    assert later.counts == {"read": 1}


def test_the_content_counts_and_not_the_place_or_the_time(video, folder, make, tmp_path):
    VideoIndex(folder).entry(video, RECIPE, make)
    os.utime(video)
    copy = shutil.copy(video, tmp_path / "copy.mp4")
    moved = shutil.move(video, tmp_path / "moved.mp4")
    for uri in (copy, moved, f"file://{moved}"):
        VideoIndex(folder).entry(str(uri), RECIPE, make)
    assert make.made == 1


def test_a_video_that_changes_has_a_new_entry_also_in_the_same_run(video, folder, make):
    index = VideoIndex(folder)
    index.entry(video, RECIPE, make)
    before = os.stat(video)
    with open(video, "r+b") as file:  # one byte, and the old times put back
        file.seek(5000)
        file.write(b"!")
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    index.entry(video, RECIPE, make)
    VideoIndex(folder).entry(video, RECIPE, make)
    assert make.made == 2


@pytest.mark.parametrize(
    "other",
    [
        Recipe(kind="captions", maker="model 1", sampling={"fps": 1.0}),
        Recipe(kind="frames", maker="model 2", sampling={"fps": 1.0}),
        Recipe(kind="frames", maker="model 1", sampling={"fps": 2.0}),
        Recipe(kind="frames", maker="model 1"),
    ],
)
def test_another_recipe_is_another_entry(video, folder, make, other):
    index = VideoIndex(folder)
    assert index.path(video, other) != index.path(video, RECIPE)
    index.entry(video, RECIPE, make)
    index.entry(video, other, make)
    assert make.made == 2
    with pytest.raises(ValueError, match=r"it is of the recipe .*model 1"):
        unpack_entry(pack_entry(make(), RECIPE), other)


def test_a_cut_entry_is_made_anew(video, folder, make, caplog):
    path = VideoIndex(folder).path(video, RECIPE)
    VideoIndex(folder).entry(video, RECIPE, make)
    whole = path.read_bytes()
    lengths = [0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1]
    for length in lengths:
        path.write_bytes(whole[:length])
        index = VideoIndex(folder)
        with caplog.at_level(logging.WARNING):
            assert same(index.entry(video, RECIPE, make))
        assert index.counts == {"refused": 1, "made": 1}
        assert same(unpack_entry(path.read_bytes(), RECIPE))
    assert make.made == 1 + len(lengths)
    assert str(path) in caplog.text
    assert "it is made anew" in caplog.text


def test_no_flipped_bit_is_believed():
    whole = pack_entry(Maker()(), RECIPE)
    places = [*range(8 * len(whole))]
    random.Random(0).shuffle(places)
    refused = 0
    for place in places[:1500]:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        try:
            found = unpack_entry(bytes(flipped), RECIPE)
        except ValueError:
            refused += 1
        else:
            assert same(found), place  # such as a blank of the header's padding that became another
    assert refused > 1450


def test_a_flipped_entry_is_made_anew(video, folder, make):
    path = VideoIndex(folder).path(video, RECIPE)
    VideoIndex(folder).entry(video, RECIPE, make)
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 16
    path.write_bytes(whole)
    index = VideoIndex(folder)
    assert same(index.entry(video, RECIPE, make))
    assert index.counts == {"refused": 1, "made": 1}


def test_a_foreign_file_and_a_swapped_one_are_refused(video, folder, make):
    from safetensors.torch import save_file

    index = VideoIndex(folder)
    path = index.path(video, RECIPE)
    path.parent.mkdir(parents=True)
    save_file({"vectors": torch.zeros(2)}, path)
    assert same(index.entry(video, RECIPE, make))
    other = Recipe(kind="frames", maker="model 2")
    index.entry(video, other, make)
    shutil.copy(index.path(video, other), path)
    again = VideoIndex(folder)
    again.entry(video, RECIPE, make)
    assert again.counts == {"refused": 1, "made": 1}


def test_a_damaged_name_of_a_content_is_not_believed(video, folder, make):
    VideoIndex(folder).entry(video, RECIPE, make)
    (memo,) = (folder / "contents").iterdir()
    for text in ("", "../../etc", "0" * 31 + "\n", "\udc80"):
        memo.write_text(text, errors="surrogateescape")
        VideoIndex(folder).entry(video, RECIPE, make)
    assert make.made == 1


def test_what_fails_is_not_kept(video, folder, make):
    index = VideoIndex(folder)

    def fail():
        raise VideoError("no frames")

    with pytest.raises(VideoError, match="no frames"):
        index.entry(video, RECIPE, fail)
    assert same(index.entry(video, RECIPE, make))
    assert not list(folder.rglob(".*"))  # nothing half-written is left


def test_a_missing_video_is_named(folder, make, tmp_path):
    with pytest.raises(VideoError, match=r"missing\.mp4.*does not exist"):
        VideoIndex(folder).entry(str(tmp_path / "missing.mp4"), RECIPE, make)


def test_memory_is_bounded(video, folder, make):
    size = make().num_bytes
    index = VideoIndex(folder, max_bytes=2 * size)
    recipes = [Recipe(kind="frames", maker=str(number)) for number in range(3)]
    for recipe in [*recipes, recipes[2], recipes[0]]:
        index.entry(video, recipe, make)
    assert index.counts == {"made": 3, "remembered": 1, "read": 1}
    none = VideoIndex(folder, max_bytes=0)
    for _ in range(2):
        none.entry(video, recipes[0], make)
    assert none.counts == {"read": 2}
    with pytest.raises(ValueError, match="`max_bytes` must be at least 0, got -1"):
        VideoIndex(folder, max_bytes=-1)


def test_a_folder_that_cannot_be_written_to_costs_only_the_next_run(video, make, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    index = VideoIndex(blocked / "index")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert same(index.entry(video, RECIPE, make))
    assert make.made == 1
    assert "kept in memory only" in caplog.text


def test_threads_wait_for_the_one_that_makes_it(video, folder):
    made, begun = [], threading.Barrier(4)
    index = VideoIndex(folder)

    def make():
        made.append(1)
        threading.Event().wait(0.2)
        return Maker()()

    def ask():
        begun.wait()
        assert same(index.entry(video, RECIPE, make))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    # Who comes late enough finds it in memory, others read what was just written.
    assert index.counts["made"] == 1
    assert index.counts["remembered"] + index.counts["read"] == 3


def test_processes_wait_for_the_one_that_makes_it(video, folder):
    forked = multiprocessing.get_context("fork")
    begun, told = forked.Barrier(2), forked.Queue()

    def make():
        time.sleep(0.3)
        return Maker()()

    def ask():
        index = VideoIndex(folder)
        begun.wait()
        told.put((same(index.entry(video, RECIPE, make)), dict(index.counts)))

    processes = [forked.Process(target=ask) for _ in range(2)]
    for process in processes:
        process.start()
    found = [told.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(found, key=str) == [(True, {"made": 1}), (True, {"read": 1})]


def test_an_entry_is_a_plain_safetensors_file_that_says_what_it_is(video, folder, make):
    from safetensors import safe_open

    index = VideoIndex(folder)
    index.entry(video, RECIPE, make)
    with safe_open(index.path(video, RECIPE), "pt") as file:
        assert set(file.keys()) == {"vectors", "seconds"}
        assert json.loads(file.metadata()["recipe"])[1:] == ["frames", "model 1", {"fps": 1.0}]
