import pytest


def test_video_retrieval_finds_the_clip_that_shows_most(scene):
    assert scene.text("video_retrieval", query="red-square") == "red-square clip 8 16"
    assert scene.seconds == list(range(47))


def test_video_retrieval_ranks_clips_and_prefers_the_earlier_of_equals(make_scene, make_event):
    # Three frames in [0, 8), eight in [8, 16), three in [16, 24).
    scene = make_scene(events=(make_event("red-square", "left", 5, 19),))
    assert scene.text("video_retrieval", query="red-square", top_k=3) == "red-square clip 8 16 clip 0 8 clip 16 24"
    assert scene.text("video_retrieval", query="red-square", top_k=8).count("clip") == 3


def test_the_last_clip_ends_with_the_video(scene):
    assert scene.text("video_retrieval", query="yellow-diamond") == "yellow-diamond clip 40 47"


def test_image_retrieval_finds_the_middle_frame_that_shows_it(scene):
    assert scene.text("image_retrieval", query="red-square") == "red-square t 11"  # of 9 10 11 12 13 14
    assert scene.text("image_retrieval", query="green-triangle") == "green-triangle t 31"  # of 30 31 32
    assert scene.text("image_retrieval", query="red-square", top_k=4) == "red-square t 11 t 10 t 12 t 9"


def test_image_retrieval_stays_in_its_window(scene):
    assert scene.text("image_retrieval", query="red-square", start=13) == "red-square t 13"
    assert scene.seconds == list(range(13, 47))
    assert scene.text("image_retrieval", query="red-square", end=9) == "none"
    assert scene.seconds[34:] == list(range(9))


@pytest.mark.parametrize("tool", ["video_retrieval", "image_retrieval"])
def test_an_absent_object_and_words_that_are_none(scene, tool):
    assert scene.text(tool, query="purple-circle") == "none"
    assert "`query` 'objects' is not one object; an object is a colour of red," in scene.error(tool, query="objects")
    assert "`query` 'red-house' is not one object" in scene.error(tool, query="red-house")
