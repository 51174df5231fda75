"""Rows with frames through the team, against transformers that sees by itself: log-probs, gradients, reuse, faults."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoProcessor

from m1lite.agents.chat import Chat, pack
from m1lite.agents.media_chat import MediaChat
from m1lite.engines.features import StaleFeaturesError
from m1lite.engines.sight import MediaMismatchError, sight_of
from m1lite.modules.bases import load_base
from m1lite.modules.objective import Objective
from m1lite.modules.team import Team
from m1lite.modules.update import AgentUpdate
from m1lite.records import MediaRef, PlacedMedia, Trajectory, Turn, TurnKind
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels

TEMPERATURE = 0.8


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl"])
def directory(request, vision_bases):
    return vision_bases[request.param]


def make_team(directory, **options):
    team = Team(
        {"seer": load_base(str(directory))}, {"ada": "seer", "bea": "seer"}, rank=4, alpha=8,
        frames=FrameCache(10_000_000), **options,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for agent in team.agents:
            for parameter in team.adapter_parameters(agent).values():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return team


def make_batch(directory, clip, rollouts=3):
    """Rollouts of one question that look at different frames in their second turn, and one of another question."""
    base = load_base(str(directory), weights=False)
    sight = sight_of(base.model.config)
    chat = MediaChat(Chat(AutoProcessor.from_pretrained(directory).tokenizer), sight)
    generator = torch.Generator().manual_seed(4)

    def shown(*seconds, rows=1, columns=2):
        return MediaRef(uri=clip, timestamps=seconds, size=(rows * sight.factor, columns * sight.factor))

    def turn(prompt, count):
        reply = torch.randint(6, 200, (count,), generator=generator).tolist()
        return Turn(
            kind=TurnKind.PLAN, round=0, prompt_ids=prompt.ids, reply_ids=reply, logprobs=[-1.0] * count,
            policy_version=0, seed=0, text="", media=prompt.media, media_offsets=prompt.offsets,
        )  # fmt: skip

    rows = []
    for number in range(rollouts):
        first = chat.open("You see.", ["when red ? ", shown(0.5, 2.0, rows=2)])
        # Two of them look at other frames of the same size: the same ids, and yet not the same rows.
        second = chat.extend(["look ", shown(4.0 + number % 2)], closed=False)
        rows.append(Trajectory(agent="ada", turns=[turn(first, 3 + number), turn(second, 2)]))
    rows.append(Trajectory(agent="ada", turns=[turn(chat.open("You see.", ["no picture at all"]), 4)]))
    names = [f"q1/{number}" for number in range(rollouts)] + ["q2/0"]
    return pack(rows, [0.5, -1.0, 0.25, 1.0][: len(rows)], pad_id=0, temperature=TEMPERATURE, names=names), sight


def plain_logprobs(model, directory, sight, batch):
    """Every row by itself, the model seeing by itself: pixels through the processor, positions by the model."""
    processor = AutoProcessor.from_pretrained(directory).image_processor
    rows = []
    for row, media in enumerate(batch.media):
        length = int(batch.attention_mask[row].sum())
        ids = batch.input_ids[row : row + 1, :length]
        seen = {}
        if media:
            pictures = [media_pixels(FrameCache(0), one.media)[0] for one in media]
            seen = processor(pictures, do_resize=False, return_tensors="pt")
            seen = {**seen, "mm_token_type_ids": (ids == sight.image_id).int()}
        else:  # the model keeps the offset of the last picture that it saw
            seen = {"position_ids": torch.arange(length).expand(3, 1, -1)}
        logits = model(input_ids=ids, **seen).logits[0] / TEMPERATURE
        allowed = torch.zeros(logits.shape[-1]).index_fill(0, torch.tensor(sight.media_ids), -torch.inf)
        scores = (logits + allowed).log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0]
        rows.append(torch.nn.functional.pad(scores, (1, batch.input_ids.shape[1] - length)))
    return torch.where(batch.loss_mask, torch.stack(rows), 0.0)


@pytest.mark.parametrize("packing", [False, True])
def test_log_probs_and_gradients_are_those_of_the_model_that_sees_by_itself(directory, clip, packing):
    batch, sight = make_batch(directory, clip)
    team = make_team(directory, packing=packing)
    found, _ = team.logprobs("ada", batch)
    (found * batch.advantages).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in team.adapter_parameters("ada").items()}
    assert not any("visual" in name for name in gradients)
    plain = make_team(directory)
    model = plain.models["seer"]
    model.set_adapter("ada")
    expected = plain_logprobs(model, directory, sight, batch)
    torch.testing.assert_close(found.detach(), expected.detach(), atol=2e-5, rtol=0)
    (expected * batch.advantages).sum().backward()
    largest = max(parameter.grad.abs().max().item() for parameter in plain.adapter_parameters("ada").values())
    assert largest > 1e-2
    for name, parameter in plain.adapter_parameters("ada").items():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5 * largest, rtol=1e-3)
    with torch.no_grad(), model.disable_adapter():
        reference = plain_logprobs(model, directory, sight, batch)
    torch.testing.assert_close(team.reference_logprobs("ada", batch), reference, atol=2e-5, rtol=0)
    assert (reference - expected).abs().max() > 0.1


def test_frames_make_the_difference_between_rows_with_equal_ids(directory, clip):
    batch, _ = make_batch(directory, clip)
    one, other = batch.media[0], batch.media[1]
    assert [a.media == b.media for a, b in zip(one, other, strict=True)] == [True, True, False]
    for packing in (False, True):
        team = make_team(directory, packing=packing)
        before = team.logprobs("ada", batch)[0].detach()
        swapped = replace(one[2], media=other[2].media)
        after = team.logprobs("ada", replace(batch, media=((*one[:2], swapped), *batch.media[1:])))[0].detach()
        changed = (before - after).abs().amax(1)
        assert changed[0] > 1e-3  # the last turn of the first row
        assert changed[1:].max() < 2e-5


@pytest.mark.parametrize("packing", [False, True])
def test_the_tower_sees_every_frame_once_in_all_passes_of_an_update(directory, clip, packing):
    batch, _ = make_batch(directory, clip)
    team = make_team(directory, packing=packing)
    passes = []
    team.models["seer"].get_base_model().model.visual.register_forward_hook(
        lambda module, args, kwargs, output: passes.append(len(kwargs.get("grid_thw", ()))), with_kwargs=True
    )
    update = AgentUpdate(
        team, "ada", batch, objective=Objective(beta=0.04), micro_batch_tokens=60, backward=torch.Tensor.backward,
        minibatches=2,
    )  # fmt: skip
    update.anchor()
    for _ in range(3):
        for rows in ([0, 1], [2, 3]):
            update.accumulate(rows, anchored=True)
    distinct = {one.media for row in batch.media for one in row}
    assert len(distinct) == 4
    assert sum(passes) == team.features["seer"].num_computed == 4
    assert team.features["seer"].num_reused > 20


def test_rows_and_pictures_that_do_not_belong_together_stop_with_the_sample_named(directory, clip):
    batch, sight = make_batch(directory, clip)
    team = make_team(directory)
    missing = (batch.media[0], batch.media[1][:2], *batch.media[2:])
    with pytest.raises(MediaMismatchError, match=r"q1/1: 10 placeholder tokens, but 2 pictures with 8 features"):
        team.logprobs("ada", replace(batch, media=missing))
    late = PlacedMedia(media=batch.media[2][1].media, offset=batch.media[2][1].offset + 1)
    shifted = (*batch.media[:2], (batch.media[2][0], late, batch.media[2][2]), batch.media[3])
    with pytest.raises(MediaMismatchError, match=r"q1/2: the frame at 2 s of '.*blocks.mp4' has 4 features, but at"):
        team.logprobs("ada", replace(batch, media=shifted))
    with pytest.raises(MediaMismatchError, match="'ada' holds media of 3 rows, but has 4 rows"):
        team.logprobs("ada", replace(batch, media=batch.media[:3]))
    with pytest.raises(MediaMismatchError, match=r"row 0 of 'ada': 10 placeholder tokens, but 0 pictures"):
        team.logprobs("ada", replace(batch, media=(), names=()))
    blind = Team({"seer": load_base(str(directory))}, {"ada": "seer"})
    with pytest.raises(ValueError, match="shows 4 pictures, but the team was built without `frames`"):
        blind.logprobs("ada", batch)
    assert sight.factor in (28, 32)


def test_features_of_an_old_tower_stop_the_update(directory, clip):
    batch, _ = make_batch(directory, clip)
    team = make_team(directory)
    before = team.logprobs("ada", batch)[0].detach()
    tower = team.models["seer"].get_base_model().model.visual
    for parameter in tower.parameters():
        parameter.data.mul_(1.3)  # leaves no trace
    assert torch.equal(team.logprobs("ada", batch)[0], before)
    with pytest.raises(StaleFeaturesError, match="its weights changed unseen"):
        team.features["seer"].check_fresh()
    with torch.no_grad():
        next(tower.parameters()).mul_(1.0)  # leaves one
    assert (team.logprobs("ada", batch)[0] - before).abs().max() > 1e-2


def test_a_base_that_sees_cannot_be_trained_in_full(directory):
    with pytest.raises(ValueError, match="has a vision tower, which stays frozen; train the agent by an adapter"):
        Team({"seer": load_base(str(directory))}, {"ada": "seer"}, full=["ada"])


def test_divergence_over_the_vocabulary_leaves_out_what_is_never_sampled(directory, clip):
    batch, sight = make_batch(directory, clip)
    team = make_team(directory)
    found = team.reference_divergence("ada", batch).detach()
    assert (found[batch.loss_mask] > 0).all()
    with torch.no_grad():  # a large logit of a token that cannot come must not count; neither is read as a word
        team.models["seer"].get_output_embeddings().weight[[sight.image_id, sight.video_id]] *= 5
    torch.testing.assert_close(team.reference_divergence("ada", batch).detach(), found, atol=1e-4, rtol=1e-4)
