"""A wrong command line ends at once with one message that names the thing and what exists."""

import subprocess
import sys
from pathlib import Path

import pytest

from m1lite.configuration import ConfigError, check, compose, conf_dir, first_of_sweeps

ROOT = Path(__file__).parents[1]
PROGRAM = "from m1lite.configuration import entry; entry(lambda config: print('ran', config.seed, config.output_dir))()"


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        check(compose(overrides))
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "texts"),
    [
        (
            "trainer.max_stepz=3",
            ["Unknown key `trainer.max_stepz`; in `trainer` there are", "Did you mean 'max_steps'?"],
        ),
        ("trainer.new.deep=1", ["Unknown key `trainer.new.deep`; in `trainer` there are accelerator", "+trainer.new"]),
        ("sed=1", ["Unknown key `sed`; at the top there are", "Did you mean 'seed'?"]),
        ("engin=hf", ["Unknown key `engin`", "Did you mean 'engine'?"]),
        (
            "engine=vlm",
            ["`engine` names 'vlm', which does not exist; there are hf vllm vllm_server. Did you mean 'vllm'?"],
        ),
        ("experiment=nope", ["`experiment` names 'nope', which does not exist; there are", "world_full"]),
        ("debug=nope", ["`debug` names 'nope', which does not exist; there are smoke"]),
        ("seed", ["`seed` cannot be read; write key=value, such as seed=1"]),
        (
            "team.agents.eve.tools=[a]",
            ["Unknown key `team.agents.eve.tools`; in `team.agents` there are ada bea cyd dov"],
        ),
        (
            "team.agents.ada.tools=[grounding_tol,spatial_tool]",
            ["`team.agents.ada.tools` names 'grounding_tol', which does not exist", "Did you mean 'grounding_tool'?"],
        ),
        ("team.agents.bea.base=qwen4", ["`team.agents.bea.base` names 'qwen4'", "there are qwen2 qwen3"]),
        ("data=jsonl", ["`root` has no value; give `root=...`."]),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(override, texts):
    found = message(override)
    assert [text for text in texts if text not in found] == [], found
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("trainer.gradient_clip_val", "0.5", "marl.max_grad_norm"),
        ("trainer.gradient_clip_algorithm", "norm", "marl.max_grad_norm"),
        ("trainer.accumulate_grad_batches", "4", "marl.micro_batch_tokens"),
    ],
)
def test_what_lightning_would_refuse_late_is_refused_now(plus, key, value, instead):
    assert message(f"{plus}{key}={value}").startswith(f"`{key}` cannot be set")
    assert f"use `{instead}=...`" in message(f"{plus}{key}={value}")


def test_the_keys_to_use_instead_exist():
    check(compose(["marl.max_grad_norm=0.5", "marl.micro_batch_tokens=100", "+trainer.accumulate_grad_batches=1"]))


def test_all_problems_are_named_at_once():
    lines = message("team.agents.ada.base=x", "team.agents.dov.tools=[y,z]", "data=jsonl").splitlines()
    assert [line.split("`")[1] for line in lines] == [
        "team.agents.ada.base",
        "team.agents.dov.tools",
        "team.agents.dov.tools",
        "root",
    ]


def test_keys_are_those_of_the_chosen_group():
    assert "in `engine` there are dtype max_batch_tokens" in message("engine=hf", "engine.kv_cache_bytes=1")
    check(compose(["engine=vllm", "engine.kv_cache_bytes=1"]))


def test_a_tool_of_your_own_may_be_named():
    tool = "+toolbox.tools.mine={_target_: hydra.utils.get_object, path: my.tool}"
    check(compose([tool, "team.agents.ada.tools=[mine]"]))


def test_first_of_sweeps():
    swept = ["seed=3,4", "engine=hf,vllm", "+x=range(5,7)", "team.agents.ada.tools=[a,b]", "~logger"]
    assert first_of_sweeps(swept) == ["seed=3", "engine=hf", "+x=5", "team.agents.ada.tools=[a,b]", "~logger"]


def test_conf_is_found_in_the_package_before_its_parent(tmp_path):
    package = tmp_path / "m1lite"
    with pytest.raises(ConfigError, match=r"No train\.yaml in .*m1lite/conf or .*/conf; install m1lite again"):
        conf_dir(package)
    for place in (tmp_path / "conf", package / "conf"):
        place.mkdir(parents=True)
        (place / "train.yaml").touch()
        assert conf_dir(package) == place


def run(folder, *arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "HOME": "/"}
    )


def test_a_program_stops_with_the_message_alone(tmp_path):
    ended = run(tmp_path, "engine=vlm")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr
        == "`engine` names 'vlm', which does not exist; there are hf vllm vllm_server. Did you mean 'vllm'?\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_program_runs_once_and_as_a_multirun(tmp_path):
    assert run(tmp_path, "hydra.run.dir=here", "seed=5").stdout.split() == ["ran", "5", str(tmp_path / "here")]
    ended = run(tmp_path, "-m", "hydra.sweep.dir=many", "seed=1,2")
    assert [line for line in ended.stdout.splitlines() if line.startswith("ran")] == [
        f"ran {seed} {tmp_path / 'many' / str(job)}" for job, seed in enumerate([1, 2])
    ]
