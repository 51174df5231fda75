import os

import pytest

from m1lite.video.base import VideoError
from m1lite.video.policy import VideoPolicy, file_path
from m1lite.video.reader import open_video
from m1lite.video.sources import find_source, is_text


@pytest.fixture
def fenced(clip, tmp_path):
    """A folder that may be read, with a copy of the clip; the clip itself lies outside of it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "good.mp4").write_bytes(clip.read_bytes())
    return inside, VideoPolicy(roots=(str(inside),))


def test_files_under_the_roots_open(fenced, monkeypatch):
    inside, policy = fenced
    for uri in (inside / "good.mp4", f"file://{inside}/good.mp4", f"{inside}/../inside/good.mp4"):
        assert open_video(uri, policy=policy).metadata.num_frames == 12
    monkeypatch.chdir(inside)
    assert open_video("good.mp4", policy=policy).metadata.num_frames == 12


def test_nothing_outside_of_the_roots_opens(fenced, clip):
    inside, policy = fenced
    (inside / "link.mp4").symlink_to(clip)
    (inside / "folder").symlink_to(clip.parent)
    neighbour = inside.with_name("inside_too")
    neighbour.mkdir()
    (neighbour / "a.mp4").write_bytes(clip.read_bytes())
    for uri in (
        clip,
        f"{inside}/../clip.mp4",
        f"file://{clip}",
        f"file://{inside}/../clip.mp4",
        f"file://{inside}/%2e%2e/clip.mp4",
        f"FILE://{clip}",
        inside / "link.mp4",
        inside / "folder" / "clip.mp4",
        neighbour / "a.mp4",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/environ",
    ):
        with pytest.raises(
            VideoError, match=r"Refused to read the video .*: it is outside of the roots \['.*inside'\]"
        ):
            open_video(uri, policy=policy)


def test_a_link_that_is_moved_after_it_was_looked_at_leads_nowhere(fenced, clip):
    inside, policy = fenced
    (inside / "link.mp4").symlink_to(inside / "good.mp4")
    source = find_source(str(inside / "link.mp4"), policy)
    (inside / "link.mp4").unlink()
    (inside / "link.mp4").symlink_to(clip)
    assert source.media() == f"file:{inside.resolve()}/good.mp4"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("ftp://host/a.mp4", r"the scheme 'ftp' is not allowed \(allowed: file, http, https\)"),
        ("concat://a.mp4", r"the scheme 'concat' is not allowed"),
        ("gopher://127.0.0.1:25/", r"the scheme 'gopher' is not allowed"),
        ("simplecache::https://host/a.mp4", r"it chains several URIs|scheme 'simplecache::https' is not allowed"),
        ("file://other/etc/passwd", r"the host 'other' is another machine"),
        ("a\0.mp4", r"its name holds a zero byte"),
        ("concat:/etc/passwd|/etc/hosts", r"the file does not exist"),
        ("subfile,,start,0,end,9,,:/etc/passwd", r"the file does not exist"),
        ("/dev/zero", r"it is not a regular file"),
    ],
)
def test_other_ways_in(uri, said):
    with pytest.raises(VideoError, match=said):
        open_video(uri)


def test_schemes_are_a_choice(clip):
    with pytest.raises(VideoError, match=r"the scheme 'https' is not allowed \(allowed: file\)\. Add it to `schemes`"):
        open_video("https://host/a.mp4", policy=VideoPolicy(schemes=("file",)))
    with pytest.raises(VideoError, match=r"the scheme 'file' is not allowed \(allowed: https\)"):
        open_video(clip, policy=VideoPolicy(schemes=("https",)))


def test_a_long_name_is_not_repeated_whole():
    with pytest.raises(VideoError) as caught:
        open_video("evil://" + "x" * 10**7)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "\ufeff#EXTM3U\n",
        "ffconcat version 1.0\nfile '/etc/passwd'\n",
        '<?xml version="1.0"?><MPD></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\n",
        "file 'clip.mp4'\n",
    ],
)
def test_playlists_are_not_followed(tmp_path, clip, backend, text):
    """FFmpeg would open what they name, whatever the ending of the file."""
    path = tmp_path / "innocent.mp4"
    path.write_bytes(text.encode() + (b"\0" * 64 if text.startswith("#EXTM3U") else b""))
    with pytest.raises(VideoError, match=r"innocent\.mp4': it is not a video file but text"):
        open_video(path, backend=backend)


def test_videos_are_not_text(clip):
    assert not is_text(clip.read_bytes()[:4096])


def test_names_with_signs_are_files(tmp_path, clip):
    for name in ("a:b.mp4", "100%41.mp4", "what?#now.mp4", "ä ö.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert open_video(tmp_path / name).metadata.num_frames == 12
    assert open_video(f"file://{tmp_path}/100%2541.mp4").metadata.num_frames == 12
    assert file_path("file://localhost/a%20b#c.mp4") == "/a b#c.mp4"


def test_relative_names_with_a_protocol_of_ffmpeg(tmp_path, clip, monkeypatch, backend):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipe:0.mp4").write_bytes(clip.read_bytes())
    assert open_video("pipe:0.mp4", backend=backend).metadata.num_frames == 12


def test_a_file_without_rights(tmp_path, clip):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    clip.chmod(0)
    with pytest.raises(VideoError, match=r"it cannot be opened \(Permission denied\)"):
        open_video(clip)


def test_limits_are_above_zero():
    with pytest.raises(ValueError, match="`max_pixels` must be above 0, got 0"):
        VideoPolicy(max_pixels=0)
