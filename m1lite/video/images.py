"""Play a folder or a pattern of images as a video: one image after the other, at a rate. Only those asked are read."""

from __future__ import annotations

import re
import warnings
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from m1lite.video.base import Size, VideoMetadata, empty_frames, resized, undecodable, unreadable
from m1lite.video.policy import file_path

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from m1lite.video.policy import VideoPolicy

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_GIF = (b"GIF87a", b"GIF89a")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", *_GIF)


def names_images(uri: str) -> bool:
    """Tell whether a path is a folder or a pattern.

    Example:
        >>> names_images("frames/*.png"), names_images("https://host/a.mp4?x=[1]"), names_images("no-such.mp4")
        (True, False, False)
    """
    if "://" in uri and not uri.startswith("file://"):
        return False
    path = file_path(uri)
    return Path(path).is_dir() or (any(sign in path for sign in "*?[") and not Path(path).exists())


def find_images(uri: str, fps: float, policy: VideoPolicy) -> list[Path]:
    """List the images of a folder or a pattern in the order of the numbers in their names.

    Raises:
        ValueError: if ``fps`` is not above 0.
        VideoError: if there are none, or one may not be read.
    """
    if not 0 < fps < float("inf"):
        raise ValueError(f"`image_fps` must be above 0, got {fps}.")
    path = file_path(uri)
    # Before any folder is listed: the part of the pattern that is a plain path, such as that of `frames/../../*`.
    plain = Path(path) if Path(path).is_dir() else Path(re.split(r"[*?[]", path)[0] + "*").parent
    policy.local_path(str(plain))
    found = [Path(name) for name in (glob(f"{glob_escape(path)}/*") if Path(path).is_dir() else glob(path))]
    files = sorted((one for one in found if one.suffix.lower() in SUFFIXES), key=lambda one: natural_order(str(one)))
    if not files:
        remedy = f"Name a folder or a pattern of {', '.join(SUFFIXES)} files."
        raise unreadable(uri, f"it holds no images among {len(found)} files", remedy)
    policy.check_frames(uri, len(files))
    resolved = [policy.local_path(str(file)) for file in files]
    policy.check_bytes(uri, sum(file.stat().st_size for file in resolved if file is not None))
    return [file for file in resolved if file is not None]


def natural_order(name: str) -> list[tuple[int, str]]:
    """Make a key that sorts ``a10`` after ``a9``.

    Example:
        >>> sorted(["a10.png", "a9.png", "a1.png"], key=natural_order)
        ['a1.png', 'a9.png', 'a10.png']
    """
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def glob_escape(path: str) -> str:
    """Keep signs in a folder's name from being read as a pattern."""
    return re.sub(r"([*?[])", r"[\1]", path)


class ImageDecoder:
    """Reads images, all of the size of the first; every one is a key frame.

    Args:
        files: in showing order.
        fps: images per second.

    Raises:
        VideoError: if the first image cannot be read.
    """

    def __init__(self, files: list[Path], fps: float) -> None:
        self._files = files
        self._fps = fps
        height, width = self._declared(files[0])
        count = len(files)
        self.metadata = VideoMetadata(duration=count / fps, fps=fps, num_frames=count, height=height, width=width)

    def frames_at(self, seconds: list[float], size: Size | None = None) -> tuple[Tensor, list[float]]:
        """Read the image shown at each second; see ``Decoder``."""
        full = (self.metadata.height, self.metadata.width)
        pixels = empty_frames(len(seconds), size or full)
        places = [min(int(second * self._fps), len(self._files) - 1) for second in seconds]
        for row, place in enumerate(places):
            file = self._files[place]
            # The size is compared before the pixels are unpacked: a small file may hold a huge image.
            if self._declared(file) != full:
                found = f"the image {file.name!r} has the size {self._declared(file)}, the first one {full}"
                raise unreadable(str(file.parent), found, "Give images of one size.")
            pixels[row] = resized(_decoded(file, seconds)[None], size)[0]
        return pixels, [place / self._fps for place in places]

    def frame_starts(self) -> NDArray[np.float64]:
        """Give the second at which each image is first shown."""
        return np.arange(len(self._files)) / self._fps

    def key_starts(self) -> NDArray[np.float64]:
        """Give the second at which each image is first shown."""
        return self.frame_starts()

    def key_frames_at(self, seconds: list[float], size: Size | None = None) -> tuple[Tensor, list[float]]:
        """Read images; see ``Decoder``."""
        return self.frames_at([second + 0.5 / self._fps for second in seconds], size)

    def _declared(self, file: Path) -> Size:
        """Read height and width from the header, as the image is shown."""
        try:
            return stated_size(file)
        except ValueError as error:
            raise unreadable(str(file), f"it is not an image ({error})", "Convert it, or take it away.") from error


def stated_size(file: Path | BinaryIO) -> Size:
    """Read height and width of an image from its header, as it is shown, without unpacking a pixel.

    Raises:
        ValueError: if it is no image of the allowed formats, or one of more than 179 million pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the policy says what is too large
            image = Image.open(file, formats=_FORMATS)
        # Without a note of its turn in the header, Pillow would unpack all of a PNG in search of one.
        noted = image.format != "PNG" or "exif" in image.info
        turned = noted and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        size = (image.width, image.height) if turned else (image.height, image.width)
        if isinstance(file, Path):
            image.close()
        return size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise ValueError(str(error)) from error


def is_still(head: bytes) -> bool:
    r"""Tell whether a file begins like an image.

    Example:
        >>> is_still(b"\x89PNG\r\n\x1a\n"), is_still(b"RIFF\0\0\0\0AVI ")
        (True, False)
    """
    return head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _decoded(file: Path, seconds: list[float]) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image

    try:
        with file.open("rb") as content:
            if content.read(6) in _GIF:
                return _first_of_gif(file)
        image: Tensor = decode_image(str(file), ImageReadMode.RGB, apply_exif_orientation=True)
    except (RuntimeError, OSError, ValueError, SyntaxError) as error:
        raise undecodable(str(file), seconds, (str(error).strip() or type(error).__name__).splitlines()[0]) from error
    return image


def _first_of_gif(file: Path) -> Tensor:
    """Unpack the first picture alone: a small file may hold thousands."""
    from PIL import Image

    with Image.open(file, formats=("GIF",)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
