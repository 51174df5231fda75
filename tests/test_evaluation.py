"""Playing and scoring a team against plain loops over its episodes, and comparisons against plain means."""

from dataclasses import asdict, replace
from math import nan
from random import Random
from statistics import fmean

import pytest

from m1lite.collaboration.topology import hidden
from m1lite.engines.base import BatchSampler, Sampling
from m1lite.engines.scripted import ScriptedEngine
from m1lite.evaluation import (
    Evaluator,
    OtherVideos,
    Verdict,
    agent_scores,
    best_agent,
    figures,
    gain,
    summary,
    team_scores,
)
from m1lite.metrics.bootstrap import Estimate
from m1lite.records import Answer, Span, Status, ToolCall, ToolResult, TurnKind
from m1lite.rewards.scoring import score_answers
from m1lite.toolbox.base import DirectTools

PLANS = {
    "ada": "grounding_tool red-square ; global_sampling 2",
    "bea": "rough_browser objects",
    "cyd": "this is no plan",
    "dov": "none",
}


@pytest.fixture
def engine(world_agents, samples):
    """Fixed plans; answers are drawn from the request's seed, some of them unreadable."""
    chat, spelling = world_agents[0].chat, world_agents[0].spelling
    asked = {spelling.question(sample): sample for sample in samples}

    def reply(request):
        _, *told = chat.tokenizer.decode(list(request.prompt_ids)).split("<user> ")
        question, last = (told[at].partition(" <bot>")[0] for at in (0, -1))
        draw = Random(request.seed)
        if len(told) == 1:
            text = PLANS[request.policy]
        elif "answer : " in last:
            text = answer(asked[question], draw) if draw.random() < 0.8 else "keep"
        else:
            text = "keep"
        return [*chat.encode(text), chat.end_of_turn_id]

    def answer(sample, draw):
        start = draw.randint(0, 9)
        guess = Answer(
            text=draw.choice(sample.options or ("left", "middle")),
            number=draw.randint(3, 5),
            spans=(Span(start=start, end=start + draw.randint(4, 9)),),
        )
        return spelling.write_answer(guess, sample)

    return ScriptedEngine(reply, policies=list(PLANS), eos_token_ids=[chat.end_of_turn_id], logprob=-0.1)


@pytest.fixture
def evaluator(engine, world_toolbox):
    return Evaluator(sampler=engine, tools=world_toolbox, score=score_answers, seed=5)


@pytest.fixture(scope="module")
def samples(world):
    return world.split("test")


def test_episodes_do_not_depend_on_the_batches(evaluator, world_agents, samples):
    finished = []
    whole = evaluator.play(world_agents, samples, temperature=1.0)
    small = replace(evaluator, batch_size=5).play(world_agents, samples, temperature=1.0, on_batch=finished.append)
    assert [episode.sample for episode in whole] == samples
    assert list(map(asdict_without_times, small)) == list(map(asdict_without_times, whole))
    assert finished == [5, 5, 2]
    other = replace(evaluator, seed=6).play(world_agents, samples, temperature=1.0)
    assert [episode.answer for episode in other] != [episode.answer for episode in whole]


def asdict_without_times(episode):
    found = asdict(replace(episode, trajectories={}))
    turns = {name: asdict(trajectory)["turns"] for name, trajectory in episode.trajectories.items()}
    return {**found, "turns": turns}


def test_temperature_topology_and_tools_are_those_asked_for(evaluator, world_agents, samples):
    seen = []

    def generate(requests):
        seen.extend(requests)
        return evaluator.sampler.generate(requests)

    def broken(calls):
        return [ToolResult(error="no", status=Status.TOOL_ERROR) for _ in calls]

    cold = replace(evaluator, sampler=BatchSampler(generate))
    episodes = cold.play(world_agents, samples[:4], temperature=0.0, topology=hidden, tools=DirectTools(broken))
    assert {request.sampling for request in seen} == {replace(Sampling(), temperature=0.0)}
    assert {agent.sampling.temperature for agent in world_agents} == {1.0}, "the agents themselves stay as they are"
    assert {peers for episode in episodes for peers in episode.visible.values()} == {()}
    results = [result for episode in episodes for result in episode.trajectories["ada"].results]
    assert results
    assert {result.status for result in results} == {Status.TOOL_ERROR}


