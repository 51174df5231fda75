"""Every method learns the toy task to 95 % of its optimum, by the configuration that a run would use."""

import pytest
import torch

from benchmarks.toy_team import METHODS, QUESTIONS, ToyTeam, expected_score, learn, team_right


def test_the_expected_score_is_that_of_playing():
    team = ToyTeam()
    assert expected_score(team) == pytest.approx(3 * (1 / 36) ** 2 - 2 * (1 / 36) ** 3)
    with torch.no_grad():
        for number, table in enumerate(team.tables.values()):
            table += torch.randn(table.shape, generator=torch.Generator().manual_seed(number)) * 3
    questions = torch.arange(QUESTIONS).repeat(20_000)
    played = team_right(team.act(questions, torch.Generator().manual_seed(0))).mean().item()
    assert played == pytest.approx(expected_score(team), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_method_learns(method):
    scores = learn(method)
    assert scores[0] < 0.01
    assert scores[-1] >= 0.95
