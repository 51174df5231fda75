"""Videos that are not local files: through fsspec, with requests for parts of the file."""

import multiprocessing
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from m1lite.video.base import VideoError
from m1lite.video.cache import FrameCache
from m1lite.video.policy import VideoPolicy
from m1lite.video.reader import open_video
from m1lite.video.sources import stamp


@pytest.fixture
def served(clip):
    """The clip's address, and the numbers of bytes that were asked for."""
    content, sent = clip.read_bytes(), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.reply(b"")

        def do_GET(self):
            first, last = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-")).groups()
            self.reply(content[int(first) : int(last) + 1 if last else None], int(first))

        def reply(self, part, first=0):
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if not self.path.endswith("clip.mp4"):
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            sent.append(len(part))
            ranged = self.command == "GET" and "Range" in self.headers
            self.send_response(206 if ranged else 200)
            self.send_header("Accept-Ranges", "bytes")
            length = len(part) if self.command == "GET" else len(content)
            self.send_header("Content-Length", str(length))
            if ranged:
                self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_http(served, clip, backend):
    address, _ = served
    here = open_video(clip, backend=backend)
    there = open_video(f"{address}/clip.mp4", backend=backend)
    assert there.metadata == here.metadata
    for nearest_key in (False, True):
        ours, theirs = (video.frames_at([2, 0.3], nearest_key=nearest_key) for video in (here, there))
        assert torch.equal(ours.pixels, theirs.pixels)


def _read_in_child(video, results):
    results.put((video.frames_at([1]).pixels.float().mean() / 20).round().item())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_makes_its_own_connection(served, backend):
    """The thread that the parent's connections live in does not come along."""
    address, _ = served
    video = open_video(f"{address}/clip.mp4", backend=backend)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(video, results))
    child.start()
    child.join(60)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert child.exitcode == 0
    assert results.get() == 5


def test_http_errors_name_the_address(served):
    address, _ = served
    with pytest.raises(VideoError, match=r"Cannot read the video 'http://127.*/gone': it cannot be opened \("):
        open_video(f"{address}/gone")
    with pytest.raises(VideoError, match=r"Cannot read the video 'http://127\.0\.0\.1:9/a\.mp4': it cannot be opened"):
        open_video("http://127.0.0.1:9/a.mp4")


@pytest.mark.parametrize("scheme", ["file", "ftp", "https", "gopher"])
def test_redirects_lead_only_where_the_policy_allows(served, clip, scheme):
    address, _ = served
    policy = VideoPolicy(schemes=("http",))
    with pytest.raises(
        VideoError, match=rf"Refused to read .*: it redirects to the scheme '{scheme}' \(allowed: http\)"
    ):
        open_video(f"{address}/to/{scheme}://{clip}", policy=policy)
    assert open_video(f"{address}/to/{address}/clip.mp4", policy=policy).metadata.num_frames == 12
    assert open_video(f"{address}/to//clip.mp4", policy=policy).metadata.num_frames == 12


def test_limits_hold_there_too(served):
    address, _ = served
    with pytest.raises(VideoError, match=r"it has \d+ bytes, allowed are 100"):
        open_video(f"{address}/clip.mp4", policy=VideoPolicy(max_bytes=100))


def test_file_systems_of_fsspec(clip, backend):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/videos/clip.mp4", clip.read_bytes())
    memory.pipe("/videos/empty.mp4", b"")
    policy = VideoPolicy(schemes=("memory",))
    video = open_video("memory://videos/clip.mp4", backend=backend, policy=policy)
    assert torch.equal(video.frames_at([1]).pixels, open_video(clip, backend=backend).frames_at([1]).pixels)
    with pytest.raises(VideoError, match=r"the file is empty \(0 bytes\)"):
        open_video("memory://videos/empty.mp4", backend=backend, policy=policy)
    with pytest.raises(VideoError, match=r"it cannot be opened \(.*gone"):
        open_video("memory://videos/gone.mp4", backend=backend, policy=policy)


def test_the_cache_takes_any_uri(served):
    address, sent = served
    cache = FrameCache(10**6)
    first = cache.frames_at(f"{address}/clip.mp4", [1])
    asked = len(sent)
    assert torch.equal(cache.frames_at(f"{address}/clip.mp4", [1]).pixels, first.pixels)
    assert (cache.hits, len(sent)) == (1, asked)


def test_stamps_tell_versions_apart(clip, tmp_path):
    before = stamp(str(clip))
    assert stamp(f"file://{clip}") == before
    clip.write_bytes(clip.read_bytes() + b"\0\0\0\x08free")
    assert stamp(str(clip)) != before
    assert stamp(str(tmp_path / "gone")) == ("missing",)
    assert stamp("https://host/a.mp4") == stamp("https://host/b.mp4") == ()
