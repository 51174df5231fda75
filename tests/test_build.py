"""What a configuration's rules of learning become: the training and the studies play by the same callback."""

from functools import partial

import pytest

from m1lite.build import build_learning
from m1lite.callbacks.penalty import KlInReward
from m1lite.configuration import compose
from m1lite.modules.team import Team
from m1lite.rewards.table import difference, totals, turns
from m1lite.rl.credit import mixed
from tests.small_team import MEMBERS, make_bases


def learning(*overrides):
    return build_learning(compose(["output_dir=/tmp/unused", *overrides]))


def played(*overrides):
    return learning(*overrides).rollout([], lambda *args, **kwargs: [], seed=3, validation=None)


def test_the_callback_learns_by_every_rule_of_the_configuration():
    found = played()
    assert (found.table.own, found.penalty, found.refill, found.seed) == (totals, None, None, 3)
    found = played("rl=rloo")
    assert isinstance(found.penalty, KlInReward)
    assert found.penalty.beta == 0.02
    assert played("rl=dapo").refill.max_rounds == 2
    assert played("rl=turns").table.own is turns
    found = played("rl=counterfactual")
    assert found.table.team.func is difference
    assert isinstance(found.credit, partial)
    assert found.credit.func is mixed


def test_agents_that_are_trained_in_full_are_named_in_the_configuration():
    whole = learning("+team.agents.cyd.full=true", "team.adapters.rank=4").make_team(make_bases(), MEMBERS)
    assert isinstance(whole, Team)
    assert list(whole.copies) == ["cyd"]
    assert list(learning().make_team(make_bases(), MEMBERS).copies) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_the_teams_seed_is_the_runs_unless_given(seed):
    made = learning(f"seed={seed}").make_team
    assert made(make_bases(), MEMBERS).fingerprint() == made(make_bases(), MEMBERS, seed=seed).fingerprint()
