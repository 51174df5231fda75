"""Find a video file behind a path or URI, under a policy, and hand it to a decoder. Decoding is in the backends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urljoin, urlsplit

from m1lite.video._mp4 import SteadyTrack, claimed_samples, cut_off, steady_track
from m1lite.video.base import VideoError, unreadable
from m1lite.video.images import is_still, stated_size
from m1lite.video.policy import VideoPolicy, file_path, refused

# FFmpeg opens whatever these text files name, past every policy.
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"<smil", b"[playlist]", b"[Reference]", b"v=0", b"RTSP")
_HEAD_BYTES = 4096

Stamp = tuple[Any, ...]
"""Changes when a file does."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that exists, is not empty and may be read."""

    uri: str
    """As the caller wrote it."""
    path: Path | None
    """Without symbolic links; ``None`` if the file is not local."""
    size: int
    """Bytes."""
    track: SteadyTrack | None
    """Its table of frames, where it has a plain one."""
    policy: VideoPolicy
    """It holds for every part of the file that is read later."""

    def media(self) -> str | BinaryIO:
        """Give a decoder something of its own to open.

        Raises:
            VideoError: if a remote file cannot be opened.
        """
        # The prefix keeps FFmpeg from taking a colon in a name for one of its protocols.
        return f"file:{self.path}" if self.path is not None else _open_remote(self.uri, self.policy)


def find_source(uri: str, policy: VideoPolicy) -> Source:
    """Check that a video file may be read, exists and is whole.

    Raises:
        VideoError: if the policy forbids it, or it is missing, empty, truncated, text, or not plausible.
    """
    path = policy.local_path(uri)
    try:
        if path is not None:
            _check_file(uri, path)
            with path.open("rb") as file:
                return _inspected(uri, path, file, os.fstat(file.fileno()).st_size, policy)
        with _open_remote(uri, policy) as file:
            return _inspected(uri, None, file, file.seek(0, os.SEEK_END), policy)
    except OSError as error:
        raise unreadable(
            uri, f"it cannot be opened ({error.strerror or error})", "Check the path and rights."
        ) from error


def stamp(uri: str) -> Stamp:
    """Tell versions of a local file apart, by device, number, size and time of change; remote ones are all alike."""
    if "://" in uri and not uri.startswith("file://"):
        return ()
    try:
        found = os.stat(file_path(uri))
    except (OSError, ValueError):
        return ("missing",)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _inspected(uri: str, path: Path | None, file: BinaryIO, size: int, policy: VideoPolicy) -> Source:
    if size == 0:
        raise unreadable(uri, "the file is empty (0 bytes)")
    policy.check_bytes(uri, size)
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if is_text(head):
        raise unreadable(uri, "it is not a video file but text", "Give a file that holds the video itself.")
    if is_still(head):  # a decoder would unpack it to say how large it is
        _check_still(uri, file, policy)
    frames, needed = claimed_samples(file, size)
    policy.check_frames(uri, frames)
    if needed > size:
        raise unreadable(uri, f"its header claims {needed} bytes of frames or sound, but the file has only {size}")
    problem = cut_off(file, size)
    if problem is not None:
        raise unreadable(uri, f"the file is truncated ({problem})")
    return Source(uri, path, size, steady_track(file, size), policy)


def is_text(head: bytes) -> bool:
    r"""Tell whether a file begins like text or like a playlist.

    Example:
        >>> is_text(b"#EXTM3U\n\x00"), is_text(b"file 'a.mp4'\n"), is_text(b"\0\0\0\x20ftypisom")
        (True, True, False)
    """
    bare = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if bare.lower().startswith(tuple(mark.lower() for mark in _PLAYLISTS)):
        return True
    return not any(byte < 9 or 13 < byte < 32 or byte > 126 for byte in head[:512])


def _check_still(uri: str, file: BinaryIO, policy: VideoPolicy) -> None:
    file.seek(0)
    try:
        height, width = stated_size(file)
    except ValueError as error:
        raise unreadable(uri, f"it is an image that cannot be read ({error})") from error
    policy.check_pixels(uri, height * width)


def _check_file(uri: str, path: Path) -> None:
    if not path.exists():
        raise unreadable(uri, "the file does not exist", "Check the path, or fetch the data first.")
    if path.is_dir():
        remedy = "Give the path of one video file, or `image_fps` to play the folder's images."
        raise unreadable(uri, "it is a folder, not a file", remedy)
    if not path.is_file():
        raise unreadable(uri, "it is not a regular file", "Give the path of one video file.")


def _open_remote(uri: str, policy: VideoPolicy) -> BinaryIO:
    import fsspec

    over_http = uri.split("://", 1)[0].lower() in ("http", "https")
    options = {"get_client": partial(_http_client, policy.schemes)} if over_http else {}
    try:
        return cast(BinaryIO, fsspec.open(uri, "rb", **options).open())
    # Every file system has its own errors.
    except Exception as error:
        redirect = _cause(error, RedirectError)
        if redirect is not None:
            raise refused(uri, str(redirect), "Add it to `schemes`, or give the address that it leads to.") from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _unopened(uri, reason) from error


class RedirectError(OSError):
    """A server that sends its client to where the policy forbids to go."""


async def _http_client(schemes: tuple[str, ...], **options: Any) -> Any:
    """Make a client that follows redirects under the policy too."""
    import aiohttp

    async def check(session: Any, context: Any, request: aiohttp.TraceRequestRedirectParams) -> None:
        target = urljoin(str(request.url), request.response.headers.get("Location", ""))
        scheme = urlsplit(target).scheme.lower()
        if scheme not in schemes:
            raise RedirectError(f"it redirects to the scheme {scheme!r} (allowed: {', '.join(schemes)})")

    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(check)
    return aiohttp.ClientSession(trace_configs=[tracing], **options)


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _unopened(uri: str, reason: str) -> VideoError:
    return unreadable(uri, f"it cannot be opened ({reason})", "Check the address, the network and the rights.")
