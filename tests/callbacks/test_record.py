import json

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from m1lite.callbacks.checkpoint import LastCheckpoint
from m1lite.callbacks.record import RecordCallback, resident_gigabytes
from m1lite.modules.batch import RolloutBatch


class Loader:
    def __init__(self, *batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def test_trajectories_scalars_and_a_readable_episode_are_kept(campaign, questions, tmp_path):
    run = campaign(validation=True)
    record = RecordCallback(tmp_path / "out", every_n_steps=2)
    log_batches = []
    record.on_train_batch_start = lambda trainer, module, batch, index: log_batches.append(batch)
    trainer = run.trainer(
        record, steps=3, logger=TensorBoardLogger(tmp_path, name="tb", version=""), val_check_interval=3
    )
    trainer.fit(run.module, run.loader, Loader(RolloutBatch(questions(2))))
    lines = [json.loads(line) for line in (tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines] == [(0, "train")] * 6 + [(2, "train")] * 6 + [
        (3, "val")
    ] * 2
    for line, episode, rewards in zip(lines[:6], log_batches[0].episodes, log_batches[0].rewards, strict=True):
        assert (line["sample"], line["episode"], line["seed"]) == (episode.sample.id, episode.index, episode.seed)
        assert line["truth"] == {
            "spans": [{"start": episode.sample.answer.spans[0].start, "end": episode.sample.answer.spans[0].end}]
        }
        for agent, trajectory in episode.trajectories.items():
            found = line["agents"][agent]
            assert [turn["text"] for turn in found["turns"]] == [turn.text for turn in trajectory.turns]
            assert [turn["version"] for turn in found["turns"]] == [0] * len(trajectory.turns)
            assert found["reward"] == rewards[agent].total
    events = EventAccumulator(str(tmp_path / "tb"), size_guidance={"tensors": 0, "scalars": 0}).Reload()
    scalars = set(events.Tags()["scalars"])
    expected = {"ada/kl", "ada/entropy", "ada/loss", "ada/grad_norm", "ada/clip_ratio/region_mean", "ada/reward"}
    expected |= {"ada/reward_std", "ada/frac_reward_zero_std", "ada/rewards/length/mean", "ada/completions/mean_length"}
    expected |= {"ada/tools/call_frequency", "ada/tools/failure_frequency", "ada/parse_share", "team/reward"}
    expected |= {"ada/sampling/sampling_logp_difference/max", "ada/sampling/importance_sampling_ratio/mean"}
    expected |= {f"perf/{name}" for name in ("rollout_s", "update_s", "sync_s", "rss_gb", "rollout_tokens_per_s")}
    assert expected <= scalars
    assert [event.step for event in events.Scalars("team/reward")] == [0, 1, 2], "from the first step"
    page = next(tag for tag in events.Tags()["tensors"] if tag.startswith("trajectory"))
    text = events.Tensors(page)[0].tensor_proto.string_val[0].decode()
    assert "**when red-square**" in text
    assert "| ada |" in text


def test_running_reward_is_smoothed_and_survives_a_restart(tmp_path, campaign):
    run = campaign()
    record = RecordCallback(tmp_path)
    log = run.fit(record, steps=3)
    running = log.steps[0]["team/reward"]
    for step in log.steps[1:]:
        running = 0.9 * running + 0.1 * step["team/reward"]
    assert record.running_reward == pytest.approx(running)
    other = RecordCallback(tmp_path)
    other.load_state_dict(record.state_dict())
    assert other.running_reward == record.running_reward


def test_memory_is_that_of_this_process():
    assert 0.1 < resident_gigabytes() < 50


def test_a_step_count_below_one_is_named(tmp_path):
    with pytest.raises(ValueError, match="`every_n_steps` is 0"):
        RecordCallback(tmp_path, every_n_steps=0)


def test_steps_that_are_played_again_are_not_recorded_twice(campaign, tmp_path):
    path = tmp_path / "trajectories.jsonl"
    rows = [(0, "train"), (1, "train"), (1, "val"), (2, "val"), (2, "train"), (3, "train"), (3, "val")]
    lines = [json.dumps({"step": step, "split": split, "row": row}) for row, (step, split) in enumerate(rows)]
    path.write_text("\n".join(lines) + '\n{"step": 1, "split": "tr')
    checkpoint, run = tmp_path / "last.ckpt", campaign()
    run.fit(LastCheckpoint(checkpoint), steps=2, enable_checkpointing=True)
    assert path.read_text().count("\n") == len(rows), "nothing recorded this run"
    campaign().fit(RecordCallback(tmp_path), steps=3, ckpt_path=checkpoint)
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["row"] for line in kept if "row" in line] == [0, 1, 2, 3]
    assert [line["step"] for line in kept if "row" not in line] == [2] * 6
