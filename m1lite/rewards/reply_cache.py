"""Replies of a judge on disk, keyed by content, safe for several processes and threads on one folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m1lite.rewards.prompts import Prompt

logger = logging.getLogger(__name__)


class ReplyCache:
    """One small JSON file for each question, named by the hash of model, options and prompt.

    A file is written under a temporary name and renamed, so nobody reads half of one. A file that is broken or holds
    another question counts as absent. Without room or permission to write, the run goes on without keeping replies and
    says so once.

    Args:
        folder: made when the first reply is kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._warned = False

    def get(self, identity: str, prompt: Prompt) -> str | None:
        """Return the reply to a prompt, ``None`` where there is none."""
        question = _question(identity, prompt)
        try:
            kept = json.loads(self._path(question).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(kept, dict) or kept.get("question") != question or not isinstance(kept.get("reply"), str):
            return None
        return str(kept["reply"])

    def put(self, identity: str, prompt: Prompt, text: str) -> None:
        """Keep the reply to a prompt."""
        question = _question(identity, prompt)
        path = self._path(question)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    json.dump({"question": question, "reply": text}, file)
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            if not self._warned:
                logger.warning(
                    "No reply can be kept in %s: %s. Give a `folder` that can be written.", self.folder, error
                )
            self._warned = True

    def _path(self, question: list[str]) -> Path:
        name = hashlib.sha256(json.dumps(question).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"


def _question(identity: str, prompt: Prompt) -> list[str]:
    return [identity, prompt.system, prompt.user]
