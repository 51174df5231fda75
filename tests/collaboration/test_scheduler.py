"""Coroutines against a plain lock-step loop: the same episodes whatever comes first; and who waits for whom."""

import random
import threading
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m1lite.agents.agent import Agent
from m1lite.collaboration.aggregate import vote
from m1lite.collaboration.loop import run
from m1lite.collaboration.scheduler import Calls, Reached, Scheduler, Task, Until
from m1lite.collaboration.topology import RandomDag, complete, hidden
from m1lite.engines.base import BatchSampler, EngineError, Generation, Request, Sampling
from m1lite.records import Answer, MessageKind, Status, ToolCall, ToolResult, TurnKind
from m1lite.toolbox.base import DirectTools
from tests.collaboration.conftest import BOT, CHAT, make_agents, make_samples
from tests.collaboration.lock_step import LockStep

GROUND = "grounding_tool red-square"
PLANS = ["none", GROUND, f"{GROUND} ; global_sampling", f"{GROUND} ; global_sampling 2 ; rough_browser objects", "fly"]
DECISIONS = ["keep", "revise none", f"revise {GROUND}", "revise global_sampling ; global_sampling 2", "fly", "9 15"]


class Native(Agent):
    """Runs every plan's calls side by side, and has answered as soon as it plans or decides on nothing."""

    def read(self, state, generation):
        message = super().read(state, generation)
        if len(state.steps) > 1:
            state.steps = [tuple(call for step in state.steps for call in step)]
        if message.kind is not MessageKind.ANSWER and message.plan is not None and not message.plan.steps:
            state.answered, message.kind = True, MessageKind.ANSWER
            state.trajectory.answer = Answer(text=f"{state.calls_left} left")
        return message


def reply(request):
    """A reply drawn from the request's seed alone, as a sampling engine would."""
    draw = random.Random(request.seed)
    text = draw.choice(PLANS if list(request.prompt_ids).count(BOT) == 1 else DECISIONS)
    ids = [*CHAT.encode(text), CHAT.end_of_turn_id]
    return Generation(token_ids=ids, logprobs=[-draw.random()] * len(ids), policy_version=0, finish_reason="stop")


def look_up(calls):
    return [ToolResult(text=f"{sample.video} {call.tool} {len(call.args)}") for sample, call in calls]


class Whims:
    """Draws a few of the queued replies at each step, in any order; and some steps draw none."""

    draws_together = False

    def __init__(self, seed):
        self.draw, self.queued, self.num = random.Random(seed), {}, 0

    def submit(self, request):
        self.num += 1
        self.queued[self.num] = request
        return self.num

    def step(self, wait=0.0):
        assert self.queued, "an engine without work is not stepped"
        chosen = self.draw.sample(sorted(self.queued), self.draw.randint(0, min(3, len(self.queued))))
        return [(ticket, reply(self.queued.pop(ticket))) for ticket in chosen]

    @property
    def num_unfinished(self):
        return len(self.queued)

    def abort(self):
        self.queued.clear()


class SlowTools:
    """Ends calls from other threads, later and in any order; some at once."""

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def submit(self, calls, done):
        results, delay = look_up(calls), self.draw.choice([0.0, 0.0, 0.0005, 0.002])
        if delay:
            threading.Timer(delay, done, [results]).start()
        else:
            done(results)


def outcome(episode):
    found = asdict(replace(episode, sample=None))
    return {**found, "sample": episode.sample.id}


TEAMS = st.lists(st.sampled_from([Agent, Native]), min_size=1, max_size=4)


def make_team(kinds):
    agents = make_agents([f"agent{number}" for number in range(len(kinds))])
    return [kind(**vars(agent)) for kind, agent in zip(kinds, agents, strict=True)]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    kinds=TEAMS,
    seed=st.integers(0, 10**6),
    topology=st.sampled_from([complete, hidden, RandomDag(0.5)]),
    max_rounds=st.integers(0, 4),
    max_calls=st.integers(0, 4),
)
def test_episodes_are_those_of_the_lock_step_loop_whatever_comes_first(kinds, seed, topology, max_rounds, max_calls):
    samples, limits = make_samples(2), {"max_rounds": max_rounds, "max_calls": max_calls}
    expected = [
        LockStep(sample, index, make_team(kinds), seed=seed, topology=topology).play(
            lambda requests: [reply(request) for request in requests], look_up, vote, **limits
        )
        for sample in samples
        for index in range(2)
    ]
    options = {"episodes": 2, "seed": seed, "topology": topology, **limits}
    for sampler, tools in (
        (BatchSampler(lambda requests: [reply(request) for request in requests]), DirectTools(look_up)),
        (Whims(seed), DirectTools(look_up)),
        (Whims(seed + 1), SlowTools(seed)),
    ):
        episodes = run(samples, make_team(kinds), sampler, tools, **options)
        assert [outcome(episode) for episode in episodes] == [outcome(episode) for episode in expected]
        assert sampler.num_unfinished == 0


