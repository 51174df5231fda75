"""Every recipe takes one real step: its own rewards, tools and update on a tiny base with random weights.

What each term pays is in tests/rewards; here is shown that the parts fit and that engine and trainer see the same.
"""

import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from m1lite.configuration import check, compose
from m1lite.ledger import write_whole

ROWS = {
    "grounding": {"question": "when is it red?", "spans": [[1, 3]]},
    "choice": {"question": "which is it?", "options": ["low quality", "high quality"], "answer": "low quality"},
    "counting": {"question": "how many?", "answer": 2},
    "gqa": {"task": "grounded_qa", "question": "why?", "options": ["rain", "sun"], "answer": "sun", "spans": [[1, 2]]},
    "grounded_qa": {"question": "what is it?", "answer": "a block", "spans": [[2, 4]]},
    "tracking": {
        "question": "follow it",
        "times": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5],
        "boxes": [[0, 0, 9, 9]] * 8,
    },
    "caption": {"question": "what happens?", "answer": ["it moves"]},
}
R1 = {"format", "overlap", "accuracy"}
RECIPES = {
    "videochat_r1_grounding": (["grounding"], R1),
    "videochat_r1_tracking": (["tracking"], R1),
    "videochat_r1_gqa": (["gqa"], R1),
    "videochat_r1_qa": (["choice"], R1),
    "videochat_r1_quality": (["choice"], R1),
    "videochat_r1_caption": (["caption"], {"format", "recall"}),
    "videochat_r1_joint": (["grounding", "tracking", "gqa", "choice"], R1),
    "videochat_r1_5": (["grounding", "gqa", "choice"], R1),
    "time_r1": (["grounding"], {"format", "overlap"}),
    "video_r1": (["choice", "counting"], {"format", "accuracy", "length", "temporal"}),
    "longvt": (["grounded_qa"], {"accuracy", "format", "window"}),
    "videozoomer": (["choice"], {"accuracy", "format", "tool"}),
    "frame_thinker": (["choice"], {"accuracy", "located"}),
    "video_mtr": (["gqa"], {"accuracy", "exploration"}),
    "timesearch_r": (["choice", "gqa"], {"format", "accuracy", "completeness"}),
}
"""The tasks of a recipe's data, and the names of its reward's terms."""
VITAL = ("vital", "vital_reasoning", "vital_tool")
"""Run one after the other in tests/test_chain.py."""
TINY = [
    *("team=tiny_seeing", "trainer=cpu", "engine=hf", "engine.dtype=float32", "~engine.kv_cache_bytes", "logger=csv"),
    *("trainer.devices=1", "trainer.max_steps=1", "trainer.limit_val_batches=0", "data.batch_size=2"),
    *("collaboration.episodes=2", "evaluation.num_draws=50", "team.sampling.max_new_tokens=8"),
    *("team.bases.seer.hidden_size=64", "team.bases.seer.num_layers=1", "callbacks.turn_check.every_n_steps=1"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clip):
    """A place for data and for the base that all recipes share."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "clip.mp4").symlink_to(clip)
    return folder


def write_data(folder, tasks):
    """Write two questions, of the tasks in turn, into every split."""
    rows = [
        {"video": str(folder / "clip.mp4"), "task": task, **ROWS[task]} for task in (tasks * 2)[: max(2, len(tasks))]
    ]
    root = folder / "-".join(tasks)
    root.mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def base_at(folder):
    return f"team.bases.seer.directory={folder / 'seer'}"


def run_recipe(overrides, *, keep=False):
    """Run a recipe in this process; keep its configuration, as the program does, where the run is used again."""
    from m1lite.build import build_stages

    config = compose(overrides)
    check(config)
    if keep:
        write_whole(Path(config.output_dir) / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    build_stages(config).run()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_takes_a_step(recipe, folder, tmp_path, capfd):
    tasks, terms = RECIPES[recipe]
    places = [f"root={write_data(folder, tasks)}", f"output_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}"]
    kept = ["~rl.refill"] if recipe in ("videozoomer", "timesearch_r") else []  # or nothing is left to learn from
    run_recipe([f"experiment={recipe}", *TINY, *kept, *places, base_at(folder)])
    rows = [json.loads(line) for line in (tmp_path / "trajectories.jsonl").read_text().splitlines()]
    assert len([row for row in rows if row["split"] == "train"]) == 2 * 2
    logged = [row for table in tmp_path.glob("csv/*/metrics.csv") for row in csv.DictReader(table.open())]
    named = {name.split("/")[2] for row in logged for name in row if name.startswith("ada/rewards/")}
    assert named == terms
    assert max(float(row["ada/sampling/turn_gap/max"]) for row in logged if row.get("ada/sampling/turn_gap/max")) < 1e-3
    assert (tmp_path / "adapters" / "ada" / "adapter_model.safetensors").is_file()
    assert json.loads((tmp_path / "metrics.json").read_text())["stages"]["marl"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inference", ["iterative_perception", "clue_perception"])
def test_a_run_is_evaluated_in_several_passes(inference, folder, tmp_path, program):
    run, tasks = tmp_path / "run", RECIPES["videochat_r1_5"][0]
    places = [f"root={write_data(folder, tasks)}", f"output_dir={run}", f"cache_dir={tmp_path / 'cache'}"]
    run_recipe(["experiment=videochat_r1_5", *TINY, "team.max_context=8192", *places, base_at(folder)], keep=True)
    code, out, err = program("m1lite.evaluate", f"run={run}", f"inference={inference}", "num_draws=50")
    assert code in (0, None), out + err
    figures = json.loads((run / "evaluation-test" / "metrics.json").read_text())
    assert figures["stages"]["marl"]["team"]["score"]["n"] == len(tasks)
    # Frames of the last pass: 16 of 128 tokens, or the whole video at 4 a second, as no clue of chance can be read.
    least = {"iterative_perception": 16 * 128, "clue_perception": 32 * 64}[inference]
    assert figures["token_kinds"]["test"]["read"] > len(tasks) * least


def test_every_recipe_is_run_here():
    """A recipe is an experiment that says which data it takes."""
    from m1lite.configuration import conf_dir

    files = (conf_dir() / "experiment").glob("*.yaml")
    assert {file.stem for file in files if "root=folder" in file.read_text()} == {*RECIPES, *VITAL}
