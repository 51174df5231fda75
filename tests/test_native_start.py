"""Lessons of a team that sees: drills and demonstrations on drawn scenes, learnt with the vision tower."""

from functools import partial

import pytest
import torch

from m1lite.agents.text_answers import TextAnswers
from m1lite.assembly import Member, seeing_agents
from m1lite.base_training import Schedule
from m1lite.data.drawn import DrawnScenes
from m1lite.data.scenes import SceneSpec
from m1lite.engines.base import Sampling
from m1lite.modules.bases import load_base
from m1lite.modules.muon import MuonAdamW
from m1lite.native_start import NativeLessons, NativeStart
from m1lite.toolbox import Toolbox
from m1lite.toolbox.clips import clip_tool
from m1lite.video.budget import FrameBudget
from m1lite.video.cache import FrameCache

TOOLBOX = Toolbox([clip_tool("video_clip", max_frames=16)], FrameCache(0))
SCENES = DrawnScenes(
    SceneSpec(min_seconds=20, max_seconds=26, max_objects=4), ["grounding", "choice"], num_scenes=6, seed=2
)
OPTIMIZER = partial(MuonAdamW, lr=3e-3, adamw_lr=1e-2)


@pytest.fixture
def base(vision_bases):
    return load_base(str(vision_bases["qwen2_5_vl"]))


def team_of(base):
    unit = 28**2
    budget = FrameBudget(fps=1.0, max_frames=6, min_frame_pixels=unit, max_frame_pixels=unit, total_pixels=6 * unit)
    return seeing_agents(
        {"ada": Member(base="seer", tools=["video_clip"])}, {"seer": base}, TOOLBOX,
        answers=TextAnswers(think=False), view=budget, tool_view=budget, sampling=Sampling(max_new_tokens=60),
        max_context=4000,
    )  # fmt: skip


def start(lessons, **options):
    schedule = Schedule(seconds=3, num_validations=1, batch_size=4)
    return NativeStart(lessons, SCENES, optimizer=OPTIMIZER, schedule=schedule, **options)


def test_lessons_are_drills_and_demonstrations_of_scenes_of_their_own(base):
    lessons = NativeLessons(num_named=3, num_found=2, num_asked=4, num_demonstrations=5, call_share=0.5, seed=1)
    native = start(lessons, validation_scenes=2)
    rows, validation = native.rows(team_of(base), TOOLBOX)
    assert 3 + 2 + 4 + 5 >= len(rows) >= 3 + 2 + 4 + 3
    tokenizer = base.tokenizer

    def said(row, mask):
        return tokenizer.decode([token for token, part in zip(row.input_ids, mask, strict=True) if part])

    answered = [row for row in rows if any(row.answer_mask)]
    assert len(answered) < len(rows), "frames that are named are no answers"
    for row in [*answered, *validation]:
        assert said(row, row.answer_mask).startswith("<answer>")
    named = next(row for row in rows if not any(row.answer_mask) and "answer" not in tokenizer.decode(row.input_ids))
    frames = SCENES.look(named.media[0].media.uri, [one.media.timestamps[0] for one in named.media])
    seen = [" ".join(f"{one.object} {one.lane}" for one in frame) for frame in frames]
    assert [line.strip() for line in said(named, named.weights).splitlines()] == seen
    learnt, held = ({one.media.uri for row in part for one in row.media} for part in (rows, validation))
    assert held == native.held
    assert not learnt & held


def test_every_answer_follows_its_thoughts_where_thoughts_are_asked_for(base):
    lessons = NativeLessons(num_named=0, num_found=0, num_asked=2, num_demonstrations=4, call_share=1.0, think=True)
    rows, validation = start(lessons, validation_scenes=2).rows(team_of(base), TOOLBOX)
    for row in [*rows, *validation]:
        learnt = base.tokenizer.decode([token for token, part in zip(row.input_ids, row.weights, strict=True) if part])
        assert learnt.count("</think><") == learnt.count("<answer>") + learnt.count("<tool_call>") > 0


def test_the_tower_is_trained_too(base, tmp_path):
    native = start(NativeLessons(num_named=16, num_found=4, num_asked=4, num_demonstrations=4), validation_scenes=1)
    rows, validation = native.rows(team_of(base), TOOLBOX)
    before = {name: value.clone() for name, value in base.model.model.visual.named_parameters()}
    members = {"ada": "seer"}
    curves = native.train({"seer": base}, members, rows, validation[:2], tmp_path / "bases", seconds=2.0)
    assert curves["seer"], "validated"
    after = dict(base.model.model.visual.named_parameters())
    assert all(not torch.equal(after[name], value) for name, value in before.items()), "every weight of the tower"
    assert not any(value.requires_grad for value in base.model.parameters()), "frozen again"
    assert load_base(str(tmp_path / "bases" / "seer")).model.config.model_type == "qwen2_5_vl"


def test_scenes_must_be_left_on_both_sides(base):
    for count in (0, 6):
        with pytest.raises(ValueError, match=f"`validation_scenes` is {count}; it must be from 1 to below the 6 sce"):
            start(NativeLessons(), validation_scenes=count)
    with pytest.raises(ValueError, match="`samples` is empty"):
        NativeLessons().rows(team_of(base), [], SCENES, TOOLBOX)
