from statistics import fmean, stdev

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from m1lite.modules.batch import RolloutBatch
from m1lite.modules.marl import StaleRolloutError

AGENTS = ("ada", "bea", "cyd")


class Loader:
    """A loader of given batches."""

    def __init__(self, *batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def test_tokens_are_the_episodes_with_advantages_within_each_sample(campaign):
    run = campaign()
    log = run.fit(steps=1)
    batch = log.batches[0]
    assert [episode.sample.id for episode in batch.episodes] == [s.id for s in batch.samples for _ in range(3)]
    for agent in AGENTS:
        tokens = batch.tokens[agent]
        rewards = []
        for episode in batch.episodes:
            turns = episode.trajectories[agent].turns
            parsed = 0.5 if all(turn.status.value != "invalid_plan" for turn in turns) else -0.5
            length = sum(len(turn.reply_ids) for turn in turns) % 5
            rewards.append((parsed, length))
        for number, episode in enumerate(batch.episodes):
            ids = [i for turn in episode.trajectories[agent].turns for i in (*turn.prompt_ids, *turn.reply_ids)]
            wrote = [
                flag
                for turn in episode.trajectories[agent].turns
                for flag in (*[False] * len(turn.prompt_ids), *[True] * len(turn.reply_ids))
            ]
            assert tokens.input_ids[number, : len(ids)].tolist() == ids
            assert tokens.loss_mask[number, : len(ids)].tolist() == wrote
            group = number // 3
            totals = [b[agent].total for b in batch.rewards[3 * group : 3 * group + 3]]
            expected = (totals[number % 3] - fmean(totals)) / (stdev(totals) + 1e-4)
            found = tokens.advantages[number][tokens.loss_mask[number]]
            assert found.tolist() == pytest.approx([expected] * len(found), abs=1e-4)
        totals = [breakdown[agent].total for breakdown in batch.rewards]
        assert log.steps[0][f"{agent}/reward"] == pytest.approx(fmean(totals), abs=1e-5)
        lengths = [length for _, length in rewards]
        assert log.steps[0][f"{agent}/rewards/length/mean"] == pytest.approx(fmean(lengths), abs=1e-5)
    assert log.steps[0]["perf/rollout_s"] > 0
    assert log.steps[0]["team/reward"] <= 1


def test_topology_is_one_draw_per_sample_and_step(campaign):
    batches = campaign().fit(steps=4).batches
    drawn = []
    for batch in batches:
        for group in range(2):
            graphs = [dict(episode.visible) for episode in batch.episodes[3 * group : 3 * group + 3]]
            assert graphs[0] == graphs[1] == graphs[2]
            drawn.append(str(graphs[0]))
    assert len(set(drawn)) > 3
    seeds = [episode.seed for batch in batches for episode in batch.episodes]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("update_epochs", [1, 2])
def test_a_run_stopped_after_three_steps_continues_bit_by_bit(campaign, tmp_path, update_epochs):
    whole = campaign(update_epochs=update_epochs)
    expected = whole.fit(steps=5)
    files = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=3)
    first = campaign(update_epochs=update_epochs).fit(files, steps=3, enable_checkpointing=True)
    resumed = campaign(update_epochs=update_epochs)
    second = resumed.fit(steps=5, ckpt_path=tmp_path / "step=3.ckpt")
    assert len(second.steps) == 2
    for one, other in zip(expected.steps, first.steps + second.steps, strict=True):
        assert {k: v for k, v in one.items() if "perf" not in k} == {k: v for k, v in other.items() if "perf" not in k}
    for one, other in zip(expected.batches, first.batches + second.batches, strict=True):
        for agent in AGENTS:
            assert torch.equal(one.tokens[agent].input_ids, other.tokens[agent].input_ids)
            assert torch.equal(one.tokens[agent].sampled_logprobs, other.tokens[agent].sampled_logprobs)
    assert resumed.team.fingerprint() == whole.team.fingerprint()
    assert resumed.engine.versions() == whole.engine.versions() == dict.fromkeys(AGENTS, 5)


def test_without_sync_the_second_rollout_is_refused(campaign):
    run = campaign()
    run.sync.on_train_batch_end = lambda *_: None
    with pytest.raises(StaleRolloutError, match="'ada' were sampled under version 0, but the update accepts 1 to 1"):
        run.fit(steps=2)


def test_a_rank_without_samples_rolls_out_nothing(campaign):
    run = campaign()
    run.loader = Loader(RolloutBatch([]))
    log = run.fit(steps=1)
    assert log.batches[0].tokens == {}
    assert run.module.versions == dict.fromkeys(AGENTS, 0)


def test_validation_plays_the_complete_team_with_the_same_seeds_each_time(campaign, questions):
    run = campaign(validation=True, learning_rate=0.0)
    batch = RolloutBatch(questions(4))
    trainer = run.trainer(steps=2, val_check_interval=1)
    found = []
    run.sync.on_validation_end = lambda trainer, module: found.append(
        {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    )
    trainer.fit(run.module, run.loader, Loader(batch))
    assert len(found) == 2
    assert found[0] == found[1], "the weights did not change, so neither may the episodes"
    totals = [breakdown["bea"].total for breakdown in batch.rewards]
    assert found[0]["val/bea/reward"] == pytest.approx(fmean(totals))
    assert set(batch.episodes[0].visible["ada"]) == {"bea", "cyd"}
    assert len(batch.episodes) == 4
