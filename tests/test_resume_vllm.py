"""A run with vLLM that is continued in a new process plays the episodes of the undisturbed run, token for token."""

import json
import shutil

import pytest
from omegaconf import OmegaConf

from m1lite.configuration import conf_dir

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RECORDER = '''
import json
import shutil
from pathlib import Path

import lightning.pytorch as pl


class Recorder(pl.Callback):
    """Writes every step's losses and token ids; as step 3 begins it keeps a copy of the folder, as a stop would."""

    def __init__(self, run):
        self.run = Path(run)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 3 and "undisturbed" in self.run.name:
            shutil.copytree(self.run, self.run.with_name("stopped"))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        row = {
            "losses": {agent: trainer.callback_metrics[f"{agent}/loss"].item() for agent in module.team.agents},
            "turns": [
                [[*place, agent, turn], {"read": part.prompt_ids, "wrote": part.reply_ids, "logprobs": part.logprobs}]
                for episode in batch.episodes
                for place in [(trainer.global_step - 1, f"{episode.sample.id}/{episode.index}")]
                for agent, trajectory in episode.trajectories.items()
                for turn, part in enumerate(trajectory.turns)
            ],
        }
        with (self.run / "recorded.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\\n")
'''


def continued(start_program, folder):
    """Continue a run up to step 5, and give what every step recorded."""
    process = start_program("m1lite.train", f"resume={folder}", cwd=folder.parent)
    stdout, stderr = process.communicate(timeout=500)
    assert process.returncode == 0, stdout + stderr
    return [json.loads(line) for line in (folder / "recorded.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def both(small_run, start_program, tmp_path_factory):
    """Train the small run's team with vLLM: undisturbed, and from what lay on disk after three of its five steps."""
    place = tmp_path_factory.mktemp("vllm")
    shutil.copy(small_run.parent / "length_reward.py", place)
    (place / "recorder.py").write_text(RECORDER)
    folder = place / "undisturbed"
    folder.mkdir()
    for name in ("bases", "untrained", "verdicts"):
        shutil.copytree(small_run / name, folder / name, ignore=shutil.ignore_patterns("marl*"))
    config = OmegaConf.load(small_run / "config.yaml")
    config.engine = OmegaConf.load(conf_dir() / "engine" / "vllm.yaml")
    config.engine.update(max_lora_rank=config.team.adapters.rank, kv_cache_bytes=32 << 20)
    config.callbacks.recorder = {"_target_": "recorder.Recorder", "run": f"{small_run}"}
    OmegaConf.save(config, folder / "config.yaml")
    shutil.copy(small_run / "ledger.json", folder)
    expected = continued(start_program, folder)
    return expected, continued(start_program, folder.with_name("stopped"))


def test_the_rollouts_are_those_of_the_undisturbed_run(both):
    expected, found = both
    assert [len(expected), len(found)] == [5, 5]
    assert difference(expected, found) is None


def test_the_losses_are_those_of_the_undisturbed_run(both):
    expected, found = ([step["losses"] for step in run] for run in both)
    for agent in expected[0]:
        assert len({step[agent] for step in expected}) == 5, "equal losses would prove nothing"
    for step, (losses, others) in enumerate(zip(expected, found, strict=True)):
        assert others == pytest.approx(losses, abs=1e-5, rel=0), f"step {step}"


def difference(expected, found):
    """Say where two runs' tokens first differ; None where they do not."""
    for one, other in zip(expected, found, strict=True):
        for (place, turn), (other_place, other_turn) in zip(one["turns"], other["turns"], strict=False):
            if place != other_place:
                return f"a turn of {place} became one of {other_place}"
            for side in ("read", "wrote"):
                ids, others = turn[side], other_turn[side]
                if ids != others:
                    at = next((n for n, pair in enumerate(zip(ids, others, strict=False)) if len({*pair}) > 1), None)
                    at = min(len(ids), len(others)) if at is None else at
                    step, episode, agent, number = place
                    return (
                        f"step {step}, episode {episode}, agent {agent}, turn {number}, token {at} that it {side}: "
                        f"{ids[at : at + 1]} became {others[at : at + 1]}"
                    )
        if len(one["turns"]) != len(other["turns"]):
            return f"{len(one['turns'])} turns of step {one['turns'][0][0][0]} became {len(other['turns'])}"
    return None


def test_the_first_difference_is_named():
    turn = {"read": [5, 6], "wrote": [7, 8, 9]}
    step = {"turns": [[[0, "clip/1", "ada", 0], turn], [[0, "clip/1", "ada", 1], turn]]}
    assert difference([step, step], [step, step]) is None
    other = {"turns": [step["turns"][0], [[0, "clip/1", "ada", 1], {**turn, "wrote": [7, 1, 9]}]]}
    assert difference([step], [other]) == (
        "step 0, episode clip/1, agent ada, turn 1, token 1 that it wrote: [8] became [1]"
    )
    longer = {"turns": [[[0, "clip/1", "ada", 0], {**turn, "read": [5, 6, 4]}]]}
    assert difference([step], [longer]).endswith("agent ada, turn 0, token 2 that it read: [] became [4]")
    assert difference([step], [{"turns": step["turns"][:1]}]) == "2 turns of step 0 became 1"
