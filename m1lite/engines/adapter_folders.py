"""Adapter versions as folders that another process reads: written whole or not at all, and removed when superseded.

vLLM's server takes an adapter from a path and from nowhere else, short of its development endpoints, which let whoever
reaches the port call any function of the workers and need this package installed beside the server. A folder on memory
(``/dev/shm``) costs about what the tensors cost; servers on other machines need one on a file system that they share.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_MEMORY = Path("/dev/shm")


class AdapterFolders:
    """Folders in PEFT's format below one directory; gone with this object or the process at the latest.

    Args:
        directory: made if missing; None makes a temporary one, on memory where the system has such a place.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        own = directory is None
        if directory is None:
            directory = tempfile.mkdtemp(prefix="m1lite-adapters-", dir=_MEMORY if _MEMORY.is_dir() else None)
        self.directory = Path(directory).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._written: set[Path] = set()
        self._clear = weakref.finalize(self, _remove_all, self._written, self.directory if own else None, os.getpid())

    def write(self, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
        """Write one version and return its folder, which appears when it is whole.

        Several processes may write the same version; ``name`` must then tell contents apart.

        Args:
            name: of the folder.
            tensors: under PEFT's state-dict names.
            config: of PEFT.
        """
        folder = self.directory / name
        fresh = self.directory / f".{name}.{os.getpid()}"
        fresh.mkdir(parents=True)
        try:
            whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(whole, fresh / "adapter_model.safetensors", metadata={"format": "pt"})
            (fresh / "adapter_config.json").write_text(spelled(config), encoding="utf-8")
            os.replace(fresh, folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        self._written.add(folder)
        return folder

    def remove(self, name: str) -> None:
        """Remove a version that this process wrote; one of another process stays."""
        folder = self.directory / name
        if folder in self._written:
            self._written.discard(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything that this process wrote."""
        self._clear()


def _remove_all(written: set[Path], directory: Path | None, pid: int) -> None:
    if os.getpid() != pid:  # a fork of the process that wrote them
        return
    for folder in [*written, *([] if directory is None else [directory])]:
        shutil.rmtree(folder, ignore_errors=True)


def spelled(config: Mapping[str, Any]) -> str:
    """Write a PEFT configuration as JSON: sets as sorted lists, enumerations as their values.

    Example:
        >>> spelled({"r": 8, "target_modules": {"v_proj", "q_proj"}})
        '{"r": 8, "target_modules": ["q_proj", "v_proj"]}'
    """
    return json.dumps(dict(config), sort_keys=True, default=lambda value: sorted(value, key=str))


def content_digest(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that differ when an adapter's names, bits or configuration do."""
    digest = hashlib.blake2b(spelled(config).encode(), digest_size=6)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
