"""Meters: the idle share and the decoding of one step, of real frames, counters of earlier steps left out."""

import time
from types import SimpleNamespace

import pytest
import torch

from m1lite.callbacks.meters import MeterCallback
from m1lite.engines.base import BatchSampler, EngineGroup, Generation, Request, Sampling
from m1lite.video.cache import FrameCache
from m1lite.video.writer import write_video


def slowly(requests):
    time.sleep(0.05)
    return [Generation(token_ids=[1], logprobs=[0.0], finish_reason="stop", policy_version=0) for _ in requests]


@pytest.fixture
def step(tmp_path):
    """Run one step of a trainer: what a rollout does is passed in."""
    engines, frames = EngineGroup({"ada": BatchSampler(slowly)}), FrameCache(10**8)
    video = tmp_path / "clip.mp4"
    write_video(video, torch.zeros(8, 3, 32, 32, dtype=torch.uint8), fps=4)
    logged = {}
    module = SimpleNamespace(log_dict=lambda values, batch_size: logged.update(values))

    def run(meter, *, calls, seconds, rollout_s):
        meter.on_train_batch_start(None, module, None, 0)
        for _ in range(calls):
            engines.generate([Request(policy="ada", prompt_ids=[1], sampling=Sampling(), seed=0)])
        frames.frames_at(video, seconds)
        trainer = SimpleNamespace(callback_metrics={"perf/rollout_s": torch.tensor(rollout_s)})
        meter.on_train_batch_end(trainer, module, None, None, 0)
        return dict(logged)

    return engines, frames, run


def test_a_step_counts_its_own_replies_and_frames(step):
    engines, frames, run = step
    meter = MeterCallback(engines, frames)
    first = run(meter, calls=2, seconds=[0.0, 0.5, 1.0], rollout_s=1.0)
    assert first["video/frames"] == 3
    assert first["video/decode_s"] > 0
    assert 0.5 < first["perf/engine_idle_share"] <= 0.9
    second = run(meter, calls=0, seconds=[0.0, 0.5], rollout_s=1.0)
    assert second == {"perf/engine_idle_share": 1.0, "video/decode_s": 0.0, "video/frames": 0.0}, "the cache served"


def test_tools_without_pixels_decode_nothing(step):
    engines, _, run = step
    found = run(MeterCallback(engines, None), calls=1, seconds=[0.0], rollout_s=0.01)
    assert found == {"perf/engine_idle_share": 0.0, "video/decode_s": 0.0, "video/frames": 0.0}
