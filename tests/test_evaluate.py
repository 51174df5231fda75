"""The team of a run plays a split of the run's data."""

import json

import pytest


@pytest.mark.slow
def test_the_test_split_again_gives_the_figures_of_the_run(program, small_run):
    code, out, err = program("m1lite.evaluate", f"run={small_run}", "engine=hf", "batch_size=3", "num_draws=100")
    assert code == 0, err
    file = small_run / "evaluation-test" / "metrics.json"
    found, trained = json.loads(file.read_text()), json.loads((small_run / "metrics.json").read_text())
    assert found["stages"]["marl"] == trained["stages"]["marl"]
    assert found["temperature"] == 1.0
    assert found["tokens"]["test"] == trained["stages"]["marl"]["tokens"] == sum(found["token_kinds"]["test"].values())
    table = (small_run.parent / "printed.txt").read_text()
    rows = [line for line in out.splitlines() if line.startswith(("ada ", "bea ", "cyd ", "dov "))]
    assert len(rows) == 4
    assert all(row in table for row in rows)
    assert out.splitlines()[-1] == f"8 questions of test at temperature 1; the figures are in {file}"


@pytest.mark.slow
def test_greedy_on_another_split(program, small_run):
    arguments = [f"run={small_run}", "engine=hf", "split=val", "temperature=0", "num_draws=100"]
    for _ in range(2):
        code, out, err = program("m1lite.evaluate", *arguments)
        assert code == 0, err
        found = json.loads((small_run / "evaluation-val" / "metrics.json").read_text())
        first = locals().get("first", found["stages"])
    assert found["stages"] == first
    assert found["stages"]["marl"]["team"]["score"]["n"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run=nowhere", "nowhere holds no config.yaml; name the folder of a run, under outputs/."),
        ("", "/outputs; train one, or name its folder with `run=...`."),
        ("run=begun split=tst", "`split` is 'tst'; use one of train val test."),
        ("run=begun temperature=-1", "`temperature` is -1; it must be at least 0, which is greedy."),
        ("run=begun splt=val", "Unknown key `splt`; at the top there are batch_size num_draws run split"),
        (
            "run=begun engine=hff",
            "`engine` names 'hff', which does not exist; there are hf vllm vllm_server. Did you mean 'hf'?",
        ),
    ],
)
def test_bad_input_is_named_with_what_is_allowed(program, tmp_path, arguments, message):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("output_dir: begun\n")
    code, out, err = program("m1lite.evaluate", *arguments.split())
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
