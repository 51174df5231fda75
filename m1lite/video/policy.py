"""Which videos may be opened, and how large they may be. Opening them is in video/sources.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from m1lite.video.base import VideoError, VideoMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPolicy:
    """Limits that are enforced wherever a video is opened.

    The limits on size are generous for real videos and far below what a forged header can claim.
    """

    roots: tuple[str, ...] | None = None
    """Folders that local files must lie in after all symbolic links; ``None`` allows every folder."""
    schemes: tuple[str, ...] = ("file", "http", "https")
    """Schemes of URIs that may be opened; a plain path counts as ``file``."""
    max_bytes: int = 256 * 10**9
    """Of the file."""
    max_frames: int = 20_000_000
    """In the file, as its header or its packets say; 92 hours at 60 frames per second."""
    max_seconds: float = 7 * 24 * 3600.0
    """From the first frame to the end of the last."""
    max_pixels: int = 2**26
    """In one frame, height times width; 8K has half as many."""
    max_decoded_bytes: int = 4 * 2**30
    """Of the frames that one call gives."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_frames", "max_seconds", "max_pixels", "max_decoded_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}.")

    def local_path(self, uri: str) -> Path | None:
        """Check where a video is.

        Args:
            uri: a path or a URI.

        Returns:
            The real path of a local file, without symbolic links; ``None`` for any other allowed scheme.

        Raises:
            VideoError: if the scheme is not allowed, or the file lies outside the roots.
        """
        if "\0" in uri:
            raise refused(uri, "its name holds a zero byte", "Give a path or a URI.")
        scheme = urlsplit(uri).scheme.lower() if "://" in uri else "file"
        if "::" in uri.split("/", 1)[0]:
            raise refused(uri, "it chains several URIs", "Give the URI of one file.")
        if scheme not in self.schemes:
            allowed = ", ".join(self.schemes) or "none"
            raise refused(uri, f"the scheme {scheme!r} is not allowed (allowed: {allowed})", "Add it to `schemes`.")
        if scheme != "file":
            return None
        path = Path(file_path(uri)).resolve()
        if self.roots is not None and not any(path.is_relative_to(Path(root).resolve()) for root in self.roots):
            raise refused(uri, f"it is outside of the roots {list(self.roots)}", "Move it there, or add its folder.")
        return path

    def check_bytes(self, uri: str, num_bytes: int) -> None:
        """Raise ``VideoError`` if the file is too large."""
        self._check(uri, "bytes", num_bytes, self.max_bytes, "max_bytes")

    def check_frames(self, uri: str, num_frames: int) -> None:
        """Raise ``VideoError`` if the file says that it holds too many frames."""
        self._check(uri, "frames", num_frames, self.max_frames, "max_frames")

    def check_metadata(self, uri: str, found: VideoMetadata) -> None:
        """Raise ``VideoError`` if there are too many frames, seconds or pixels."""
        self.check_frames(uri, found.num_frames)
        self._check(uri, "seconds", found.duration, self.max_seconds, "max_seconds")
        self.check_pixels(uri, found.height * found.width)

    def check_pixels(self, uri: str, num_pixels: int) -> None:
        """Raise ``VideoError`` if a frame has too many pixels."""
        self._check(uri, "pixels per frame", num_pixels, self.max_pixels, "max_pixels")

    def check_decoded(self, uri: str, num_bytes: int) -> None:
        """Raise ``VideoError`` if one call would give too much."""
        if num_bytes > self.max_decoded_bytes:
            raise refused(
                uri,
                f"the frames asked for take {num_bytes} bytes, allowed are {self.max_decoded_bytes}",
                "Ask for fewer or smaller frames, or raise `max_decoded_bytes`.",
            )

    def _check(self, uri: str, what: str, found: float, allowed: float, name: str) -> None:
        if not found <= allowed:  # NaN is refused too
            raise refused(uri, f"it has {found:.12g} {what}, allowed are {allowed:.12g}", f"Raise `{name}` if need be.")


def file_path(uri: str) -> str:
    """Give the path of a ``file://`` URI; a plain path stays as it is.

    Example:
        >>> file_path("file:///videos/a%20b.mp4")
        '/videos/a b.mp4'
    """
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise refused(uri, f"the host {parts.netloc!r} is another machine", "Write file:/// and an absolute path.")
    # A '?' or '#' belongs to the name of a file.
    return unquote(uri.split("://", 1)[1].removeprefix(parts.netloc))


def refused(uri: str, found: str, remedy: str) -> VideoError:
    """Make the error for a video that may not be opened."""
    shown = uri if len(uri) <= 500 else f"{uri[:500]}…"
    return VideoError(f"Refused to read the video {shown!r}: {found}. {remedy}")
