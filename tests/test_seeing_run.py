"""A whole run of an agent that sees, through its YAML alone: engine and trainer agree on what it was shown."""

import csv
import json

import pytest

SMALL = [
    *("engine=hf", "logger=csv", "trainer.devices=1", "trainer.max_steps=2", "data.batch_size=2"),
    *("collaboration.episodes=2", "collaboration.max_rounds=1", "world.tasks=[grounding,choice]"),
    *("world.num_train=3", "world.num_val=1", "world.num_test=1", "evaluation.controls=false"),
    *("evaluation.num_draws=50", "team.bases.seer.hidden_size=64", "team.bases.seer.num_layers=1"),
    "team.sampling.max_new_tokens=12",
]


def logged(run, name):
    """Every value of a scalar over the run's tables."""
    rows = [row for table in run.glob("csv/*/metrics.csv") for row in csv.DictReader(table.open())]
    return [float(row[name]) for row in rows if row.get(name)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_team_that_sees_is_named_and_trained(program, tmp_path):
    folders = (f"cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}")
    code, out, err = program("m1lite.train", "team=tiny_seeing", "toolbox=clips", "~sft", *SMALL, *folders)
    assert code in (0, None), out + err
    run = tmp_path / "run"
    rows = [json.loads(line) for line in (run / "trajectories.jsonl").read_text().splitlines()]
    assert len([row for row in rows if row["split"] == "train"]) == 2 * 2 * 2
    gaps = logged(run, "ada/sampling/turn_gap/max")
    assert len(gaps) == 2, "one look in every step"
    assert max(gaps) < 1e-3
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["ceiling"] is None, "the oracle's tools are not in this toolbox"
    # A first prompt shows 12 frames of 9 tokens each.
    assert all(turn["read_tokens"] > 12 * 9 for row in rows for turn in row["agents"]["ada"]["turns"][:1])
    assert (run / "adapters" / "ada" / "adapter_model.safetensors").is_file()


def test_an_engine_that_shows_no_frames_is_refused_by_name(tmp_path):
    from m1lite.build import build_party
    from m1lite.configuration import ConfigError, compose

    small = ["team.bases.seer.hidden_size=64", "team.bases.seer.num_layers=1", f"output_dir={tmp_path}"]
    config = compose(["team=tiny_seeing", "toolbox=clips", "engine=vllm_server", *small])
    with pytest.raises(ConfigError, match=r"`engine` m1lite.engines.server.ServerEngine shows no frames; use engine="):
        build_party(config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_experiment_of_a_team_that_sees_runs_small(program, tmp_path):
    """Cold start with the tower, DGRPO with clips, evaluation: every stage once."""
    folders = (f"cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}")
    code, out, err = program("m1lite.train", "experiment=synthetic_vital", "debug=smoke_seeing", "logger=csv", *folders)
    assert code in (0, None), out + err
    run = tmp_path / "run"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["stages"].keys() >= {"untrained", "sft", "marl"}
    assert metrics["cold_start"]["seer"], "validated"
    assert max(logged(run, "ada/sampling/turn_gap/max")) < 1e-3, "the engine has the tower that was trained"
    assert logged(run, "ada/rewards/format/mean")
