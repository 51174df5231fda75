"""How agreement is counted, and the planted trajectories through a real endpoint."""

import pytest

from m1lite.rewards.agreement import PLANTED_SUITS, Agreement, agreement, planted
from m1lite.rewards.asking import Asker
from m1lite.rewards.endpoint import Endpoint
from m1lite.rewards.judge import RuleJudge, Verdict
from m1lite.rewards.model_judge import PlanningJudge

RULES = RuleJudge(PLANTED_SUITS)


def scripted(verdicts):
    """A judge that gives these verdicts in turn."""
    left = iter(verdicts)

    def judge(sample, episode, trajectory):
        good = next(left)
        return None if good is None else Verdict(good=good)

    return judge


def test_by_hand():
    pairs = list(planted().values())[:8]
    ours = [True, True, True, False, False, None, True, False]
    theirs = [True, True, False, False, True, True, None, False]
    found = agreement(scripted(ours), scripted(theirs), pairs)
    assert found == Agreement(compared=6, failed=2, both_good=2, both_bad=2, only_judge_good=1, only_reference_good=1)
    assert found.share == pytest.approx(4 / 6)
    assert found.kappa == pytest.approx((4 / 6 - 0.5) / 0.5)


def test_where_nothing_can_be_said():
    pairs = list(planted().values())[:2]
    nothing = agreement(scripted([None, None]), scripted([True, False]), pairs)
    assert (nothing.compared, nothing.failed, nothing.share, nothing.kappa) == (0, 2, None, None)
    alike = agreement(scripted([True, True]), scripted([True, True]), pairs)
    assert (alike.share, alike.kappa) == (1.0, None)
    assert agreement(RULES, RULES, []).share is None


def test_the_rules_agree_with_themselves_on_what_is_planted():
    scenes = planted()
    found = agreement(RULES, RULES, scenes.values())
    assert (found.share, found.kappa, found.failed) == (1.0, 1.0, 0)
    assert found.both_good == sum(name.startswith("good") for name in scenes) == 8
    for name, (episode, trajectory) in scenes.items():
        assert len(RULES(episode.sample, episode, trajectory).reasons) == (not name.startswith("good")), name


def test_a_model_behind_an_endpoint(stub):
    """What a user runs with a real model: here one that finds all good, and fails on one question."""

    def answer(body):
        if "yellow-triangle" in body["messages"][1]["content"]:
            return 500
        return '{"reasons": [], "feasible": true, "appropriate": true, "managed": true}'

    stub.answer = answer
    asker = Asker(Endpoint(base_url=stub.url, model="m", tries=1, deadline_seconds=20.0))
    found = agreement(PlanningJudge(asker, tools=[], suits=PLANTED_SUITS), RULES, planted().values())
    assert found == Agreement(compared=16, failed=1, both_good=8, both_bad=0, only_judge_good=8, only_reference_good=0)
    assert (found.share, found.kappa) == (0.5, 0.0)
    assert len(stub.requests) == 17
