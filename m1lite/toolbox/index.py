"""Index once: what was computed from a video lies on disk by content, for all agents, episodes, processes and runs.

An entry is named by the video's content, the model that made it and how the video was sampled. It is checked against
its digest whenever it is read; one that is cut, altered or of another name is made anew. What entries hold is decided
by those who make them (frame embeddings, captions, shots).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from m1lite.toolbox.contents import Contents, short_digest, write_whole

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
_FORM = "1"
"""Of the files; a change makes all entries anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an entry is made of a video."""

    kind: str
    """What it is, as one word: ``frames``, ``captions``."""
    maker: str
    """The model that makes it, with whatever changes what it gives; see ``backends/loading.py``."""
    sampling: Mapping[str, float | str] = field(default_factory=dict)
    """What of the video is looked at, by name."""

    @property
    def text(self) -> str:
        """All of it in one line; equal recipes have equal texts."""
        return json.dumps([_FORM, self.kind, self.maker, dict(self.sampling)], sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was computed from a video."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """By name, on the CPU."""
    texts: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Of memory that it takes, about."""
        return sum(tensor.nbytes for tensor in self.tensors.values()) + sum(4 * len(text) for text in self.texts)

    def __repr__(self) -> str:
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        return f"Entry(tensors={shapes}, texts={len(self.texts)})"


class VideoIndex:
    """Entries on disk, and the latest of them in memory. Safe for threads, and for processes that share the folder.

    Of several who ask for an entry that is not there, one makes it and the others wait. Where the folder cannot be
    written to, entries are made and kept in memory only, with a warning.

    Args:
        folder: made when the first entry is.
        max_bytes: of the entries kept in memory; those not asked for longest go first.

    Raises:
        ValueError: if ``max_bytes`` is below 0.
    """

    def __init__(self, folder: str | Path, *, max_bytes: int = 10**9) -> None:
        if max_bytes < 0:
            raise ValueError(f"`max_bytes` must be at least 0, got {max_bytes}.")
        self.folder = Path(folder)
        self.counts: Counter[str] = Counter()
        """How often entries were ``made``, ``read`` from disk and ``remembered``; ``refused`` ones were made anew."""
        self._max_bytes = max_bytes
        self._contents = Contents(self.folder / "contents")
        self._kept: OrderedDict[Path, Entry] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"VideoIndex({str(self.folder)!r}, {dict(self.counts)})"

    def entry(self, video: str, recipe: Recipe, make: Callable[[], Entry]) -> Entry:
        """Give an entry of a video; make it where it is not there or cannot be trusted.

        Args:
            video: path or URI. Ask the policy before: this reads the file whatever its place.
            recipe: names the entry together with the video's content.
            make: computes it; what it raises reaches the caller, and nothing is kept.

        Raises:
            VideoError: if the video cannot be read.
        """
        path = self.path(video, recipe)
        found = self._remembered(path)
        if found is not None:
            return found
        with _locked(path):
            found = self._remembered(path) or self._read(path, recipe)
            if found is None:
                found = make()
                self._count("made")
                self._write(path, recipe, found)
        self._remember(path, found)
        return found

    def path(self, video: str, recipe: Recipe) -> Path:
        """Tell where the entry of a video lies, there or not.

        Raises:
            VideoError: if the video cannot be read.
        """
        content = self._contents(video)
        name = f"{recipe.kind}-{short_digest(recipe.text.encode())}.safetensors"
        return self.folder / content[:2] / content / name

    def _read(self, path: Path, recipe: Recipe) -> Entry | None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._refuse(path, str(error))
            return None
        try:
            entry = unpack_entry(content, recipe)
        except ValueError as error:
            self._refuse(path, str(error))
            return None
        self._count("read")
        return entry

    def _write(self, path: Path, recipe: Recipe, entry: Entry) -> None:
        try:
            write_whole(path, pack_entry(entry, recipe))
        except OSError as error:
            logger.warning("The index entry %s cannot be written (%s); it is kept in memory only.", path, error)

    def _refuse(self, path: Path, reason: str) -> None:
        self._count("refused")
        logger.warning("The index entry %s is not used (%s); it is made anew.", path, reason)

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _remembered(self, path: Path) -> Entry | None:
        with self._lock:
            found = self._kept.get(path)
            if found is not None:
                self._kept.move_to_end(path)
                self.counts["remembered"] += 1
            return found

    def _remember(self, path: Path, entry: Entry) -> None:
        with self._lock:
            if path in self._kept or entry.num_bytes > self._max_bytes:
                return
            self._kept[path] = entry
            self._num_bytes += entry.num_bytes
            while self._num_bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._num_bytes -= oldest.num_bytes


def pack_entry(entry: Entry, recipe: Recipe) -> bytes:
    """Write an entry as a safetensors file that names its recipe and holds a digest of all of it."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in entry.tensors.items()}
    texts = json.dumps(entry.texts, ensure_ascii=False)
    # Written into the file's header, which any reader of the format shows.
    about = {"recipe": recipe.text, "texts": texts, "digest": _digest(tensors, recipe.text, texts)}
    return save(tensors, metadata=about)


def unpack_entry(content: bytes, recipe: Recipe) -> Entry:
    """Read an entry back.

    Args:
        content: of the file.
        recipe: that the entry must be of.

    Raises:
        ValueError: if the file is damaged or of another recipe; says which.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        about: dict[str, Any] = json.loads(content[8 : 8 + length])["__metadata__"]
        written, texts, digest = about["recipe"], about["texts"], about["digest"]
    # safetensors raises what its parser, torch or NumPy raise on a damaged header.
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"it is damaged: {type(error).__name__}: {error}") from error
    if digest != _digest(tensors, written, texts):
        raise ValueError("it is damaged: its content does not fit its digest")
    if written != recipe.text:
        raise ValueError(f"it is of the recipe {written}")
    return Entry(tensors=tensors, texts=tuple(json.loads(texts)))


def _digest(tensors: Mapping[str, Tensor], recipe: str, texts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    digest.update(json.dumps([recipe, texts]).encode())
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of an entry, against threads and processes; without one where the folder allows none."""
    lock = path.with_suffix(".lock")
    file = None
    with suppress(OSError):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)  # goes with the process that holds it, however that ends
    try:
        yield
    finally:
        if file is not None:
            file.close()
