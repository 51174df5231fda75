import pytest

from m1lite.engines.base import BatchSampler, EngineError, EngineGroup, Generation, Request, Sampling, draw_all
from m1lite.engines.scripted import ScriptedEngine


class Counting(ScriptedEngine):
    """Counts batches and closings."""

    def __init__(self, token, policies):
        super().__init__(lambda request: [token, request.seed], policies=policies)
        self.batches, self.closed = [], 0

    def step(self, wait=0.0):
        self.batches.append(self.num_unfinished)
        return super().step(wait)

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


def ask(policy, seed=0):
    return Request(policy=policy, prompt_ids=[1], sampling=Sampling(), seed=seed)


def test_requests_of_several_engines_are_under_way_together_and_every_step_goes_on_with_all(group, parts):
    first, second = group.submit(ask("ada", 1)), group.submit(ask("cyd", 2))
    assert (group.num_unfinished, [part.num_unfinished for part in parts]) == (2, [1, 1])
    drawn = dict(group.step())
    assert {ticket: reply.token_ids for ticket, reply in drawn.items()} == {first: [1, 1], second: [2, 2]}
    assert group.num_unfinished == 0
    assert group.step() == []
    third = group.submit(ask("ada"))
    assert third not in drawn
    assert group.busy_seconds > 0


def test_a_failing_engine_takes_what_is_queued_with_the_others_along(group, parts):
    parts[0].reply = lambda request: []
    for policy in ("cyd", "ada"):
        group.submit(ask(policy))
    with pytest.raises(EngineError, match="policy 'ada' returned no token"):
        group.step()
    assert group.num_unfinished == 0
    group.submit(ask("cyd"))
    assert len(group.step()) == 1


def test_aborted_requests_are_never_heard_of_again(group):
    group.submit(ask("ada"))
    group.submit(ask("cyd"))
    group.abort()
    assert group.num_unfinished == 0
    last = group.submit(ask("ada", 5))
    assert [(ticket, reply.token_ids) for ticket, reply in group.step()] == [(last, [1, 5])]


def test_a_batch_is_not_drawn_beside_what_is_under_way(group):
    group.submit(ask("ada"))
    with pytest.raises(EngineError, match="1 replies are under way in this engine; finish them with `step`"):
        group.generate([ask("ada")])


def test_a_function_of_batches_is_a_sampler():
    batches = []

    def generate(requests):
        batches.append([request.seed for request in requests])
        return [
            Generation(token_ids=[r.seed], logprobs=[0.0], policy_version=0, finish_reason="stop") for r in requests
        ]

    sampler = BatchSampler(generate)
    tickets = [sampler.submit(ask("ada", seed)) for seed in (4, 5)]
    assert sampler.num_unfinished == 2
    assert [(ticket, reply.token_ids) for ticket, reply in sampler.step()] == [(tickets[0], [4]), (tickets[1], [5])]
    assert (sampler.step(), batches) == ([], [[4, 5]])
    assert [reply.token_ids for reply in draw_all(sampler, [ask("ada", seed) for seed in (7, 6)])] == [[7], [6]]


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
