import multiprocessing
import os
import threading
from functools import partial

import numpy as np
import pytest
import torch

from m1lite.video.cache import FrameCache
from m1lite.video.reader import VideoError, VideoPolicy, open_video
from m1lite.video.writer import write_video

FRAME = 3 * 32 * 48  # bytes


def test_cache_gives_what_the_reader_gives(clip, backend):
    cache, reader = FrameCache(10**6, opener=partial(open_video, backend=backend)), open_video(clip, backend=backend)
    for seconds in ([0, 1, 2], [1, 0.3, 1], [], [2, 2]):
        for size in (None, (8, 12)):
            ours, expected = cache.frames_at(clip, seconds, size), reader.frames_at(seconds, size=size)
            assert torch.equal(ours.pixels, expected.pixels)
            assert ours.timestamps == expected.timestamps
    assert cache.metadata(clip) == reader.metadata


def test_cache_counts_hits(clip, backend):
    cache = FrameCache(10**6, opener=partial(open_video, backend=backend))
    cache.frames_at(clip, [0, 1, 2])
    assert (cache.hits, cache.misses, cache.num_bytes) == (0, 3, 3 * FRAME)
    cache.frames_at(clip, [1, 2, 0.5, 0.5])
    assert (cache.hits, cache.misses, cache.num_bytes) == (3, 4, 4 * FRAME)
    assert repr(cache) == f"FrameCache(bytes={4 * FRAME}/1000000, frames=4, hits=3, misses=4)"


def test_cache_drops_the_least_recently_used(clip):
    cache = FrameCache(3 * FRAME + 10)
    cache.frames_at(clip, [0, 1, 2])
    cache.frames_at(clip, [0])  # 0 is fresh again, so 1 is the oldest
    cache.frames_at(clip, [0.5])
    assert cache.num_bytes == 3 * FRAME
    before = cache.misses
    cache.frames_at(clip, [0, 2, 0.5])
    assert cache.misses == before
    cache.frames_at(clip, [1])
    assert cache.misses == before + 1


def test_cache_stays_within_its_limit(clip, numbers):
    for limit in (0, FRAME - 1, FRAME, 5 * FRAME):
        cache = FrameCache(limit)
        for _ in range(2):
            assert numbers(cache.frames_at(clip, [i / 5 for i in range(12)]).pixels) == list(range(12))
            assert cache.num_bytes <= limit


def test_cached_frames_do_not_keep_their_batch(clip):
    cache = FrameCache(FRAME)
    cache.frames_at(clip, [i / 5 for i in range(12)])
    ((pixels, _),) = cache._own.frames.values()
    assert pixels.untyped_storage().nbytes() == FRAME


def test_cached_frames_are_not_the_callers(clip):
    cache = FrameCache(10**6)
    first = cache.frames_at(clip, [1]).pixels.clone()
    cache.frames_at(clip, [1]).pixels.zero_()
    assert torch.equal(cache.frames_at(clip, [1]).pixels, first)


@pytest.mark.ffmpeg
def test_cache_closes_files(tmp_path, ramp):
    for index in range(5):
        write_video(tmp_path / f"{index}.mp4", ramp, fps=5)

    def open_files():
        here = "/proc/self/fd"
        links = [os.path.join(here, name) for name in os.listdir(here)]
        return sum(str(tmp_path) in os.readlink(link) for link in links if os.path.islink(link))

    cache = FrameCache(10**6, max_open=2, opener=partial(open_video, backend="torchcodec"))
    for index in range(5):
        cache.frames_at(tmp_path / f"{index}.mp4", [0])
    assert open_files() == 2


def test_cache_does_not_remember_a_failure(tmp_path, ramp):
    cache, path = FrameCache(10**6), tmp_path / "late.mp4"
    with pytest.raises(VideoError, match="does not exist"):
        cache.frames_at(path, [0])
    write_video(path, ramp, fps=5)
    assert len(cache.frames_at(path, [0])) == 1


