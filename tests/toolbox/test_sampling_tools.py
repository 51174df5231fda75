import pytest


def test_global_sampling_tells_what_spread_frames_show(scene):
    assert scene.text("global_sampling") == "t 5 none t 17 blue-circle t 29 none t 41 yellow-diamond"
    assert scene.seconds == [5, 17, 29, 41]


@pytest.mark.parametrize(("num_frames", "seconds"), [(1, [23]), (2, [11, 35]), (8, [2, 8, 14, 20, 26, 32, 38, 44])])
def test_global_sampling_looks_only_at_the_middles_of_equal_parts(scene, num_frames, seconds):
    scene.text("global_sampling", num_frames=num_frames)
    assert scene.seconds == seconds


def test_time_step_retrieval_stays_in_its_window(scene):
    assert scene.text("time_step_retrieval", start=12, end=16) == "t 13 red-square blue-circle t 15 blue-circle"
    assert scene.seconds == [13, 15]


def test_frames_that_fall_on_one_second_become_one(scene):
    assert scene.text("time_step_retrieval", start=12, end=14, num_frames=8) == (
        "t 12 red-square blue-circle t 13 red-square blue-circle"
    )


def test_a_window_without_a_whole_second_keeps_its_fraction(scene):
    assert scene.text("time_step_retrieval", start=12.25, end=12.75, num_frames=1) == "t 12.5 red-square blue-circle"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"start": 40, "end": 48}, "`end` 48 is past the video end 47"),
        ({"start": 20, "end": 10}, "`start` 20 must be before `end` 10"),
        ({"start": 20, "end": 20}, "`start` 20 must be before `end` 20"),
        ({"start": -1, "end": 10}, "`start` -1 is before the video"),
        ({"start": 47, "end": 47}, "`start` 47 is not before the video end 47"),
        (
            {"start": 1, "end": 9, "num_frames": 9},
            "`num_frames` of `time_step_retrieval` must lie between 1 and 8, got 9",
        ),
    ],
)
def test_windows_and_counts_that_are_refused(scene, args, message):
    assert message in scene.error("time_step_retrieval", **args)
    assert scene.seconds == []
