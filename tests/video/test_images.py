import struct
import zlib

import pytest
import torch
from PIL import Image

from m1lite.video.base import VideoError
from m1lite.video.cache import FrameCache
from m1lite.video.policy import VideoPolicy
from m1lite.video.reader import open_video


@pytest.fixture
def folder(tmp_path):
    """Twelve flat images of 20 x 30 pixels; number i has the grey level 20 * i. Beside them lies a text."""
    for place in range(12):
        Image.new("RGB", (30, 20), (20 * place,) * 3).save(tmp_path / f"frame{place}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_a_folder_plays_in_the_order_of_numbers(folder, numbers):
    video = open_video(folder, image_fps=4)
    assert (video.metadata.num_frames, video.metadata.height, video.metadata.width) == (12, 20, 30)
    assert video.metadata.duration == 3
    frames = video.frames_at([0, 0.25, 0.3, 2.75, 3.0, 2.5])
    assert numbers(frames.pixels) == [0, 1, 1, 11, 11, 10]
    assert frames.timestamps == [0, 0.25, 0.25, 2.75, 2.75, 2.5]
    assert frames.pixels.dtype == torch.uint8
    assert video.frames_at([1], size=(10, 10)).pixels.shape == (1, 3, 10, 10)
    assert numbers(video.frames_between(1, 2).pixels) == [4, 5, 6, 7]
    near = video.frames_at([0.1, 0.2], nearest_key=True)
    assert (numbers(near.pixels), near.timestamps) == ([0, 1], [0, 0.25])


def test_patterns(folder, numbers):
    assert numbers(open_video(f"{folder}/frame?.png", image_fps=1).frames_at([9.5]).pixels) == [9]
    assert open_video(f"file://{folder}/frame1*.png", image_fps=1).metadata.num_frames == 3
    with pytest.raises(VideoError, match=r"\*\.jpg': it holds no images among 0 files\. Name a folder or a pattern"):
        open_video(f"{folder}/*.jpg", image_fps=1)
    with pytest.raises(VideoError, match=r"\*\.txt': it holds no images among 1 files"):
        open_video(f"{folder}/*.txt", image_fps=1)


def test_the_rate_is_needed_and_checked(folder):
    with pytest.raises(VideoError, match=r"it is a folder, not a file\. Give .*or `image_fps` to play the folder's im"):
        open_video(folder)
    with pytest.raises(ValueError, match=r"`image_fps` must be above 0, got 0"):
        open_video(folder, image_fps=0)


def test_a_rate_does_not_change_a_video_file(clip):
    assert open_video(clip, image_fps=3).metadata.fps == pytest.approx(5)


def test_images_that_do_not_fit(folder):
    Image.new("RGB", (31, 20)).save(folder / "frame5.png")
    (folder / "frame7.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "frame8.png").write_bytes((folder / "frame9.png").read_bytes()[:60])
    video = open_video(folder, image_fps=1)
    assert len(video.frames_at([4])) == 1
    with pytest.raises(VideoError, match=r"the image 'frame5\.png' has the size \(20, 31\), the first one \(20, 30\)"):
        video.frames_at([5])
    with pytest.raises(VideoError, match=r"frame7\.png': it is not an image"):
        video.frames_at([7])
    with pytest.raises(VideoError, match=r"frame8\.png'"):
        video.frames_at([8])


def test_turned_images_are_upright(tmp_path):
    image = Image.new("RGB", (30, 20))
    image.paste((255, 255, 255), (0, 0, 15, 10))  # bright top left
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    image.save(tmp_path / "a.jpg", exif=exif)
    video = open_video(tmp_path, image_fps=1)
    assert (video.metadata.height, video.metadata.width) == (30, 20)
    shown = video.frames_at([0]).pixels[0, 0].int()
    assert shown[3, -3] > 200
    assert shown[3, 3] < 50


def png(width, height, content):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">II", width, height) + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def test_a_huge_image_is_refused_by_its_header_alone(folder):
    """Whoever unpacked it would find that there is nothing, and say so."""
    (folder / "frame0.png").write_bytes(png(13_000, 13_000, b"nothing"))
    with pytest.raises(VideoError, match=r"it has 169000000 pixels per frame, allowed are 67108864"):
        open_video(folder, image_fps=1)


def test_a_huge_image_in_place_of_a_video_is_refused_by_its_header_alone(tmp_path, backend):
    (tmp_path / "huge.mp4").write_bytes(png(13_000, 13_000, b"nothing"))
    with pytest.raises(VideoError, match=r"huge\.mp4': it has 169000000 pixels per frame, allowed are 67108864"):
        open_video(tmp_path / "huge.mp4", backend=backend)
    (tmp_path / "huge.mp4").write_bytes(png(60_000, 60_000, b"nothing"))
    with pytest.raises(VideoError, match=r"huge\.mp4': it is an image that cannot be read \(.*3600000000 pixels"):
        open_video(tmp_path / "huge.mp4", backend=backend)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif"])
def test_one_image_is_a_video_of_one_frame(tmp_path, backend, ending):
    Image.new("RGB", (30, 20), (51, 51, 51)).save(tmp_path / f"one.{ending}")
    frames = open_video(tmp_path / f"one.{ending}", backend=backend).frames_at([0])
    assert frames.pixels.shape == (1, 3, 20, 30)
    assert (frames.pixels.int() - 51).abs().max() <= 2


def test_of_an_animation_only_the_first_picture_is_unpacked(tmp_path):
    """A small file may unpack to a thousand large ones; whoever unpacked this one's second would find it damaged."""
    Image.new("L", (30, 20), 51).save(tmp_path / "one.gif")
    content = (tmp_path / "one.gif").read_bytes()
    picture = content[content.index(b",") : -1]
    (tmp_path / "one.gif").write_bytes(content[:-1] + picture[:10] + b"\xff" * 10 + b";")
    frames = open_video(tmp_path, image_fps=1).frames_at([0])
    assert frames.pixels.shape == (1, 3, 20, 30)
    assert (frames.pixels == 51).all()


def test_a_name_does_not_choose_another_reader(folder):
    """Pillow would take PostScript, TIFF and forty others for what they are, whatever their name."""
    Image.new("RGB", (30, 20)).save(folder / "frame0.png", format="TIFF")
    with pytest.raises(VideoError, match=r"frame0\.png': it is not an image"):
        open_video(folder, image_fps=1)


def test_links_out_of_the_roots_are_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (30, 20)).save(outside)
    (folder / "frame3.png").unlink()
    (folder / "frame3.png").symlink_to(outside)
    with pytest.raises(VideoError, match=r"frame3\.png': it is outside of the roots"):
        open_video(folder, image_fps=1, policy=VideoPolicy(roots=(str(folder),)))


def test_no_folder_outside_of_the_roots_is_listed(folder, tmp_path_factory):
    inside = tmp_path_factory.mktemp("inside")
    policy = VideoPolicy(roots=(str(inside),))
    (inside / "link").symlink_to(folder)
    for uri in (
        folder,
        f"{folder}/*.txt",
        f"file://{folder}",
        f"{inside}/../{folder.name}/*.none",
        f"{inside}/link/*",
        "/*",
    ):
        with pytest.raises(VideoError, match=r"Refused to read .*: it is outside of the roots"):
            open_video(uri, image_fps=1, policy=policy)
    with pytest.raises(VideoError, match=r"the scheme 'file' is not allowed"):
        open_video(f"{folder}/*.none", image_fps=1, policy=VideoPolicy(schemes=("https",)))


def test_through_the_cache(folder, numbers):
    cache = FrameCache(10**6, opener=lambda uri: open_video(uri, image_fps=2))
    for _ in range(2):
        assert numbers(cache.frames_at(folder, [0, 1, 5.5]).pixels) == [0, 2, 11]
    assert (cache.hits, cache.misses) == (3, 3)