def test_the_reference_plays_what_can_happen():
    """The random episodes above hold calls side by side, dropped ones and early answers."""
    agents = [*make_team([Native, Native]), replace(make_agents(["plain"])[0])]
    episodes = [
        LockStep(sample, 0, agents, seed=seed, topology=complete).play(
            lambda requests: [reply(request) for request in requests], look_up, vote, max_calls=2
        )
        for sample in make_samples(5)
        for seed in range(20)
    ]
    messages = [message for episode in episodes for message in episode.messages]
    statuses = {message.status for message in messages if message.kind is MessageKind.RESULT}
    assert statuses == {Status.OK, Status.CALL_LIMIT}
    turns = [t for e in episodes for part in e.trajectories.values() for t in part.turns if part.agent == "agent0"]
    assert {turn.kind for turn in turns} == set(TurnKind)
    early = [e for e in episodes if e.trajectories["agent0"].turns[-1].kind is not TurnKind.ANSWER]
    assert {"2 left", "0 left"} <= {e.trajectories["agent0"].answer.text for e in early}
    rounds = [(m.author, m.round) for e in episodes[:40] for m in e.messages if m.kind is MessageKind.RESULT]
    assert max(map(rounds.count, rounds)) > 1


def test_an_agent_waits_only_for_those_it_reads():
    """Cyd's tool hangs; bea, who does not read it, is done before it ends, and ada, who does, is not."""
    hanging, told = threading.Event(), []

    class Tools:
        def submit(self, calls, done):
            ((_, call),) = calls
            if call.args:
                threading.Thread(target=lambda: hanging.wait(30) and done(look_up(calls))).start()
            else:
                done(look_up(calls))

    def scripted(request):
        turn = list(request.prompt_ids).count(BOT) - 1
        if turn == 0:
            text = GROUND if request.policy == "cyd" else "global_sampling"
        else:
            text = "red-square 9 15" if "answer :" in CHAT.tokenizer.decode(list(request.prompt_ids)[-8:]) else "keep"
        told.append((request.policy, turn))
        if told.count(("bea", 2)) == 1:
            hanging.set()
        ids = [*CHAT.encode(text), CHAT.end_of_turn_id]
        return Generation(token_ids=ids, logprobs=[0.0] * len(ids), policy_version=0, finish_reason="stop")

    readers = {"ada": ("cyd",), "bea": (), "cyd": ()}
    sampler = BatchSampler(lambda requests: [scripted(request) for request in requests])
    sampler.draws_together = False  # or it would wait for the tool
    (episode,) = run(
        make_samples(1),
        make_agents(["ada", "bea", "cyd"]),
        sampler,
        Tools(),
        episodes=1,
        seed=0,
        topology=lambda names, rng: readers,
    )
    assert told.index(("bea", 2)) < told.index(("ada", 1)), "bea has answered before ada may take its second turn"
    assert {turn.round for part in episode.trajectories.values() for turn in part.turns[2:]} == {2}
    assert [message.author for message in episode.messages] == ["ada", "bea", "cyd"] * 4


def ask(policy="ada"):
    return Request(policy=policy, prompt_ids=[1], sampling=Sampling(), seed=0)


def task_of(coroutine):
    task = Task()
    task.coroutine = coroutine
    return task


def test_without_work_for_an_engine_it_waits_for_tools_and_does_not_spin():
    class Tools:
        def submit(self, calls, done):
            threading.Timer(0.3, done, [look_up(calls)]).start()

    def idle():
        sample = make_samples(1)[0]
        (result,) = yield Calls(sample=sample, calls=[ToolCall(tool="wait", args={})])
        assert result.text == "v0 wait 0"

    class Counting(Scheduler):
        def _take_results(self):
            looks.append(1)
            super()._take_results()

    looks = []
    Counting(Whims(0), Tools()).run([task_of(idle()) for _ in range(8)])
    assert len(looks) <= 2 * 8 + 1


def test_waiting_in_a_circle_is_an_error():
    tasks = [Task(), Task()]

    def wait(other):
        yield Reached(0)
        yield Until(other, 1)

    tasks[0].coroutine, tasks[1].coroutine = wait(tasks[1]), wait(tasks[0])
    with pytest.raises(RuntimeError, match="2 of 2 tasks wait for one another in a circle"):
        Scheduler(Whims(0), DirectTools(look_up)).run(tasks)


def test_a_refused_request_or_a_failing_step_leaves_nothing_queued(script, agents, samples):
    team = script({"ada": [GROUND]})
    long = [replace(agents(["ada"])[0]), replace(agents(["bea"])[0], name="eve")]
    with pytest.raises(EngineError, match="No policy 'eve' in this engine"):
        run(samples(4), long, team.engine, team.tools, episodes=2, seed=0)
    assert team.engine.num_unfinished == 0
    team.engine.reply = lambda request: []
    with pytest.raises(EngineError, match="returned no token"):
        run(samples(4), agents(["ada"]), team.engine, team.tools, episodes=2, seed=0)
    assert team.engine.num_unfinished == 0


def test_an_error_in_a_tool_function_is_raised_and_nothing_stays_queued(script, agents, samples):
    team = script({"ada": [GROUND], "bea": ["none"]})
    with pytest.raises(ZeroDivisionError):
        run(samples(4), agents(["ada", "bea"]), team.engine, DirectTools(lambda calls: 1 / 0), episodes=2, seed=0)
    assert team.engine.num_unfinished == 0


def test_requests_of_one_policy_are_submitted_as_neighbours():
    submitted = []

    class Noting(Whims):
        def submit(self, request):
            submitted.append(request.policy)
            return super().submit(request)

    def play(policy):
        yield ask(policy)

    Scheduler(Noting(0), DirectTools(look_up)).run([task_of(play(policy)) for policy in "abcabc"])
    assert submitted == list("aabbcc")
