"""Weights, gates, missing values and the log, by hand."""

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from m1lite.records import Answer
from m1lite.rewards.compose import (
    Breakdown,
    WeightedTerm,
    always,
    compose,
    if_correct,
    scale_by_score,
    term_stats,
)


def constant(value):
    return lambda *_: value


def named(values):
    return lambda sample, episode, trajectory: values[trajectory.agent]


def test_total_is_the_weighted_sum_and_the_breakdown_is_not_weighted(table):
    terms = {
        "result": WeightedTerm(term=named({"ada": 1.0, "bea": -1.0})),
        "format": WeightedTerm(term=constant(0.5), weight=0.25),
    }
    (found,) = compose([table.episode], terms=terms)
    assert found["ada"] == Breakdown(total=1.125, terms={"result": 1.0, "format": 0.5})
    assert found["bea"] == Breakdown(total=-0.875, terms={"result": -1.0, "format": 0.5})


def test_a_missing_value_stays_missing(table):
    terms = {"judge": WeightedTerm(term=named({"ada": None, "bea": 1.0})), "format": WeightedTerm(term=constant(0.5))}
    (found,) = compose([table.episode], terms=terms)
    assert found["ada"] == Breakdown(total=0.5, terms={"judge": None, "format": 0.5})
    only = {"judge": terms["judge"]}
    assert compose([table.episode], terms=only)[0]["ada"].total is None


def test_a_term_that_can_prepare_does_so_once_for_all_episodes(table):
    ahead = []

    class Term:
        def prepare(self, episodes):
            ahead.append(list(episodes))

        def __call__(self, sample, episode, trajectory):
            return float(len(ahead))

    found = compose([table.episode, table.episode], terms={"tool": WeightedTerm(term=Term())})
    assert [breakdown["bea"].total for breakdown in found] == [1.0, 1.0]
    assert ahead == [[table.episode, table.episode]]


def test_gates(table):
    trajectories = table.episode.trajectories
    trajectories["ada"].answer = Answer(text="Blue-Circle")
    trajectories["bea"].answer = Answer(text="green-diamond")
    for gate, paid in ((always, (3.0, 3.0)), (if_correct, (3.0, 0.0)), (scale_by_score, (3.0, 0.0))):
        (found,) = compose([table.episode], terms={"tool": WeightedTerm(term=constant(1.5), weight=2.0, gate=gate)})
        assert (found["ada"].total, found["bea"].total) == paid
        assert found["bea"].terms == {"tool": 1.5}


def test_terms_see_their_own_agent_and_episode(table):
    seen = []

    def term(sample, episode, trajectory):
        seen.append((sample is table.episode.sample, episode is table.episode, trajectory.agent))
        return 0.0

    compose([table.episode], terms={"term": WeightedTerm(term=term)})
    assert seen == [(True, True, "ada"), (True, True, "bea")]


def test_stats_leave_out_and_count_missing_values():
    rows = [
        {"ada": Breakdown(total=1.0, terms={"judge": 1.0}), "bea": Breakdown(total=None, terms={"judge": None})},
        {"ada": Breakdown(total=0.0, terms={"judge": 0.0}), "bea": Breakdown(total=None, terms={"judge": None})},
        {"ada": Breakdown(total=None, terms={"judge": None}), "bea": Breakdown(total=None, terms={"judge": None})},
    ]
    assert term_stats(rows) == {
        "ada/rewards/judge/mean": 0.5,
        "ada/rewards/judge/std": pytest.approx(0.5**0.5),
        "ada/rewards/judge/failed": 1.0,
        "bea/rewards/judge/failed": 3.0,
    }


@pytest.mark.parametrize("convert", ["none", "all"])
def test_a_configuration_gives_the_same_reward(table, convert):
    package = "m1lite.rewards"
    result = {"_target_": f"{package}.terms.Result", "correct": 3.0}
    judge = {"_target_": f"{package}.judge.RuleJudge", "suits": {"choice": ["grounding_tool"]}}
    collaboration = {"_target_": f"{package}.terms.Collaboration", "judge": judge}
    gate = {"_target_": f"{package}.compose.if_correct", "_partial_": True, "threshold": 0.9}
    terms = {
        "result": {"_target_": f"{package}.compose.WeightedTerm", "term": result},
        "judge": {"_target_": f"{package}.compose.WeightedTerm", "term": collaboration, "weight": 0.5, "gate": gate},
    }
    config = {"_target_": f"{package}.compose.compose", "_partial_": True, "_convert_": convert, "terms": terms}
    table.episode.trajectories["ada"].answer = Answer(text="blue-circle")
    table.call("ada", 1, "grounding_tool", event="red-square").call("bea", 1, "grounding_tool", event="red-square")
    (found,) = instantiate(OmegaConf.create(config))([table.episode])
    assert found["ada"] == Breakdown(total=3.5, terms={"result": 3.0, "judge": 1.0})
    assert found["bea"] == Breakdown(total=-1.0, terms={"result": -1.0, "judge": 1.0})


def test_errors_name_the_term_and_the_value(table):
    with pytest.raises(ValueError, match="`terms` is empty"):
        compose([table.episode], terms={})
    with pytest.raises(ValueError, match=r"Reward term 'judge' gave nan .* for agent 'ada' on sample 's'"):
        compose([table.episode], terms={"judge": WeightedTerm(term=constant(float("nan")))})
