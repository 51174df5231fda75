"""Names of contents: of files, folders, patterns and remote files."""

import os

import fsspec
import pytest

from m1lite.toolbox.contents import Contents, write_whole
from m1lite.video.base import VideoError


@pytest.fixture
def contents(tmp_path):
    return Contents(tmp_path / "names")


def test_a_folder_of_images_is_named_by_all_of_them(contents, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"one")
    (folder / "2.png").write_bytes(b"two")
    before = contents(str(folder))
    assert contents(str(folder / "*.png")) == before
    (folder / "2.png").write_bytes(b"TWO")
    changed = contents(str(folder))
    (folder / "2.png").rename(folder / "3.png")
    assert len({before, changed, contents(str(folder))}) == 3


def test_a_link_is_what_it_points_to(contents, tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert contents(str(tmp_path / "link")) == contents(str(tmp_path / "a"))


def test_a_name_is_remembered_between_runs_and_read_once(contents, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"a")
    name = contents(str(path))
    (memo,) = (tmp_path / "names").iterdir()
    assert memo.read_text() == name
    memo.write_text("f" * 32)
    assert contents(str(path)) == name
    assert Contents(tmp_path / "names")(str(path)) == "f" * 32  # read from there
    os.utime(path)
    assert Contents(tmp_path / "names")(str(path)) == name


def test_remote_files_are_named_by_address_and_version(tmp_path):
    system = fsspec.filesystem("memory")
    system.pipe("/clips/a.mp4", b"abc")
    name = Contents(tmp_path)("memory://clips/a.mp4")
    system.pipe("/clips/b.mp4", b"abc")
    assert Contents(tmp_path)("memory://clips/b.mp4") != name
    system.pipe("/clips/a.mp4", b"abcd")
    assert Contents(tmp_path)("memory://clips/a.mp4") != name
    with pytest.raises(VideoError, match=r"'memory://clips/c\.mp4'.*Check the address and the network"):
        Contents(tmp_path)("memory://clips/c.mp4")


def test_missing_files_are_named(contents, tmp_path):
    with pytest.raises(VideoError, match=r"none\.mp4.*the file does not exist"):
        contents(str(tmp_path / "none.mp4"))


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_whole(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
