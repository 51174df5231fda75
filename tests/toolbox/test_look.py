import pytest
import torch

from m1lite.records import Box
from m1lite.toolbox.look import Perception, sightings
from m1lite.toolbox.perception import COLOURS, Detection
from m1lite.video.cache import FrameCache
from m1lite.video.reader import Frames, VideoError
from m1lite.video.writer import write_video


class CountingFrames:
    """Frames that are red before second 5 and blue from then on; notes what was decoded."""

    def __init__(self):
        self.decoded = []

    def frames_at(self, video, seconds):
        self.decoded.append((video, list(seconds)))
        pixels = torch.zeros(len(seconds), 3, 32, 32, dtype=torch.uint8)
        for index, second in enumerate(seconds):
            pixels[index, :, 4:20, 4:20] = torch.tensor(COLOURS["red" if second < 5 else "blue"])[:, None, None]
        return Frames(pixels=pixels, timestamps=list(seconds))


def names(detections):
    return [[detection.object for detection in frame] for frame in detections]


def test_frames_are_decoded_once_and_answered_in_the_order_asked():
    frames = CountingFrames()
    look = Perception(frames)
    assert names(look("a", [7, 2, 7.0, 3])) == [["blue-square"], ["red-square"], ["blue-square"], ["red-square"]]
    assert frames.decoded == [("a", [2, 3, 7])]
    assert names(look("a", [2, 9])) == [["red-square"], ["blue-square"]]
    assert frames.decoded[1:] == [("a", [9])]
    look("b", [2])
    assert frames.decoded[2:] == [("b", [2])]
    assert look("a", []) == []
    assert repr(look) == "Perception(videos=2, frames=5)"


def test_the_video_not_looked_at_for_longest_is_forgotten_first():
    frames = CountingFrames()
    look = Perception(frames, max_frames=4)
    for video, seconds in (("a", [1, 2]), ("b", [1, 2]), ("a", [1]), ("c", [1])):
        look(video, seconds)
    assert repr(look) == "Perception(videos=2, frames=3)"
    frames.decoded.clear()
    look("a", [1, 2])
    assert frames.decoded == []
    look("b", [1])
    assert frames.decoded == [("b", [1])]
    with pytest.raises(ValueError, match="`max_frames` must be at least 1, got 0"):
        Perception(frames, max_frames=0)


def test_many_frames_are_decoded_in_parts():
    frames = CountingFrames()
    seconds = [index / 10 for index in range(150)]
    assert names(Perception(frames)("a", seconds)) == [["red-square" if s < 5 else "blue-square"] for s in seconds]
    assert [len(part) for _, part in frames.decoded] == [64, 64, 22]


def test_an_unreadable_video_names_the_file(tmp_path):
    with pytest.raises(VideoError, match=r"missing\.mp4"):
        Perception(FrameCache(2**20))(str(tmp_path / "missing.mp4"), [1])


def test_perception_of_a_written_file(tmp_path):
    path = str(tmp_path / "square.mp4")
    write_video(path, CountingFrames().frames_at("", [index / 4 for index in range(40)]).pixels, fps=4)
    seen = Perception(FrameCache(2**20))(path, [4.75, 5.0, 9.99])
    assert names(seen) == [["red-square"], ["blue-square"], ["blue-square"]]
    assert seen[0][0].box == Box(left=4, top=4, right=20, bottom=20)


def test_sightings_keep_the_order_of_first_sight_and_count_a_frame_once():
    box = Box(left=0, top=0, right=1, bottom=1)
    script = {1: ["b"], 2: ["a", "b"], 3: [], 4: ["a", "a"]}

    def look(video, seconds):
        return [[Detection(object=name, box=box, lane="left") for name in script[second]] for second in seconds]

    assert list(sightings(look, "v", [1, 2, 3, 4]).items()) == [("b", [1, 2]), ("a", [2, 4])]
