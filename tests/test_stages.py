"""What a run's report says that its stages cost."""

import json

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def metrics(small_run):
    return json.loads((small_run / "metrics.json").read_text())


def test_every_token_is_counted_in_its_stage(small_run, metrics):
    kinds = metrics["token_kinds"]
    assert kinds.keys() == {"untrained", "cold_start", "sft", "marl_training", "marl"}
    assert metrics["tokens"] == {stage: sum(counts.values()) for stage, counts in kinds.items()}
    evaluations = {"untrained": ["untrained"], "sft": ["sft", "sft_greedy"], "marl": ["marl", "marl_greedy"]}
    for stage, names in evaluations.items():
        assert kinds[stage].keys() == {"read", "sampled"}
        assert metrics["tokens"][stage] == sum(metrics["stages"][name]["tokens"] for name in names)
    rows = [json.loads(line) for line in (small_run / "trajectories.jsonl").read_text().splitlines()]
    turns = [(row["split"], turn) for row in rows for agent in row["agents"].values() for turn in agent["turns"]]
    training = kinds["marl_training"]
    assert training["read"] == sum(turn["read_tokens"] for _, turn in turns)
    assert training["sampled"] == sum(turn["sampled_tokens"] for _, turn in turns)
    assert training["trained"] == sum(
        turn["read_tokens"] + turn["sampled_tokens"] for split, turn in turns if split == "train"
    )
    assert kinds["cold_start"].keys() == {"trained"}
    assert kinds["cold_start"]["trained"] > 0


def test_the_closing_table_has_seconds_and_tokens_of_every_stage(small_run, metrics):
    lines = (small_run.parent / "printed.txt").read_text().splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["stage"] == ["seconds", "CPU", "seconds", "tokens", "read", "tokens", "sampled", "tokens", "trained"]
    for stage, counts in metrics["token_kinds"].items():
        assert rows[stage][:2] == [f"{metrics[key][stage]:.0f}" for key in ("seconds", "cpu_seconds")]
        assert rows[stage][2:] == [str(counts[kind]) for kind in ("read", "sampled", "trained") if kind in counts]
