import pytest

from m1lite.engines.base import EngineError, EngineGroup, Request, Sampling
from m1lite.engines.scripted import ScriptedEngine


class Counting(ScriptedEngine):
    """Counts batches and closings."""

    def __init__(self, token, policies):
        super().__init__(lambda request: [token, request.seed], policies=policies)
        self.batches, self.closed = [], 0

    def generate(self, requests):
        self.batches.append(len(requests))
        return super().generate(requests)

    def close(self):
        self.closed += 1


@pytest.fixture
def parts():
    return Counting(1, ["ada", "bea"]), Counting(2, ["cyd"])


@pytest.fixture
def group(parts):
    return EngineGroup({"ada": parts[0], "bea": parts[0], "cyd": parts[1]})


def test_a_mixed_batch_is_one_batch_for_each_engine_and_comes_back_in_order(group, parts):
    policies = ["cyd", "ada", "bea", "cyd", "ada"]
    replies = group.generate(
        [Request(policy=p, prompt_ids=[1], sampling=Sampling(), seed=s) for s, p in enumerate(policies)]
    )
    assert [reply.token_ids for reply in replies] == [[2, 0], [1, 1], [1, 2], [2, 3], [1, 4]]
    assert [part.batches for part in parts] == [[3], [2]]


def test_weights_go_to_the_engine_of_the_policy(group, parts):
    group.load_adapter("cyd", {}, {}, 4)
    assert group.versions() == {"ada": 0, "bea": 0, "cyd": 4}
    assert parts[1].versions() == {"cyd": 4}


def test_every_engine_is_closed_once(group, parts):
    group.close()
    assert [part.closed for part in parts] == [1, 1]


def test_an_unknown_policy_is_named_with_what_there_is(group):
    with pytest.raises(EngineError, match=r"policy 'eve'; there are \['ada', 'bea', 'cyd'\]"):
        group.engine_of("eve")