def test_cache_serves_threads(tmp_path, ramp, numbers, backend):
    paths = [tmp_path / f"{index}.mp4" for index in range(3)]
    for path in paths:
        write_video(path, ramp, fps=5)
    cache, problems = FrameCache(6 * FRAME, max_open=2, opener=partial(open_video, backend=backend)), []

    def work(seed):
        picks = np.random.default_rng(seed)
        for _ in range(15):
            wanted = picks.integers(0, 12, size=4).tolist()
            seen = numbers(cache.frames_at(paths[picks.integers(3)], [index / 5 for index in wanted]).pixels)
            if seen != wanted or cache.num_bytes > 6 * FRAME:
                problems.append((wanted, seen, cache.num_bytes))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert cache.hits + cache.misses >= 4 * 15  # repeated seconds of one call count once as a miss


def _child(cache, path, results):
    start = (cache.num_bytes, len(cache._state.videos), cache._state.lock.locked())
    pixels = cache.frames_at(path, [0, 1, 2]).pixels
    results.put((start, (pixels.float().mean((1, 2, 3)) / 20).round().int().tolist(), cache.misses))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_cache_starts_empty_after_a_fork(clip, backend):
    """Also while a thread of the parent holds the lock, which nobody in the child would ever release."""
    cache = FrameCache(10**6, opener=partial(open_video, backend=backend))
    cache.frames_at(clip, [0, 1])
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with cache._state.lock:
        child = context.Process(target=_child, args=(cache, clip, results))
        child.start()
    child.join(60)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert results.get() == ((0, 0, False), [0, 5, 10], 3)
    assert (cache.hits, cache.misses) == (0, 2)


def test_cache_limits_name_the_value():
    with pytest.raises(ValueError, match="`max_bytes` must be at least 0, got -1"):
        FrameCache(-1)
    with pytest.raises(ValueError, match="`max_open` must be at least 1, got 0"):
        FrameCache(10, max_open=0)


def test_cache_sees_that_a_file_changed(clip, ramp, numbers, backend):
    cache = FrameCache(10**6, opener=partial(open_video, backend=backend))
    assert numbers(cache.frames_at(clip, [0, 1]).pixels) == [0, 5]
    write_video(clip, ramp.flip(0), fps=5)
    assert numbers(cache.frames_at(clip, [0, 1]).pixels) == [11, 6]
    assert cache.metadata(clip).num_frames == 12
    assert (cache.hits, cache.misses) == (0, 4)
    clip.unlink()
    with pytest.raises(VideoError, match="does not exist"):
        cache.frames_at(clip, [0])


def test_cache_keeps_key_frames_and_sizes_apart(clip, backend):
    cache = FrameCache(10**6, opener=partial(open_video, backend=backend))
    exact = cache.frames_at(clip, [1])
    nearest = cache.frames_at(clip, [1], nearest_key=True)
    assert (exact.timestamps, nearest.timestamps) == (pytest.approx([1.0]), [0.0])
    small = cache.frames_at(clip, [1], [8, 12])  # a list, as from YAML
    assert small.pixels.shape == (1, 3, 8, 12)
    assert cache.misses == 3
    assert torch.equal(cache.frames_at(clip, [1], nearest_key=True).pixels, nearest.pixels)
    assert torch.equal(cache.frames_at(clip, [1], (8, 12)).pixels, small.pixels)
    assert cache.hits == 2


def test_cache_does_not_keep_a_frame_above_its_limit(clip, numbers):
    cache = FrameCache(FRAME - 1)
    for _ in range(2):
        assert numbers(cache.frames_at(clip, [0, 1]).pixels) == [0, 5]
    assert (cache.num_bytes, cache.hits) == (0, 0)


def test_cache_enforces_the_policy_of_its_opener(clip, tmp_path):
    cache = FrameCache(10**6, opener=partial(open_video, policy=VideoPolicy(roots=(str(tmp_path / "inside"),))))
    with pytest.raises(VideoError, match="outside of the roots"):
        cache.frames_at(clip, [0])
