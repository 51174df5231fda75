"""Rewards as tensors: totals, terms and turns of breakdowns, and what the team owes to a vote."""

from functools import partial

import pytest
import torch

from m1lite.collaboration.aggregate import designated, vote
from m1lite.records import Answer, Episode, Sample, Task, Trajectory
from m1lite.rewards.compose import Breakdown, WeightedTerm, compose
from m1lite.rewards.table import RewardTable, difference, difference_by_dropout, team_scores, terms, totals, turns
from m1lite.rl.advantages import per_agent, reinforce_pp
from m1lite.rl.credit import mixed, team

AGENTS = ("ada", "bea", "cyd")


def episode(*numbers, truth=3, sample="q", visible=None):
    question = Sample(
        id=sample, video="a.mp4", duration=9.0, task=Task.COUNTING, question="how many?", answer=Answer(number=truth)
    )
    trajectories = {
        name: Trajectory(agent=name, answer=None if number is None else Answer(number=number))
        for name, number in zip(AGENTS, numbers, strict=True)
    }
    everybody = {name: tuple(peer for peer in AGENTS if peer != name) for name in AGENTS}
    played = Episode(sample=question, index=0, seed=0, visible=visible or everybody, trajectories=trajectories)
    played.answer = vote(trajectories)
    return played


def breakdown(total, shares=None, per_turn=()):
    return {"ada": Breakdown(total=total, shares=shares or {}, turns=per_turn)}


def test_totals_terms_and_turns_by_hand():
    rows = [breakdown(1.0, {"a": 0.5, "b": 0.5}, (0.1, 0.2)), breakdown(None, {"a": None, "b": -1.0}, (0.3,))]
    assert totals(rows, ["ada"]).nan_to_num(9.0).tolist() == [[1.0], [9.0]]
    assert terms(rows, ["ada"]).nan_to_num(9.0).tolist() == [[[0.5, 0.5]], [[9.0, -1.0]]]
    found = turns(rows, ["ada"]).nan_to_num(9.0)
    assert found[:, 0].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3, 9.0])
    with pytest.raises(ValueError, match="give `compose` its `turns`"):
        turns([breakdown(1.0)], ["ada"])


def test_a_vote_is_worth_what_the_team_would_lose_without_it():
    # The vote decides for 3; without ada or bea it is a tie that the earlier agent wins.
    played = [episode(3, 3, 4), episode(3, 4, 4), episode(3, None, 4), episode(4, 4, 4)]
    assert team_scores(played).tolist() == [1.0, -1.0, 1.0, -1.0]
    for number, one in enumerate(played):
        for column, agent in enumerate(AGENTS):
            others = {name: part for name, part in one.trajectories.items() if name != agent}
            without = vote(others)
            expected = team_scores([one])[0] - (2 * float(without is not None and without.number == 3) - 1)
            assert difference(played)[number, column] == expected


def test_an_agent_whose_vote_never_matters_gets_no_signal():
    played = [episode(*(3, 3) if number % 2 else (4, 4), number % 5) for number in range(8)]
    table = RewardTable(team=difference)
    own, credit = table(played, [{name: Breakdown(total=1.0) for name in AGENTS} for _ in played], AGENTS)
    advantages = per_agent(team(own, credit), torch.zeros(8, dtype=torch.long), partial(reinforce_pp, baseline=True))
    assert torch.equal(advantages[:, 2], torch.zeros(8))
    assert torch.equal(mixed(own, credit, team_share=0.5)[:, 2], torch.full((8,), 0.5))


def test_a_designated_agent_carries_the_whole_team():
    played = [episode(4, 4, 3)]
    played[0].answer = designated("cyd")(played[0].trajectories)
    assert difference(played, aggregate=designated("cyd")).tolist() == [[0.0, 0.0, 2.0]]
    assert difference([]).shape == (0, 0)


def test_dropout_compares_episodes_in_which_an_agent_was_heard():
    heard = {"ada": ("cyd",), "bea": (), "cyd": ()}
    silent = {"ada": ("bea",), "bea": (), "cyd": ("bea",)}
    played = [episode(3, 3, 3, visible=heard), episode(4, 4, 4, visible=silent, sample="other")]
    found = difference_by_dropout(played)
    assert found.nan_to_num(9.0).tolist() == [[9.0, 9.0, 2.0], [9.0, -2.0, 9.0]]
    assert difference_by_dropout(played, across_samples=False).isnan().all()
    assert difference_by_dropout([]).shape == (0, 0)


def test_compose_keeps_what_each_term_adds():
    def half(sample, played, trajectory):
        return 0.5

    def unknown(sample, played, trajectory):
        return None

    weighted = {"half": WeightedTerm(term=half, weight=3.0), "unknown": WeightedTerm(term=unknown)}
    found = compose([episode(3, 3, 3)], terms=weighted, turns=lambda *given: (given[-1], None))
    assert found[0]["bea"].shares == {"half": 1.5, "unknown": None}
    assert found[0]["bea"].turns == (1.5, None)
    assert totals(found, AGENTS).tolist() == [[1.5] * 3]
