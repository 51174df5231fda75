"""Bad input ends a training before its first stage, with one message and nothing left behind."""

import json
import shutil

import pytest

from m1lite.configuration import ConfigError, resumed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trainer.max_stepz=3", "Unknown key `trainer.max_stepz`; in `trainer` there are"),
        (
            "team.agents.ada.tools=[telescope]",
            "`team.agents.ada.tools` names 'telescope', which does not exist; there are",
        ),
        (
            "trainer.gradient_clip_val=0.5",
            "`trainer.gradient_clip_val` cannot be set: every agent has its own optimiser. Leave it out and use "
            "`marl.max_grad_norm=...`.",
        ),
        ("sft=null", "`sft=null`: a group is left out with `~sft`."),
        ("resume=nowhere", "`resume=nowhere`: nowhere holds no config.yaml; name the folder of a run, under outputs/."),
        ("resume=begun engine=hf", "`engine=hf` cannot change a resumed run; change single values only."),
        (
            "resume=begun engine.dtipe=x",
            "Unknown key `engine.dtipe`; in `engine` there are dtype mine. Did you mean 'dtype'?",
        ),
        ("resume=begun trainer.gradient_clip_val=1", "`trainer.gradient_clip_val` cannot be set"),
    ],
)
def test_a_wrong_command_line_ends_before_anything_is_made(program, tmp_path, arguments, message):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("output_dir: begun\nengine: {dtype: float32, mine: 1}\n")
    code, out, err = program("m1lite.train", *arguments.split())
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def started(program, tmp_path, *arguments):
    """Start a training of one process on transformers, which must end before an engine is built."""
    code, out, err = program("m1lite.train", "engine=hf", "trainer.devices=1", "hydra.run.dir=run", *arguments)
    assert "[engines]" not in out
    assert not (tmp_path / "run" / "untrained").exists()
    return code, err


def test_a_missing_dataset_root(program, tmp_path):
    code, err = started(program, tmp_path, "data=jsonl", "root=nowhere")
    assert (code, err) == (
        2,
        "The dataset root nowhere is not a folder; give the folder that holds train.jsonl.\n",
    )


@pytest.fixture
def dataset(tmp_path, world):
    """A dataset of one question a split, on videos of the world."""
    root = tmp_path / "mine"
    root.mkdir()
    for split in ("train", "val", "test"):
        shutil.copy(world.video(split, 0), root / f"{split}.mp4")
        row = {"video": f"{split}.mp4", "task": "counting", "question": "count objects", "answer": 3}
        (root / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    return root


def test_an_unreadable_video_and_a_broken_row_are_named_together(program, tmp_path, dataset):
    (dataset / "cut.mp4").write_bytes((dataset / "test.mp4").read_bytes()[:300])
    rows = [
        {"video": "cut.mp4", "task": "counting", "question": "count objects", "answer": 3},
        {"video": "test.mp4", "task": "counting", "question": "count objects", "answer": "three"},
    ]
    with (dataset / "test.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    code, err = started(program, tmp_path, "data=jsonl", f"root={dataset}")
    assert code == 2
    first, unreadable, broken = err.splitlines()
    assert first == "2 broken row(s):"
    assert f"{dataset}/test.jsonl:2: `video` is '{dataset}/cut.mp4'; allowed: a readable video; replace" in unreadable
    assert f"{dataset}/test.jsonl:3: `answer` is 'three'; allowed: a whole number from 0" in broken


def test_a_resumed_configuration_follows_its_folder_and_takes_new_values(tmp_path):
    from omegaconf import OmegaConf

    run = tmp_path / "moved"
    run.mkdir()
    old = {"output_dir": "/old/run", "seed": 0, "a": {"path": "/old/run/x", "other": "/old/runner"}, "resume": None}
    OmegaConf.save(OmegaConf.create(old), run / "config.yaml")
    found = resumed(OmegaConf.create({"resume": str(run)}), [f"resume={run}", "++seed=3", "hydra.run.dir=there"])
    assert OmegaConf.to_container(found) == {
        "output_dir": str(run),
        "seed": 3,
        "a": {"path": f"{run}/x", "other": "/old/runner"},
        "resume": None,
    }
    with pytest.raises(ConfigError, match=r"Unknown key `a\.pth`; in `a` there are other path"):
        resumed(OmegaConf.create({"resume": str(run)}), ["a.pth=3"])
