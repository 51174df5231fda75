"""``python -m m1lite.toolbox.serve video=clip.mp4``: offer a toolbox on one video to an MCP client, over stdio.

A program like ``train.py``, so it knows the configuration; the server itself is mcp_server.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from m1lite.configuration import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def serve(config: DictConfig) -> None:
    """Serve until the client closes the connection."""
    # Standard output belongs to the protocol; what a library prints while models load would be read as a message.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            from hydra.utils import instantiate

            from m1lite.toolbox.mcp_server import make_server, run_stdio
            from m1lite.video.base import VideoError
        except ModuleNotFoundError as missing:
            if missing.name != "mcp":
                raise
            print(missing, file=sys.stderr)
            sys.exit(2)
        try:
            server = make_server(instantiate(config.toolbox), str(config.video), max_side=config.max_side)
        except (VideoError, ValueError) as error:
            print(error, file=sys.stderr)
            sys.exit(2)
    # What a tool prints goes to standard error while the server runs, if it is not held back until after.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    run_stdio(server)


main = entry(serve, "serve", texts=("video",))

if __name__ == "__main__":
    main()
