"""The identity of a video's content: equal bytes have equal names, wherever the file lies and whenever it was touched.

A file is read through once; its name is remembered under its place, size and times of change, which any write alters.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from contextlib import suppress
from glob import glob
from pathlib import Path
from threading import Lock
from typing import Any

from m1lite.video.base import VideoError, unreadable
from m1lite.video.policy import file_path

_BYTES_AT_ONCE = 1 << 22
_NAME = re.compile(r"[0-9a-f]{32}")
# What file systems tell of the version of a remote file.
_VERSION_FIELDS = ("size", "ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


class Contents:
    """Names the contents of videos.

    Args:
        folder: where names are remembered between runs; made when the first one is.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._known: dict[str, str] = {}
        self._lock = Lock()

    def __call__(self, uri: str) -> str:
        """Name the content of a video that may be read; a policy is the caller's to ask before.

        Args:
            uri: a path or a URI; a folder or a pattern names all of its files. A remote file is named by its address
                and what its host says of its version, and taken not to change while this process runs.

        Returns:
            32 hexadecimal digits.

        Raises:
            VideoError: if the file cannot be read.
        """
        remote = "://" in uri and not uri.startswith("file://")
        try:
            state = uri if remote else _state(uri)
            with self._lock:
                known = self._known.get(state)
            known = known or (_remote_name(uri) if remote else self._local_name(uri, state))
        except (OSError, ValueError) as error:
            raise unreadable(uri, f"it cannot be opened ({error})", "Check the path and rights.") from error
        with self._lock:
            self._known[state] = known
        return known

    def _local_name(self, uri: str, state: str) -> str:
        memo = self._folder / f"{short_digest(state.encode())}.txt"
        try:
            found = memo.read_text("ascii")
        except (OSError, UnicodeDecodeError):
            found = ""
        if _NAME.fullmatch(found):
            return found
        name = _hash_files(uri)
        # A file that was written to while it was read has no name worth keeping.
        if _state(uri) == state:
            with suppress(OSError):  # a folder that cannot be written to costs reading the file again
                write_whole(memo, name.encode())
        return name


def short_digest(content: bytes) -> str:
    """Give 32 hexadecimal digits that stand for some bytes.

    Example:
        >>> short_digest(b"a")
        '27c35e6e9373877f29e562464e46497e'
    """
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file wholly or not at all, over one that is there.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _files(uri: str) -> list[Path]:
    path = Path(file_path(uri)).resolve()
    if path.is_dir():
        return sorted(one for one in path.iterdir() if one.is_file())
    return [path] if path.exists() else sorted(Path(one).resolve() for one in glob(file_path(uri)))


def _state(uri: str) -> str:
    """Spell the place, number, size and times of change of the files of a video."""
    files = _files(uri)
    if not files:
        raise FileNotFoundError("the file does not exist")
    found = [(str(one), one.stat()) for one in files]
    # The time of change of the inode too: copying tools put back the other one.
    stamps: list[Any] = [[n, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for n, s in found]
    return json.dumps(stamps)


def _hash_files(uri: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    files = _files(uri)
    for path in files:
        if len(files) > 1:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while piece := file.read(_BYTES_AT_ONCE):
                digest.update(piece)
    return digest.hexdigest()


def _remote_name(uri: str) -> str:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(uri)
        info = system.info(path)
    # Every file system has its own errors.
    except Exception as error:
        reason = f"it cannot be opened ({type(error).__name__}: {error})"
        raise VideoError(f"Cannot read the video {uri!r}: {reason}. Check the address and the network.") from error
    version = {field: str(info[field]) for field in _VERSION_FIELDS if info.get(field) is not None}
    return short_digest(json.dumps([uri, version], sort_keys=True).encode())