def test_limits_of_calls_and_rounds_and_the_aggregate_are_passed_on(evaluator, world_agents, samples):
    few = replace(evaluator, max_calls=1, aggregate=lambda trajectories: Answer(number=3))
    episodes = few.play(world_agents, samples[:3], temperature=1.0)
    assert {len(episode.trajectories["ada"].calls) for episode in episodes} == {1}
    assert {episode.answer for episode in episodes} == {Answer(number=3)}
    none = replace(evaluator, max_rounds=0).play(world_agents, samples[:3], temperature=1.0)
    assert {turn.kind for e in none for t in e.trajectories.values() for turn in t.turns} == {
        TurnKind.PLAN,
        TurnKind.ANSWER,
    }


def test_verdicts_are_plain_counts_of_the_episodes(evaluator, world_agents, samples):
    episodes = evaluator.play(world_agents, samples, temperature=1.0)
    verdicts = evaluator.verdicts(episodes)
    assert len(verdicts) == len(samples)
    assert len({score for verdict in verdicts for score in (verdict.team, *verdict.agents.values())}) > 3
    assert len({share for verdict in verdicts for share in verdict.parsed.values()}) > 2
    for episode, verdict in zip(episodes, verdicts, strict=True):
        sample = episode.sample
        assert (verdict.sample_id, verdict.video, verdict.task) == (sample.id, sample.video, sample.task.value)
        assert verdict.team == pytest.approx(2 * score_answers([sample], [episode.answer])[0] - 1)
        calls = sampled = read = 0
        for name, trajectory in episode.trajectories.items():
            assert verdict.agents[name] == 2 * score_answers([sample], [trajectory.answer])[0] - 1
            good = [turn for turn in trajectory.turns if turn.status == "ok"]
            assert verdict.parsed[name] == len(good) / len(trajectory.turns)
            calls += len(trajectory.calls)
            sampled += sum(len(turn.reply_ids) for turn in trajectory.turns)
            read += sum(len(turn.prompt_ids) for turn in trajectory.turns)
        assert (verdict.calls, verdict.sampled_tokens, verdict.read_tokens) == (calls, sampled, read)
    assert evaluator.verdicts([]) == []


def test_tools_see_another_video_and_never_the_own_one(world_toolbox, samples):
    calls = [(sample, ToolCall(tool="rough_browser", args={"question": "objects"})) for sample in samples]
    seen = []

    def watched(moved):
        seen.extend(moved)
        return world_toolbox.run(moved)

    found = []
    OtherVideos(samples, DirectTools(watched)).submit(calls, found.extend)
    lengths = {sample.video: sample.duration for sample in samples}
    followed = {}
    for (own, call), (moved, moved_call) in zip(calls, seen, strict=True):
        assert moved.video != own.video
        assert moved.duration == lengths[moved.video]
        assert moved_call is call
        assert replace(moved, video=own.video, duration=own.duration) == own
        assert followed.setdefault(own.video, moved.video) == moved.video
    assert sorted(followed.values()) == sorted(followed), "every video is shown once"
    direct = [world_toolbox.run([(moved, call)])[0].text for moved, call in seen]
    assert [result.text for result in found] == direct
    assert direct != [result.text for result in world_toolbox.run(calls)]


def test_a_video_of_two_stated_durations_is_one_video(samples):
    one = samples[0]
    longer = replace(one, id="again", duration=one.duration + 0.5)
    with pytest.raises(ValueError, match=r"`samples` show 1 video\(s\); another video's results need at least 2"):
        OtherVideos([one, longer], DirectTools(lambda calls: []))
    other = next(sample for sample in samples if sample.video != one.video)
    seen = []
    tools = DirectTools(lambda calls: seen.extend(calls) or [])
    OtherVideos([one, other, longer], tools).submit([(one, None), (longer, None)], list)
    assert {moved.video for moved, _ in seen} == {other.video}


def verdict(name, video, task, team, **agents):
    return Verdict(
        sample_id=name,
        video=video,
        task=task,
        team=team,
        agents=agents or {"ada": 0.0},
        parsed=dict.fromkeys(agents or {"ada": 0.0}, 0.5),
        calls=2,
        sampled_tokens=10,
        read_tokens=100,
    )


