"""What it saves that a frozen vision tower sees every frame once: its passes, and the time of an update.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE pytest benchmarks/bench_seeing.py

An agent on a tiny Qwen2.5-VL has answered questions in groups of ``ROLLOUTS``; every prompt shows frames of the
question's video, and each second turn one more. The update scores the old policy and the reference and goes twice over
the rows. It is made with kept features and without (a bound of 0 bytes), in turn; the time is the median over pairs of
their ratio of processor time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

from m1lite.agents.chat import Chat, pack
from m1lite.agents.media_chat import MediaChat
from m1lite.engines.features import VisionFeatures
from m1lite.engines.sight import sight_of
from m1lite.modules.bases import Base, stored_tiny_vision_base
from m1lite.modules.objective import Objective
from m1lite.modules.team import Team
from m1lite.modules.update import AgentUpdate
from m1lite.records import MediaRef, TokenBatch, Trajectory, Turn, TurnKind
from m1lite.video.cache import FrameCache
from m1lite.video.writer import write_video

QUESTIONS, ROLLOUTS, FRAMES, EPOCHS, ROUNDS = 2, 8, 8, 2, 5
TOKENS = (4, 4)
"""Of a frame: 112 x 112 pixels."""


def make_rollouts(base: Base, folder: Path) -> TokenBatch:
    """Lay out rollouts of random replies."""
    sight = sight_of(base.model.config)
    assert sight is not None
    chat = MediaChat(Chat(AutoProcessor.from_pretrained(base.name).tokenizer), sight)
    draw = torch.Generator().manual_seed(0)
    size = (TOKENS[0] * sight.factor, TOKENS[1] * sight.factor)
    rows = []
    for question in range(QUESTIONS):
        path = folder / f"{question}.mp4"
        write_video(path, torch.randint(0, 256, (40, 3, 112, 112), generator=draw, dtype=torch.uint8), fps=4)
        for rollout in range(ROLLOUTS):
            seconds = tuple(float(second) for second in range(FRAMES))
            shown = MediaRef(uri=str(path), timestamps=seconds, size=size)
            more = MediaRef(uri=str(path), timestamps=(0.5 + rollout % 3,), size=size)
            turns = []
            for prompt in (chat.open("You see.", [shown, "when ?"]), chat.extend([more, "and now ?"], closed=False)):
                reply = torch.randint(6, 200, (12,), generator=draw).tolist()
                turns.append(
                    Turn(
                        kind=TurnKind.PLAN,
                        round=0,
                        prompt_ids=prompt.ids,
                        reply_ids=reply,
                        logprobs=[-5.0] * 12,
                        policy_version=0,
                        seed=0,
                        text="",
                        media=prompt.media,
                        media_offsets=prompt.offsets,
                    )
                )
            rows.append(Trajectory(agent="ada", turns=turns))
    advantages = torch.randn(len(rows), generator=draw).tolist()
    return pack(rows, advantages, pad_id=0, temperature=1.0)


def update(team: Team, batch: TokenBatch) -> float:
    """Make the update's passes without its steps; return the seconds of processor time."""
    started = time.process_time()
    learning = AgentUpdate(
        team,
        "ada",
        batch,
        objective=Objective(beta=0.04),
        micro_batch_tokens=2048,
        backward=torch.Tensor.backward,
        minibatches=2,
    )
    learning.anchor()
    rows = list(range(len(batch.input_ids)))
    for _ in range(EPOCHS):
        for part in (rows[::2], rows[1::2]):
            learning.accumulate(part, anchored=True)
    return time.process_time() - started


@pytest.mark.timeout(1200)
def test_frames_go_through_the_tower_once(tmp_path: Path, figure: Callable[..., None]) -> None:
    torch.set_num_threads(1)
    base = stored_tiny_vision_base(str(tmp_path / "base"), "qwen2_5_vl", seed=0)
    batch = make_rollouts(base, tmp_path)
    frames = FrameCache(200_000_000)
    team = Team({"seer": base}, {"ada": "seer"}, frames=frames)
    distinct = len({one.media for row in batch.media for one in row})
    update(team, batch)  # decodes all frames, which neither side is to pay for
    ratios, passes = [], {}
    for _ in range(ROUNDS):
        seconds = {}
        for name, most in (("kept", 256 << 20), ("not kept", 0)):
            team.features["seer"] = VisionFeatures(base.model, frames, max_bytes=most)
            seconds[name] = update(team, batch)
            passes[name] = team.features["seer"].num_computed
        ratios.append(seconds["not kept"] / seconds["kept"])
    figure("vision_tower_passes_per_frame_and_update", passes["kept"] / distinct, "passes", "<=", 1.0)
    figure("vision_tower_passes_without_reuse", passes["not kept"] / distinct, "passes", ">=", 1.0)
    figure("update_time_without_reuse_over_with", statistics.median(ratios), "ratio", ">=", 1.0)
    assert passes["kept"] == distinct
