"""Questions that teach nothing are replaced, on made-up rollouts and in a real run."""

from functools import partial

import pytest
import torch

from m1lite.callbacks.learning import Rollout
from m1lite.callbacks.refill import Refill
from m1lite.records import Answer, Episode, Sample, Task


def sample(name):
    asked = {"video": "none.mp4", "duration": 9.0, "task": Task.COUNTING, "question": "how many?"}
    return Sample(id=name, answer=Answer(number=1), **asked)


def play(samples, seed, *, teaches, seen):
    """Two episodes of two agents for each sample; only the second agent's rewards ever differ."""
    seen.append([one.id for one in samples])
    episodes = [Episode(sample=one, index=index, seed=seed, visible={}) for one in samples for index in range(2)]
    rows = [[0.5, float(index) if one.id in teaches else 1.0] for one in samples for index in range(2)]
    rewards = torch.tensor(rows).reshape(len(episodes), 2)
    return Rollout(samples=list(samples), episodes=episodes, breakdowns=[{} for _ in episodes], rewards=rewards)


def test_questions_that_teach_nothing_are_replaced_by_others():
    seen = []
    player = partial(play, teaches={"a", "s1", "s4"}, seen=seen)
    own = [sample(name) for name in "abc"]
    spare = [*own, *(sample(f"s{number}") for number in range(6))]
    found, log = Refill(max_rounds=9)(player(own, 0), player, spare, seed=3)
    assert found.samples[0].id == "a"
    assert {one.id for one in found.samples[1:]} == {"s1", "s4"}
    assert [episode.sample.id for episode in found.episodes] == [one.id for one in found.samples for _ in range(2)]
    assert found.rewards.shape == (6, 2)
    played = [name for names in seen for name in names]
    assert len(played) == len(set(played)), "no question may be played twice"
    assert log["refill/missing"] == 0
    assert log["refill/dropped"] == len(played) - 3


def test_what_is_missing_after_the_last_round_stays_missing():
    player = partial(play, teaches={"a"}, seen=(seen := []))
    own = [sample(name) for name in "abc"]
    spare = [sample(f"s{number}") for number in range(20)]
    found, log = Refill(max_rounds=2)(player(own, 0), player, spare, seed=3)
    assert [one.id for one in found.samples] == ["a"]
    assert log == {"refill/rounds": 2.0, "refill/dropped": 6.0, "refill/missing": 2.0}
    nothing, log = Refill()(player([sample("b")], 0), player, [], seed=3)
    assert nothing.episodes == []
    assert nothing.rewards.shape == (0, 2)
    assert log["refill/rounds"] == 0
    assert len(seen) == 4


def test_ranks_draw_from_shares_of_their_own():
    drawn = []
    for rank in range(2):
        player = partial(play, teaches=set(), seen=(seen := []))
        spare = [sample(f"s{number}") for number in range(8)]
        Refill(max_rounds=4)(player([sample("b")], 0), player, spare, seed=3, share=(rank, 2))
        drawn.append({name for names in seen[1:] for name in names})
    assert not drawn[0] & drawn[1]
    assert len(drawn[0] | drawn[1]) == 8


def test_without_a_data_module_there_is_nothing_to_draw_from(campaign):
    run = campaign()
    run.rollout.refill = Refill()
    with pytest.raises(ValueError, match="`refill` draws from the training split"):
        run.fit(steps=1)
    with pytest.raises(ValueError, match="`max_rounds` is 0; it must be at least 1"):
        Refill(max_rounds=0)