ROWS = [
    verdict("a1", "a", "choice", 1.0, ada=1.0, bea=0.0),
    verdict("a2", "a", "choice", -1.0, ada=1.0, bea=0.0),
    verdict("a3", "a", "counting", 0.5, ada=-1.0, bea=0.5),
    verdict("b1", "b", "choice", 0.0, ada=1.0, bea=0.2),
    verdict("b2", "b", "counting", 0.25, ada=-1.0, bea=0.1),
    verdict("c1", "c", "counting", -0.5, ada=-1.0, bea=0.0),
    verdict("c2", "c", "choice", 0.75, ada=0.5, bea=0.0),
]


def test_summary_is_made_of_means_over_tasks():
    found = summary(ROWS, num_draws=300)
    assert found.keys() == {"team", "agents", "tokens", "calls"}
    assert (found["tokens"], found["calls"]) == (770, 14)
    assert found["agents"].keys() == {"ada", "bea"}
    for figures_, scores in (
        (found["team"], [row.team for row in ROWS]),
        *((found["agents"][name], [row.agents[name] for row in ROWS]) for name in ("ada", "bea")),
    ):
        assert figures_.keys() == {"score", "tasks", "parse_share"}
        means = {
            task: fmean(score for score, row in zip(scores, ROWS, strict=True) if row.task == task)
            for task in ("choice", "counting")
        }
        for estimate, mean in [
            (figures_["score"], fmean(means.values())),
            (figures_["parse_share"], 0.5),
            *((figures_["tasks"][task], means[task]) for task in means),
        ]:
            assert estimate.keys() == {"mean", "ci95", "n"}
            assert estimate["mean"] == pytest.approx(mean)
            low, high = estimate["ci95"]
            assert low <= estimate["mean"] + 1e-9
            assert high >= estimate["mean"] - 1e-9
        assert figures_["score"]["n"] == 7
        assert figures_["tasks"].keys() == means.keys()
        assert figures_["tasks"]["choice"]["n"] == 4


def test_shares_of_agents_are_their_own():
    rows = [replace(row, parsed={"ada": 1.0, "bea": 0.5}) for row in ROWS]
    found = summary(rows, num_draws=100)
    assert found["agents"]["ada"]["parse_share"]["mean"] == 1.0
    assert found["agents"]["bea"]["parse_share"]["mean"] == 0.5
    assert found["team"]["parse_share"]["mean"] == 0.75


def test_gain_pairs_by_question_and_keeps_to_the_questions_given():
    first = team_scores(ROWS)
    second = {row.sample_id: row.team - (0.5 if row.task == "choice" else 0.1) for row in reversed(ROWS)}
    found = gain(first, second, ROWS, num_draws=300)
    assert found["mean"] == pytest.approx(0.3)
    assert found["n"] == 7
    assert {task: part["mean"] for task, part in found["tasks"].items()} == pytest.approx(
        {"choice": 0.5, "counting": 0.1}
    )
    constant = gain(first, {name: score - 0.4 for name, score in first.items()}, ROWS, num_draws=300)
    assert constant["ci95"] == pytest.approx([0.4, 0.4]), "no spread, whatever the scores"
    subset = [row for row in ROWS if row.video == "b"]
    part = gain(first, second, subset, num_draws=100)
    assert (part["n"], part["tasks"]["choice"]["n"]) == (2, 1)
    assert part["ci95"] == [None, None]
    assert part["p_value"] is None
    assert part["mean"] == pytest.approx(0.3)


def test_one_video_has_no_interval():
    found = summary([ROWS[0]], num_draws=100)
    assert found["team"]["score"] == {"mean": 1.0, "ci95": [None, None], "n": 1}
    estimate = Estimate(mean=0.5, low=nan, high=nan, n=3, p_value=nan)
    assert figures(estimate) == {"mean": 0.5, "ci95": [None, None], "n": 3, "p_value": None}
    known = Estimate(mean=0.5, low=0.1, high=0.8, n=3, p_value=0.0)
    assert figures(known) == {"mean": 0.5, "ci95": [0.1, 0.8], "n": 3, "p_value": 0.0}


def test_the_best_agent_weighs_tasks_equally():
    rows = [*ROWS, *(verdict(f"x{n}", "x", "choice", 0.0, ada=1.0, bea=0.0) for n in range(9))]
    assert fmean(row.agents["ada"] for row in rows) > fmean(row.agents["bea"] for row in rows)
    assert best_agent(rows) == "bea"
    assert agent_scores(ROWS, "bea") == {"a1": 0.0, "a2": 0.0, "a3": 0.5, "b1": 0.2, "b2": 0.1, "c1": 0.0, "c2": 0.0}
