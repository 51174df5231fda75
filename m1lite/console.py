"""What a person sees of a run: lines from rank 0, a progress bar on a terminal, and libraries that keep quiet."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress

_EXPECTED = (
    "Found .* module.* in eval mode",  # bases stay in eval mode on purpose
    "It is recommended to use `self.log",  # every rank trains a base of its own in the cold start
    "The number of training batches",  # tiny data
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own
    "Checkpoint directory .* exists and is not empty",  # resumed runs
    "The `.*dataloader` does not have many workers",  # loaders that only hand out records
)


def hush_libraries() -> None:
    """Silence what libraries print about themselves, and warnings about what is done on purpose here."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in ("lightning.pytorch", "lightning.fabric", "vllm", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in _EXPECTED:
        warnings.filterwarnings("ignore", message=f".*{message}")


@contextmanager
def progress(label: str, total: int, *, show: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a progress bar while the block runs, where somebody is watching.

    Args:
        label: what is going on.
        total: steps in all.
        show: False shows nothing; a pipe or a file never gets a bar.

    Yields:
        A function that is called with the number of steps just done.
    """
    if not (show and sys.stdout.isatty()):
        yield lambda steps: None
        return
    with Progress(transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda steps: bar.advance(task, steps)


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)
