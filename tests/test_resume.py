"""A run that Ctrl-C ended after step 3 and that is continued becomes the run that nothing disturbed, bit for bit."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def scalars(run):
    """Give every logged value but times and memory: (tag, step) to the set of values written for it."""
    found = {}
    for file in sorted((run / "tensorboard").iterdir()):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            # Of the engine and not of the training: `sync/` compares with this process's probe before.
            if not tag.startswith(("perf/", "video/", "sft/", "sync/", "epoch")):
                for event in events.Scalars(tag):
                    found.setdefault((tag, event.step), set()).add(event.value)
    return found


def played(run):
    """Give the recorded episodes, without times."""
    rows = [json.loads(line) for line in (run / "trajectories.jsonl").read_text().splitlines()]
    for row in rows:
        for agent in row["agents"].values():
            for call in agent["calls"]:
                call["seconds"] = call["cached"] = None
    return rows


@pytest.fixture(scope="module")
def resumed(small_run, start_program, tmp_path_factory):
    """Stop a copy of the small run by Ctrl-C between the checkpoints of steps 3 and 6, then let it go on to step 5."""
    folder = tmp_path_factory.mktemp("moved") / "run"
    folder.mkdir()
    for name in ("config.yaml", "ledger.json"):
        shutil.copy(small_run / name, folder)
    for name in ("bases", "untrained", "verdicts"):
        shutil.copytree(small_run / name, folder / name)
    for file in (folder / "verdicts").glob("marl*"):
        file.unlink()
    process = start_program("m1lite.train", f"resume={folder}", "trainer.max_steps=1000", cwd=small_run.parent)
    deadline = time.monotonic() + 600
    while not (folder / "checkpoints" / "last.ckpt").exists() and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    stopped = (*process.communicate(timeout=250), process.returncode)
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    process = start_program("m1lite.train", f"resume={folder}", "trainer.max_steps=5", cwd=small_run.parent)
    finished = (*process.communicate(timeout=600), process.returncode)
    return folder, stopped, state, finished


def test_ctrl_c_says_where_the_last_checkpoint_is_and_how_to_go_on(resumed):
    folder, (stdout, stderr, code), state, _ = resumed
    assert code == 130
    assert state["global_step"] == 3
    assert (
        [line for line in stdout.splitlines() if line.startswith("Interrupted at step")]
        == [
            f"Interrupted at step {step}; the last checkpoint is {folder}/checkpoints/last.ckpt."
            for step in (3, 4, 5)
            if f"at step {step};" in stdout
        ]
        != []
    )
    assert stderr.splitlines()[-1] == f"Interrupted. Continue with: python -m m1lite.train resume={folder}"
    assert "Traceback" not in stdout + stderr


def test_every_logged_value_is_bit_equal_to_the_undisturbed_run(small_run, resumed):
    folder, *_, (stdout, stderr, code) = resumed
    assert code == 0, stdout + stderr
    expected, found = scalars(small_run), scalars(folder)
    losses = {step: next(iter(expected["ada/loss", step])) for step in range(5)}
    assert len(set(losses.values())) == 5, "equal losses would prove nothing"
    found = {key: values for key, values in found.items() if key[1] < 5}
    assert {key: expected[key] for key in found} == found
    # Ctrl-C right after the checkpoint may cut off what the step before it was about to log.
    assert {key for key in expected if key[1] >= 3} <= found.keys()
    assert {key for key in expected if key[0] == "val/team/reward"} == {("val/team/reward", 1), ("val/team/reward", 3)}


def test_the_continued_run_ends_with_the_same_weights_episodes_and_evaluations(small_run, resumed):
    folder = resumed[0]
    for agent in ("ada", "bea", "cyd", "dov"):
        name = Path("adapters", agent, "adapter_model.safetensors")
        expected, found = load_file(small_run / name), load_file(folder / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert played(folder) == played(small_run)
    for name in ("marl", "marl_greedy"):
        file = Path("verdicts", f"{name}.jsonl")
        assert (folder / file).read_text() == (small_run / file).read_text()


def test_what_was_finished_is_not_done_again_and_costs_add_up(small_run, resumed):
    folder, (first, *_), _, (second, *_) = resumed
    for name in ("untrained", "sft", "sft_greedy"):
        assert f"  {name}: " in (small_run.parent / "printed.txt").read_text()
        assert f"  {name}: " not in first + second
        file = Path("verdicts", f"{name}.jsonl")
        assert (folder / file).stat().st_mtime < (folder / "checkpoints").stat().st_mtime
    assert "  marl: " in second
    before, after = (json.loads((run / "metrics.json").read_text()) for run in (small_run, folder))
    assert after["cold_start"] == before["cold_start"]
    assert after["seconds"]["cold_start"] >= before["seconds"]["cold_start"]
    assert after["seconds"]["marl_training"] > before["seconds"]["marl_training"]
    tokens = after["token_kinds"], before["token_kinds"]
    for name in ("untrained", "cold_start", "sft"):
        assert tokens[0][name] == tokens[1][name]
    # The ledger that was copied holds the undisturbed run's own MARL.
    assert tokens[0]["marl"] == {kind: 2 * number for kind, number in tokens[1]["marl"].items()}
    assert all(tokens[0]["marl_training"][kind] >= 2 * number for kind, number in tokens[1]["marl_training"].items())
    assert after["config"]["output_dir"] == str(folder)
