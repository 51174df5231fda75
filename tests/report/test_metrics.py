"""The figures of a run: their keys, which questions are paired, and how the blind baseline is chosen."""

import json
from math import inf, nan
from pathlib import Path
from statistics import fmean

import pytest

from m1lite.baselines import BlindResult
from m1lite.evaluation import gain, team_scores
from m1lite.metrics.bootstrap import holm
from m1lite.report.metrics import OTHER_VIDEO, compile_metrics, strict_json

FIGURE = {"mean", "ci95", "n"}


def uneven(video, task):
    return (video % 3 - 1) / 2 + (0.25 if task == "choice" else 0.0)


def plus(step):
    return lambda video, task: uneven(video, task) + step


def blind(task, validation, score, videos=6):
    scores = {f"v{video}-{task}": score for video in range(videos)}
    return BlindResult(task=task, name=f"constant {task}", validation=validation, scores=scores)


def no_constants(token):
    raise AssertionError(f"{token} is no JSON")


@pytest.fixture
def everything(verdicts):
    return {
        "untrained": verdicts(plus(-0.4), videos=3),
        "sft": verdicts(plus(0.0)),
        "sft_greedy": verdicts(plus(0.05)),
        "marl": verdicts(plus(0.3)),
        "marl_greedy": verdicts(plus(0.25)),
        "more_sft": verdicts(plus(0.1)),
        "marl_hidden": verdicts(plus(0.2), agents={"ada": plus(0.2), "bea": plus(-0.2)}),
        "marl_hidden_val": verdicts(plus(0.2), agents={"ada": plus(0.0), "bea": plus(0.1)}, offset=100),
        "marl_other_video": verdicts(plus(-0.6)),
        "marl_other_video_val": verdicts(plus(-0.6), offset=100),
    }


BLIND = [blind("choice", -0.125, 0.0), blind("grounding", -0.2, -0.5)]


def test_keys_are_those_that_programs_read(everything):
    metrics = compile_metrics(everything, BLIND, num_draws=200)
    assert metrics.keys() == {"stages", "gains", "blind"}
    assert metrics["stages"].keys() == everything.keys()
    for stage in metrics["stages"].values():
        assert stage["agents"].keys() == {"ada", "bea"}
        for figures in (stage["team"], *stage["agents"].values()):
            assert figures.keys() == {"score", "tasks", "parse_share"}
            for estimate in (figures["score"], figures["parse_share"], *figures["tasks"].values()):
                assert estimate.keys() == FIGURE
                assert len(estimate["ci95"]) == 2
            assert figures["tasks"].keys() == {"choice", "grounding"}
    assert metrics["gains"].keys() == {
        *("sft_minus_untrained", "marl_minus_sft", "marl_minus_sft_greedy", "marl_minus_more_sft"),
        *("marl_minus_blind", "team_minus_best_agent_hidden"),
    }
    for found in metrics["gains"].values():
        assert found.keys() >= FIGURE | {"tasks"}
        assert all(part.keys() >= FIGURE for part in found["tasks"].values())
        assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]


def test_gains_are_differences_of_the_right_evaluations(everything):
    gains = compile_metrics(everything, BLIND, num_draws=200)["gains"]
    means = {name: found["mean"] for name, found in gains.items()}
    above = [fmean(0.3 + uneven(video, task) - score for video in range(6)) for task, score in
             (("choice", 0.0), ("grounding", -0.5))]  # fmt: skip
    assert means == pytest.approx(
        {
            "sft_minus_untrained": 0.4,
            "marl_minus_sft": 0.3,
            "marl_minus_sft_greedy": 0.2,
            "marl_minus_more_sft": 0.2,
            "marl_minus_blind": fmean(above),
            "team_minus_best_agent_hidden": 0.5,
        }
    )
    assert gains["team_minus_best_agent_hidden"]["agent"] == "bea", "chosen on validation, where ada is worse"


