import pytest
import torch

from m1lite.data.drawn import DrawnScenes
from m1lite.data.scenes import SceneSpec, render
from m1lite.records import Task
from m1lite.toolbox.perception import detect
from m1lite.video.cache import FrameCache


def test_a_script_shows_what_perception_sees_in_the_rendered_frames():
    scenes = DrawnScenes(SceneSpec(), ["grounding", "counting"], num_scenes=3, seed=5)
    for uri, script in scenes._scripts.items():
        seconds = [index / script.fps for index in range(0, int(script.duration * script.fps), 3)]
        frames = render(script)[[round(second * script.fps) for second in seconds]]
        assert scenes.look(uri, seconds) == [
            sorted(seen, key=lambda detection: detection.box.left) for seen in detect(frames)
        ]


def test_a_second_between_two_frames_shows_the_earlier_one():
    scenes = DrawnScenes(SceneSpec(), [Task.COUNTING], num_scenes=1)
    ((uri, script),) = scenes._scripts.items()
    event = script.events[-1]  # starts after the video does
    (before,) = scenes.look(uri, [event.start - 0.5 / script.fps])
    assert event.object not in {seen.object for seen in before}
    between = event.start + 1.5 / script.fps
    assert scenes.look(uri, [between]) == scenes.look(uri, [event.start + 1 / script.fps])


def test_scenes_follow_the_seed_and_must_be_some():
    first, same, other = (DrawnScenes(SceneSpec(), [Task.CHOICE], num_scenes=2, seed=seed) for seed in (1, 1, 2))
    assert first.samples == same.samples != other.samples
    with pytest.raises(ValueError, match="`num_scenes` is 0; drills need at least 1"):
        DrawnScenes(SceneSpec(), [Task.CHOICE], num_scenes=0)


def test_a_scene_opens_as_a_video_of_its_frames():
    scenes = DrawnScenes(SceneSpec(), [Task.GROUNDING], num_scenes=2, seed=4)
    frames = FrameCache(10_000_000, opener=scenes.open)
    for uri, script in scenes._scripts.items():
        held = frames.metadata(uri)
        assert (held.duration, held.height, held.width) == (script.duration, script.size, script.size)
        seconds = [3.0, script.duration - 0.5 / script.fps, 1.5 / script.fps]
        found = frames.frames_at(uri, seconds)
        assert torch.equal(found.pixels, render(script)[[3 * script.fps, held.num_frames - 1, 1]])
        assert found.timestamps == [3.0, (held.num_frames - 1) / script.fps, 1 / script.fps]
        reader = scenes.open(uri)
        assert torch.equal(reader.frames_at([0.01], nearest_key=True).pixels, render(script, [0]))
        assert reader.frames_at([0.0], size=(32, 32)).pixels.shape == (1, 3, 32, 32)
    for sample in scenes.samples:
        assert scenes.telling_stretch(sample) == sample.answer.spans[0]
