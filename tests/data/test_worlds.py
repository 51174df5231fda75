import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from m1lite.data import worlds
from m1lite.data.worlds import SPLITS, SceneSpec, World, WorldSpec, build_world
from m1lite.records import Task
from m1lite.toolbox.perception import detect
from m1lite.video.reader import VideoError, open_video

SPEC = WorldSpec(seed=3, num_train=4, num_val=2, num_test=3, train_per_task=2, tasks=tuple(Task))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(SPEC, tmp_path_factory.mktemp("worlds"), workers=2)


def stamps(world):
    return {path.name: path.stat().st_mtime_ns for path in world.folder.glob("*.mp4")}


@pytest.mark.parametrize("backend", ["torchcodec", "pyav"])
def test_perception_of_decoded_frames_is_exact(world, backend):
    compared = 0
    for split in SPLITS:
        for index in range(SPEC.count(split)):
            scene, video = SPEC.scene(split, index), open_video(world.video(split, index), backend=backend)
            assert video.metadata.duration == pytest.approx(scene.duration)
            assert video.metadata.num_frames == scene.duration * scene.fps
            seconds = [number / scene.fps for number in range(scene.duration * scene.fps)]
            for now, detections in zip(seconds, detect(video.frames_at(seconds).pixels), strict=True):
                expected = {(e.object, e.lane, e.box_at(now)) for e in scene.events if e.start <= now < e.end}
                assert {(each.object, each.lane, each.box) for each in detections} == expected
                compared += 1
    assert compared > 1000


def test_splits_ask_as_many_questions_as_the_spec_says(world):
    for name in ("val", "test"):
        samples = world.split(name)
        videos = {sample.video for sample in samples}
        assert len(videos) == SPEC.count(name)
        assert {(sample.video, sample.task) for sample in samples} == {(v, task) for v in videos for task in Task}
        assert len(samples) == len(videos) * len(Task)
    train = world.split("train")
    assert sum(sample.task is Task.GROUNDING for sample in train) == 2 * SPEC.num_train
    assert sum(sample.task is Task.COUNTING for sample in train) == SPEC.num_train


def test_splits_share_no_video_and_no_scene(world):
    videos = [{sample.video for sample in world.split(name)} for name in SPLITS]
    assert sum(len(each) for each in videos) == len(set.union(*videos)) == 9
    assert all(os.path.isfile(video) for each in videos for video in each)
    full = WorldSpec(seed=3)
    scenes = [full.scene(name, index) for name in SPLITS for index in range(40)]
    assert len({repr(scene.events) for scene in scenes}) == len(scenes)


def test_ids_are_unique_within_a_split(world):
    for name in SPLITS:
        ids = [sample.id for sample in world.split(name)]
        assert len(set(ids)) == len(ids)
    assert world.split("val")[0].id == "val-00000-grounding-0"