def test_pairs_are_the_questions_that_both_played(everything):
    found = compile_metrics(everything, BLIND, num_draws=200)["gains"]["sft_minus_untrained"]
    assert (found["n"], found["tasks"]["choice"]["n"]) == (6, 3)
    part = [row for row in everything["untrained"] if row.video == "v1"]
    some = {**everything, "untrained": part, "marl_hidden": everything["marl_hidden"] + part}
    assert compile_metrics(some, BLIND, num_draws=50)["gains"]["sft_minus_untrained"]["n"] == 2
    fewer = {**everything, "marl": everything["marl"][:4]}
    gains = compile_metrics(fewer, BLIND, num_draws=50)["gains"]
    assert {gains[name]["n"] for name in gains if name.startswith(("marl_minus_s", "marl_minus_b", "team"))} == {4, 12}
    assert gains["marl_minus_sft"]["n"] == gains["marl_minus_blind"]["n"] == 4
    assert gains["team_minus_best_agent_hidden"]["n"] == 4
    assert gains["team_minus_best_agent_hidden"]["mean"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("on_validation", "chosen"), [(-0.25, "constant choice"), (-0.125, "constant choice"), (0.0, OTHER_VIDEO)]
)
def test_the_blind_baseline_is_chosen_on_validation(verdicts, on_validation, chosen):
    """Whatever either would score on test."""
    other = verdicts(lambda video, task: 0.75)
    held = verdicts(lambda video, task: on_validation if task == "choice" else -1.0, offset=100)
    runs = {"marl": verdicts(plus(0.0)), "marl_other_video": other, "marl_other_video_val": held}
    metrics = compile_metrics(runs, BLIND, num_draws=50)
    assert metrics["blind"]["choice"] == {"name": chosen, "score": 0.75 if chosen == OTHER_VIDEO else 0.0}
    assert metrics["blind"]["grounding"] == {"name": "constant grounding", "score": -0.5}
    scores = {"choice": 0.75 if chosen == OTHER_VIDEO else 0.0, "grounding": -0.5}
    for task, part in metrics["gains"]["marl_minus_blind"]["tasks"].items():
        assert part["mean"] == pytest.approx(fmean(uneven(video, task) for video in range(6)) - scores[task])


def test_tests_over_tasks_are_corrected_by_holm(verdicts):
    marl = verdicts(lambda video, task: uneven(video, task) + (0.0 if task == "choice" else 0.35), videos=9)
    results = [blind("choice", 0.0, 0.0, videos=9), blind("grounding", 0.0, 0.0, videos=9)]
    found = compile_metrics({"marl": marl}, results, num_draws=2000)["gains"]["marl_minus_blind"]["tasks"]
    plain = {task: part["p_value"] for task, part in found.items()}
    assert 0 < plain["grounding"] < plain["choice"] < 1
    assert found["grounding"]["p_value_holm"] == pytest.approx(min(1, 2 * plain["grounding"]))
    assert {task: part["p_value_holm"] for task, part in found.items()} == holm(plain)
    alone = gain(team_scores(marl), results[0].scores, [row for row in marl if row.task == "choice"], num_draws=2000)
    assert plain["choice"] == alone["p_value"]


def test_what_was_not_played_is_left_out(everything, verdicts):
    assert compile_metrics({}, [], num_draws=10) == {"stages": {}, "gains": {}, "blind": {}}
    some = compile_metrics({"sft": everything["sft"], "marl": everything["marl"]}, [], num_draws=50)
    assert some["gains"].keys() == {"marl_minus_sft"}
    assert compile_metrics({"sft": everything["sft"]}, BLIND, num_draws=50)["gains"] == {}


def test_one_video_has_no_interval_and_no_test(everything):
    one = {name: [row for row in rows if row.video in ("v1", "v101")] for name, rows in everything.items()}
    metrics = compile_metrics(one, BLIND, num_draws=50)
    found = metrics["gains"]["marl_minus_blind"]
    assert (found["ci95"], found["p_value"], found["n"]) == ([None, None], None, 2)
    assert {part["p_value_holm"] for part in found["tasks"].values()} == {None}
    assert metrics["stages"]["marl"]["team"]["score"]["ci95"] == [None, None]
    assert json.loads(json.dumps(metrics, allow_nan=False), parse_constant=no_constants) == metrics


def test_figures_are_strict_json(everything):
    metrics = {**compile_metrics(everything, BLIND, num_draws=50), "seed": 0, "ceiling": None}
    assert json.loads(strict_json(metrics), parse_constant=no_constants) == metrics
    odd = {"a": nan, "b": [inf, (1.5, -inf)], "c": {"d": nan, "e": "NaN", "f": True}, "g": Path("out")}
    assert json.loads(strict_json(odd), parse_constant=no_constants) == {
        "a": None,
        "b": [None, [1.5, None]],
        "c": {"d": None, "e": "NaN", "f": True},
        "g": "out",
    }
