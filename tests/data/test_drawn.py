import pytest

from m1lite.data.drawn import DrawnScenes
from m1lite.data.scenes import SceneSpec, render
from m1lite.records import Task
from m1lite.toolbox.perception import detect


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