def test_questions_are_the_same_at_every_call_and_in_every_process(world):
    assert world.split("test") == world.split("test")
    code = (
        "from m1lite.data.worlds import *; from m1lite.records import Task;"
        "spec = WorldSpec(seed=3, num_train=4, num_val=2, num_test=3, train_per_task=2, tasks=tuple(Task));"
        "import pathlib, sys; print(spec.key());"
        "print([sample.question for sample in World(spec=spec, folder=pathlib.Path()).split('train')])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.splitlines() == [SPEC.key(), str([sample.question for sample in world.split("train")])]


def test_more_videos_leave_the_others_as_they_are():
    more = replace(SPEC, num_train=50)
    assert more.key() == SPEC.key()
    assert more.scene("test", 2) == SPEC.scene("test", 2)
    assert replace(SPEC, seed=4).scene("test", 2) != SPEC.scene("test", 2)


def test_a_second_build_makes_nothing(world):
    before, seen = stamps(world), []
    again = build_world(SPEC, world.folder.parent, on_progress=lambda ready, total: seen.append((ready, total)))
    assert again == world
    assert stamps(world) == before
    assert seen == [(9, 9)]


def test_an_interrupted_build_goes_on(tmp_path, monkeypatch):
    spec = WorldSpec(num_train=3, num_val=1, num_test=1)
    real, done = worlds.write_video, []

    def interrupted(path, frames, *, fps):
        if len(done) == 2:
            raise VideoError("disk full")
        real(path, frames, fps=fps)
        done.append(path)

    monkeypatch.setattr(worlds, "write_video", interrupted)
    with pytest.raises(VideoError, match="disk full"):
        build_world(spec, tmp_path, workers=1)
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 2  # two videos, no rest, no marker

    monkeypatch.setattr(worlds, "write_video", real)
    seen = []
    world = build_world(spec, tmp_path, workers=1, on_progress=lambda ready, total: seen.append((ready, total)))
    assert seen == [(2, 5), (3, 5), (4, 5), (5, 5)]
    assert len(list(folder.glob("*.mp4"))) == 5
    assert json.loads((world.folder / "world.json").read_text())["num_train"] == 3


def shown(path):
    """What a video holds and what is seen in every frame."""
    video = open_video(path)
    fps, count = video.metadata.fps, video.metadata.num_frames
    return video.metadata, detect(video.frames_at([(index + 0.5) / fps for index in range(count)]).pixels)


def test_a_deleted_video_comes_back(world):
    path = world.video("val", 1)
    content, others = shown(path), stamps(world)
    path.unlink()
    build_world(SPEC, world.folder.parent, workers=1)
    # Not the bytes: on a busy machine the encoder's stream was once two bytes longer.
    assert shown(path) == content
    assert {**stamps(world), path.name: 0} == {**others, path.name: 0}


def test_processes_may_build_at_once(tmp_path):
    code = (
        "import sys; from m1lite.data.worlds import *;"
        "build_world(WorldSpec(num_train=6, num_val=2, num_test=2), sys.argv[1], workers=2)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1].splitlines() for process in processes]
    # Without FFmpeg's libraries each says in one line that PyAV takes over.
    assert [[line for line in lines if "PyAV reads and writes" not in line] for lines in said] == [[], []]
    (folder,) = tmp_path.iterdir()
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(
        ["world.json", *(f"{n}-{i:05d}.mp4" for n, k in (("train", 6), ("val", 2), ("test", 2)) for i in range(k))]
    )
    assert all(open_video(path).metadata.num_frames > 0 for path in folder.glob("*.mp4"))


def test_the_key_follows_the_pixels(monkeypatch):
    key = SPEC.key()
    assert replace(SPEC, tasks=(Task.CHOICE,), train_per_task=9).key() == key
    assert replace(SPEC, seed=4).key() != key
    assert replace(SPEC, scenes=SceneSpec(max_objects=6)).key() != key
    monkeypatch.setattr(worlds, "CODE_VERSION", worlds.CODE_VERSION + 1)
    assert SPEC.key() != key


def test_names_of_a_configuration_are_taken():
    spec = WorldSpec(tasks=["grounding", "choice"])
    assert spec.tasks == (Task.GROUNDING, Task.CHOICE)
    assert all(isinstance(task, Task) for task in spec.tasks)


def test_bad_input_names_the_value(tmp_path, world):
    with pytest.raises(ValueError, match=r"'riddle' is not a valid Task\); use grounding, choice, counting"):
        WorldSpec(tasks=["riddle"])
    with pytest.raises(ValueError, match=r"distinct and at least one, got \['choice', 'choice'\]"):
        WorldSpec(tasks=["choice", "choice"])
    with pytest.raises(ValueError, match="`num_val` must be at least 0, got -1"):
        WorldSpec(num_val=-1)
    with pytest.raises(ValueError, match="`train_per_task` must be at least 1, got 0"):
        WorldSpec(train_per_task=0)
    with pytest.raises(ValueError, match="`workers` must be at least 1, got 0"):
        build_world(SPEC, tmp_path, workers=0)
    with pytest.raises(ValueError, match="`name` 'dev' is no split; use one of train, val, test"):
        world.split("dev")


@pytest.mark.parametrize("name", SPLITS)
def test_every_question_is_asked_once_about_every_object(name):
    spec = WorldSpec(seed=3, num_train=4, num_val=2, num_test=3, train_per_task=1, tasks=tuple(Task))
    asked = World(spec=spec, folder=Path("/nowhere")).every_question(name)
    expected = []
    for index in range(spec.count(name)):
        objects = [event.object for event in spec.scene(name, index).events]
        video = f"/nowhere/{name}-{index:05d}.mp4"
        for word, about in (("when", objects), ("where", objects), ("track", objects), ("next", objects[:-1])):
            expected += [(video, f"{word} {thing}") for thing in about]
        expected += [(video, "count objects"), (video, "list objects")]
    assert sorted((sample.video, sample.question) for sample in asked) == sorted(expected)
    assert len({sample.id for sample in asked}) == len(asked)
    again = World(spec=spec, folder=Path("/nowhere")).every_question(name)
    assert again == asked
    other = replace(spec, seed=4)
    assert World(spec=other, folder=Path("/nowhere")).every_question(name) != asked
