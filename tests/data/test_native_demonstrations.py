"""Demonstrations of looking: a clip is called for where the frames shown do not tell the answer, and it is learnt."""

from dataclasses import replace
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch.optim import AdamW

from m1lite.agents.chat import pack
from m1lite.agents.text_answers import TextAnswers
from m1lite.assembly import Member, seeing_agents
from m1lite.collaboration.loop import run
from m1lite.data.native_demonstrations import NativeDemonstrator
from m1lite.engines.base import Sampling
from m1lite.engines.features import VisionFeatures
from m1lite.engines.sight import MediaMismatchError
from m1lite.modules.bases import load_base
from m1lite.modules.sft import SftLoader, SftModule, collate_rows, turns_row
from m1lite.modules.team import Team
from m1lite.records import Status, Task
from m1lite.toolbox import Toolbox
from m1lite.toolbox.clips import clip_tool
from m1lite.video.budget import FrameBudget
from m1lite.video.cache import FrameCache

FRAMES = FrameCache(50_000_000)
TOOLBOX = Toolbox([clip_tool("video_clip", max_frames=16)], FRAMES)


@pytest.fixture
def base(vision_bases):
    return load_base(str(vision_bases["qwen2_5_vl"]))


def agents_of(base, max_frames, tools=("video_clip",)):
    unit = 28**2
    budget = FrameBudget(fps=1.0, max_frames=32, min_frame_pixels=unit, max_frame_pixels=unit, total_pixels=32 * unit)
    return seeing_agents(
        {"ada": Member(base="seer", tools=tools)}, {"seer": base}, TOOLBOX, answers=TextAnswers(think=False),
        view=replace(budget, max_frames=max_frames), tool_view=budget, sampling=Sampling(max_new_tokens=60),
        max_context=4000,
    )  # fmt: skip


def demonstrated(base, world, task, call_share=None, **options):
    """Every question of a task in the training videos, demonstrated."""
    teacher = NativeDemonstrator(agents_of(base, **options), world.telling_stretch, call_share=call_share)
    samples = [sample for sample in world.split("train") if sample.task is task]
    episodes = run(samples, teacher.players, teacher.sampler, TOOLBOX, episodes=1, seed=3)
    return episodes, teacher.demonstrations(episodes)


@pytest.mark.parametrize("task", [Task.GROUNDING, Task.CHOICE])
def test_few_frames_call_for_a_clip_that_tells(base, world, task):
    episodes, found = demonstrated(base, world, task, max_frames=4)
    assert len(found) == len(episodes) == 8
    for episode, demonstration in zip(episodes, found, strict=True):
        call, answer = demonstration.trajectory.turns
        (window,) = [one.args for one in demonstration.trajectory.calls]
        seconds = {int(second) for media in answer.media for second in media.timestamps}
        scene = world.spec.scene("train", int(episode.sample.video[-9:-4]))
        about = next(event for event in scene.events if event.object == episode.sample.question.split()[-1])
        # In the clip are the seconds before and after the visit begins, by which its beginning is known.
        assert {second for second in (about.start - 1, about.start) if second >= 0} <= seconds
        if task is Task.GROUNDING:
            assert {second for second in (about.end - 1, about.end) if second < scene.duration} <= seconds
        assert 0 <= window["start"] < window["end"] <= scene.duration
        assert demonstration.weights == [1.0, 1.0]
        assert episode.answer == episode.sample.answer
        assert len(call.media) == 4


def test_thoughts_are_about_the_frames_that_were_shown_last(base, world):
    def think(sample, seconds):
        return f"{sample.id} {len(seconds)}"

    teacher = NativeDemonstrator(agents_of(base, 4), world.telling_stretch, call_share=1.0, think=think)
    samples = [sample for sample in world.split("train") if sample.task is Task.GROUNDING][:2]
    episodes = run(samples, teacher.players, teacher.sampler, TOOLBOX, episodes=1, seed=3)
    for episode in episodes:
        call, answer = episode.trajectories["ada"].turns
        clip = len(answer.media)
        assert clip != 4
        assert call.text.startswith(f"<think>{episode.sample.id} 4</think><tool_call>")
        assert answer.text.startswith(f"<think>{episode.sample.id} {clip}</think><answer>")
        assert episode.answer == episode.sample.answer
        assert call.status is Status.OK


def test_a_rows_loss_is_the_teams_and_falls(base, world, vision_bases, tmp_path):
    _, found = demonstrated(base, world, Task.GROUNDING, max_frames=4)
    rows = [turns_row(one.trajectory.turns, one.weights, agent="ada") for one in found]
    assert all(len(row.media) == sum(len(turn.media) for turn in one.trajectory.turns)
               for row, one in zip(rows, found, strict=True))  # fmt: skip

    team = Team({"seer": load_base(str(vision_bases["qwen2_5_vl"]))}, {"ada": "seer"}, rank=4, frames=FRAMES)
    batch = pack([one.trajectory for one in found], [0.0] * len(found), pad_id=0, temperature=1.0)
    expected = -team.logprobs("ada", batch)[0].sum().item()

    base.model.requires_grad_(True)
    base.model.model.visual.requires_grad_(False)
    features = VisionFeatures(base.model, FRAMES)
    module = SftModule(base.model, optimizer=partial(AdamW, lr=3e-3), steps=12, features=features)
    whole = collate_rows(rows, pad_id=0)
    with torch.no_grad():
        total, weight, _ = module._losses(whole, answers=True)
    assert total.item() == pytest.approx(expected, rel=1e-4)
    assert weight.item() == batch.loss_mask.sum().item()

    trainer = pl.Trainer(accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, SftLoader(rows, 4, pad_id=0))
    with torch.no_grad():
        assert module._losses(whole)[0].item() < 0.6 * expected
    assert features.num_computed <= len({one.media for row in rows for one in row.media}), "the tower saw each once"
    with pytest.raises(MediaMismatchError, match="row 0 of 'the demonstrations'"):
        module._losses(collate_rows([replace(rows[0], media=rows[0].media[1:])], pad_id=0))


@pytest.mark.parametrize("max_frames", [4, 32])
def test_calls_of_a_share_do_not_depend_on_what_was_seen(base, world, max_frames):
    for share, turns in ((0.0, 1), (1.0, 2)):
        _, found = demonstrated(base, world, Task.GROUNDING, max_frames=max_frames, call_share=share)
        assert [len(one.trajectory.turns) for one in found] == [turns] * 8
        assert all(one.weights == [1.0] * turns for one in found), "an answer without a call is learnt too"
    _, half = demonstrated(base, world, Task.GROUNDING, max_frames=max_frames, call_share=0.5)
    assert {len(one.trajectory.turns) for one in half} == {1, 2}
    with pytest.raises(ValueError, match=r"`call_share` is 1\.5; a probability"):
        NativeDemonstrator([], world.telling_stretch, call_share=1.5)
