"""VITAL's four stages as one command: the second run starts from what the first has learnt; each can be continued."""

import json
from functools import partial

import pytest
import torch

from m1lite.chain import handed_over, run_chain, start_training
from m1lite.configuration import ConfigError, compose, run_config
from m1lite.modules.adapters import read_adapter
from m1lite.modules.bases import load_base

STAGES = ("vital_reasoning", "vital_tool")
THOUGHT = "<think>red from 1 to 3</think>"
ANSWER = f"{THOUGHT}<answer>1.00 to 3.00</answer>"
CALL = f'{THOUGHT}<tool_call>{{"name": "video_clip", "arguments": {{"start": 0, "end": 4, "fps": 1}}}}</tool_call>'
TINY = [
    *("team=tiny_seeing", "trainer=cpu", "engine=hf", "engine.dtype=float32", "~engine.kv_cache_bytes", "logger=csv"),
    *("trainer.devices=1", "trainer.max_steps=1", "trainer.limit_val_batches=0", "data.batch_size=2"),
    *(
        "collaboration.episodes=2",
        "evaluation.num_draws=50",
        "team.sampling.max_new_tokens=8",
        "marl.optimizer.lr=0.01",
    ),
    *("team.bases.seer.hidden_size=64", "team.bases.seer.num_layers=1", "~team.bases.seer.dtype"),
    *("sft.cold_start.schedule.batch_size=2", "sft.cold_start.schedule.steps=2", "sft.cold_start.validation_traces=1"),
    *("sft.cold_start.schedule.num_validations=1", "sft.cold_start.optimizer.lr=1e-3"),
    # Replies of a random policy all earn the same, from which nothing is learnt; these differ.
    "rewards.terms.tool.term={_target_: hydra.utils.get_method, path: tests.test_chain.parity}",
]


def parity(sample, episode, trajectory):
    """Differ between episodes of any policy."""
    return float(episode.index % 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory, clip):
    """Data of both runs."""
    root = tmp_path_factory.mktemp("vital")
    for part, replies in (("reasoning", [ANSWER]), ("tool", [CALL, ANSWER])):
        folder = root / part
        folder.mkdir()
        rows = [
            {"id": f"q{n}", "video": clip, "task": "grounding", "question": "when is it red?", "spans": [[1, 3]]}
            for n in range(3)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        for split in ("sft", "train", "val", "test"):
            (folder / f"{split}.jsonl").write_text(text)
        traces = "".join(json.dumps({"id": row["id"], "replies": replies}) + "\n" for row in rows)
        (folder / "sft_replies.jsonl").write_text(traces)
    return root


def in_this_process(arguments, started, stop_at=None):
    """Run a training as ``python -m m1lite.train`` does, or stop it before its RL."""
    from omegaconf import OmegaConf

    from m1lite.build import build_stages
    from m1lite.ledger import write_whole
    from m1lite.stages import Stages

    started.append(arguments)
    folder = arguments[0].removeprefix("resume=") if arguments[0].startswith("resume=") else None
    config = run_config(folder) if folder else compose([a for a in arguments if not a.startswith("hydra")])
    from pathlib import Path

    write_whole(Path(config.output_dir) / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    stages: Stages = build_stages(config)
    if stop_at is not None and stop_at in config.output_dir:
        stages._train = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            stages.run()
        return 130
    stages.run()
    return 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_four_stages_run_as_one_and_are_continued(root, tmp_path, capfd):
    place = tmp_path / "run"
    overrides = ["experiment=vital", *TINY, f"root={root}", f"cache_dir={tmp_path}", f"hydra.run.dir={place}"]
    first, second = place / "1_vital_reasoning", place / "2_vital_tool"
    place.mkdir()

    started = []
    code = run_chain(STAGES, overrides, place, start=partial(in_this_process, started=started, stop_at="2_vital_tool"))
    assert code == 130
    assert f"python -m m1lite.train resume={place}" in capfd.readouterr().out
    assert started[0][0] == "experiment=vital_reasoning"
    assert f"team.bases.seer.directory='{first / 'merged' / 'seer'}'" in started[1]
    assert (second / "bases" / "seer" / "config.json").is_file(), "its third stage was over"
    trained_bases = (second / "bases" / "seer" / "config.json").stat().st_mtime_ns

    started = []
    assert run_chain(STAGES, ["seed=9"], place, start=partial(in_this_process, started=started)) == 0
    assert started == [[f"resume={second}"]], "the first run is done, the second goes on"
    assert (second / "bases" / "seer" / "config.json").stat().st_mtime_ns == trained_bases
    assert run_config(second).seed == 0, "values of the first call hold"
    for folder, calls in ((first, 0), (second, 1)):
        assert json.loads((folder / "metrics.json").read_text())["stages"]["marl"]
        config = run_config(folder)
        assert (config.collaboration.max_calls, len(config.team.agents.ada.tools)) == (calls, calls)
    assert run_chain(STAGES, [], place, start=partial(pytest.fail, "nothing is left to do")) == 0

    before, after = (load_base(str(path)).model.state_dict() for path in (first / "bases/seer", first / "merged/seer"))
    tensors, config = read_adapter(first / "adapters" / "ada")
    key = next(name for name in tensors if name.endswith("lora_A.weight") and tensors[name].abs().sum() > 0)
    name = key.removeprefix("base_model.model.").removesuffix("lora_A.weight") + "weight"
    change = tensors[key.replace("lora_A", "lora_B")] @ tensors[key] * config["lora_alpha"] / config["r"]
    assert change.abs().max() > 1e-5, "something was learnt"
    torch.testing.assert_close(after[name], before[name] + change, atol=1e-6, rtol=0)


def test_what_cannot_be_handed_over_is_refused(tmp_path):
    def written(**agents):
        text = f"output_dir: {tmp_path}\nteam: {{bases: {{seer: {{name: x}}}}, agents: {json.dumps(agents)}}}\n"
        (tmp_path / "config.yaml").write_text(text)

    written(ada={"base": "seer"}, bea={"base": "seer"})
    with pytest.raises(ConfigError, match="ada, bea share the base 'seer'; a chain hands over one agent of a base"):
        handed_over(tmp_path)
    written(ada={"base": "seer", "full": True})
    with pytest.raises(ConfigError, match=r"`team\.agents\.ada\.full` is set; a chain hands over adapters"):
        handed_over(tmp_path)


def test_a_stage_is_a_process_whose_code_is_given_back(capfd):
    assert start_training(["nothing=1"]) == 2
    assert "Unknown key `nothing`" in capfd.readouterr().err
