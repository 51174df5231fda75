"""The collaboration loop against scripts: who acts when, who reads what, and that batching changes nothing."""

import random
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m1lite.agents.chat import Chat
from m1lite.agents.compact import CompactSpelling
from m1lite.collaboration.loop import derive_seed, run
from m1lite.collaboration.topology import RandomDag, hidden
from m1lite.modules.tiny import tiny_tokenizer
from m1lite.records import Answer, MessageKind, Span, Status, ToolResult, TurnKind
from m1lite.toolbox.base import DirectTools
from m1lite.toolbox.classical import CLASSICAL_TOOLS

CHAT = Chat(tiny_tokenizer())
BOT = CHAT.tokenizer.convert_tokens_to_ids("<bot>")
TEAM = ("ada", "bea", "cyd")
PLAN, DECIDE, ANSWER = TurnKind.PLAN, TurnKind.COMMUNICATE, TurnKind.ANSWER
GROUND = "grounding_tool red-square"


def kinds(trajectory):
    return [(turn.kind, turn.round) for turn in trajectory.turns]


def one(script, samples, agents, **options):
    (episode,) = run(samples(1), agents, script.engine, script.tools, episodes=1, seed=0, **options)
    return episode


def test_an_episode_by_hand(script, samples, agents, heard):
    lines = {
        "ada": [f"{GROUND} ; global_sampling", "keep", "revise none"],
        "bea": ["none"],
        "cyd": ["rough_browser objects"],
    }
    script = script(lines)
    episode = one(script, samples, agents(["ada", "bea", "cyd"]))
    ada, bea, cyd = (episode.trajectories[name] for name in ("ada", "bea", "cyd"))
    assert kinds(ada) == [(PLAN, 0), (DECIDE, 1), (DECIDE, 2), (ANSWER, 3)]
    assert kinds(bea) == [(PLAN, 0), (ANSWER, 3)]
    assert kinds(cyd) == [(PLAN, 0), (DECIDE, 1), (ANSWER, 3)]
    found = "= red-square 9 15"
    assert heard(ada) == [
        "video 47 : when red-square",
        f"me : {GROUND} {found} | cyd : rough_browser objects {found} | keep ?",
        f"me : global_sampling {found} | keep ?",
        "answer : when red-square",
    ]
    news = [f"ada : {GROUND} {found}", f"cyd : rough_browser objects {found}", f"ada : global_sampling {found}"]
    assert heard(bea)[1] == " | ".join([*news, "answer : when red-square"])
    assert heard(cyd)[1:] == [
        f"me : rough_browser objects {found} | ada : {GROUND} {found} | keep ?",
        f"ada : global_sampling {found} | answer : when red-square",
    ]
    assert (len(script.asked), len(script.calls)) == (9, 3)
    assert [call.tool for call in ada.calls] == ["grounding_tool", "global_sampling"]
    assert len(ada.results) == 2
    assert episode.answer == Answer(spans=(Span(start=9, end=15),))
    written = [(message.author, message.round, message.kind) for message in episode.messages]
    plan, result, decision, answer = (MessageKind(kind) for kind in ("plan", "result", "decision", "answer"))
    assert written == [
        *[(name, 0, plan) for name in ("ada", "bea", "cyd")],
        *[("ada", 1, result), ("cyd", 1, result), ("ada", 1, decision), ("cyd", 1, decision)],
        *[("ada", 2, result), ("ada", 2, decision)],
        *[(name, 3, answer) for name in ("ada", "bea", "cyd")],
    ]


def test_an_invalid_plan_is_mended_in_the_next_round(script, samples, agents, heard):
    episode = one(script({"ada": ["fly", f"revise {GROUND}"]}), samples, agents(["ada"]))
    ada = episode.trajectories["ada"]
    assert [turn.status for turn in ada.turns] == [Status.INVALID_PLAN, Status.OK, Status.OK, Status.OK]
    assert heard(ada)[1:3] == ["me : invalid | keep ?", f"me : {GROUND} = red-square 9 15 | keep ?"]
    assert [call.tool for call in ada.calls] == ["grounding_tool"]


def test_rounds_end_even_where_no_decision_ever_parses(script, samples, agents):
    episode = one(script({"ada": ["fly"] * 9}), samples, agents(["ada"]), max_rounds=3)
    assert kinds(episode.trajectories["ada"]) == [(PLAN, 0), (DECIDE, 1), (DECIDE, 2), (DECIDE, 3), (ANSWER, 4)]
    assert kinds(one(script({"ada": [GROUND]}), samples, agents(["ada"]), max_rounds=0).trajectories["ada"]) == [
        (PLAN, 0),
        (ANSWER, 1),
    ]


def test_a_tool_error_is_read_as_a_result(script, samples, agents, heard):
    episode = one(script({"ada": ["grounding_tool red-circle"]}), samples, agents(["ada"]))
    assert heard(episode.trajectories["ada"])[1] == "me : grounding_tool red-circle = error | keep ?"
    (message,) = [message for message in episode.messages if message.kind is MessageKind.RESULT]
    assert (message.status, message.text) == (Status.TOOL_ERROR, "no red-circle in v0")


def test_steps_beyond_the_call_limit_are_dropped_and_recorded(script, samples, agents, heard):
    plan = " ; ".join([GROUND, "global_sampling", "rough_browser objects", "global_sampling 2"])
    episode = one(script({"ada": [plan]}), samples, agents(["ada"]), max_calls=2)
    ada = episode.trajectories["ada"]
    assert len(ada.calls) == len(ada.results) == 2
    assert kinds(ada) == [(PLAN, 0), (DECIDE, 1), (DECIDE, 2), (ANSWER, 3)]
    dropped = [message for message in episode.messages if message.status is Status.CALL_LIMIT]
    assert [message.call.tool for message in dropped] == ["rough_browser", "global_sampling"]
    assert dropped[0].text == "dropped: an agent may run at most 2 calls"
    assert heard(ada)[-1].startswith("me : rough_browser objects = error | me : global_sampling 2 = error | answer")


def test_an_agent_with_a_full_context_leaves_the_others_alone(script, samples, agents):
    lines = {"ada": [GROUND, "keep"], "bea": [f"{GROUND} ; global_sampling", "keep", "keep"]}
    small, full = agents(["ada"], max_context=100)[0], agents(["bea"])[0]
    episode = one(script(lines), samples, [small, full])
    assert [turn.status for turn in episode.trajectories["ada"].turns] == [Status.OK, Status.TRUNCATED]
    assert episode.trajectories["ada"].answer is None
    assert episode.trajectories["bea"].answer is not None
    assert episode.answer == episode.trajectories["bea"].answer


def test_a_cut_plan_runs_nothing(script, samples, agents, short_replies):
    episode = one(script({"ada": [f"{GROUND} ; global_sampling"]}), samples, agents(["ada"], sampling=short_replies))
    first = episode.trajectories["ada"].turns[0]
    assert first.status is Status.TRUNCATED
    assert not episode.trajectories["ada"].calls


def test_nobody_reads_a_decision_of_the_same_round(script, samples, agents):
    read = []

    class Watching(CompactSpelling):
        def observation(self, own, peers, problem):
            read.append([(message.author, message.kind.value, message.round) for message in peers])
            return super().observation(own, peers, problem)

    lines = {"ada": [f"{GROUND} ; global_sampling"], "bea": [f"{GROUND} ; global_sampling"]}
    one(script(lines), samples, agents(["ada", "bea"], spelling=Watching(CLASSICAL_TOOLS)))
    assert sorted(read) == [
        [("ada", "decision", 1), ("ada", "result", 2)],
        [("ada", "plan", 0), ("ada", "result", 1)],
        [("bea", "decision", 1), ("bea", "result", 2)],
        [("bea", "plan", 0), ("bea", "result", 1)],
    ]


plans = st.sampled_from(["none", GROUND, f"{GROUND} ; global_sampling", "fly", "rough_browser objects ; fly"])
decisions = st.sampled_from(
    ["keep", "revise none", f"revise {GROUND}", "revise global_sampling ; global_sampling 2", "fly"]
)
scripts = st.fixed_dictionaries(
    {name: st.tuples(plans, st.lists(decisions, max_size=4)).map(lambda pair: [pair[0], *pair[1]]) for name in TEAM}
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=scripts, seed=st.integers(0, 99), max_rounds=st.integers(0, 4))
def test_every_result_is_read_once_and_in_time(lines, seed, max_rounds, script, samples, agents, heard):
    """For random scripts and graphs: an agent is told the results that it may read, in order, each once."""
    team, numbers = script(lines), iter(range(64))
    (episode,) = run(
        samples(1),
        agents(TEAM),
        team.engine,
        DirectTools(lambda calls: [ToolResult(text=f"seen {next(numbers)}") for _ in calls]),
        episodes=1,
        seed=seed,
        topology=RandomDag(0.5),
        max_rounds=max_rounds,
        max_calls=3,
    )
    results = [message for message in episode.messages if message.kind is MessageKind.RESULT]
    for name, trajectory in episode.trajectories.items():
        assert len(trajectory.calls) == len(trajectory.results) <= 3
        before = -1
        for turn, text in zip(trajectory.turns, heard(trajectory), strict=True):
            news = [message for message in results if before < message.round <= turn.round]
            own = [message for message in news if message.author == name]
            peers = [message for message in news if message.author in episode.visible[name]]
            lines = [line.split() for line in text.split(" | ") if " = " in line]
            expected = [
                ("me" if message.author == name else message.author, said(message)) for message in [*own, *peers]
            ]
            assert [(line[0], line[-1]) for line in lines] == expected
            before = turn.round


def said(message):
    return message.text.split()[-1] if message.status is Status.OK else "error"


def outcome(episode):
    turns = [
        (name, turn.kind, turn.round, turn.prompt_ids, turn.reply_ids, turn.seed, turn.status)
        for name, trajectory in episode.trajectories.items()
        for turn in trajectory.turns
    ]
    return (
        episode.sample.id,
        episode.index,
        episode.seed,
        dict(episode.visible),
        turns,
        episode.messages,
        episode.answer,
    )


def by_seed(request):
    """A reply drawn from the request's seed alone, as a sampling engine would."""
    rng = random.Random(request.seed)
    if list(request.prompt_ids).count(BOT) == 1:
        text = rng.choice(["none", GROUND, f"{GROUND} ; global_sampling", "fly"])
    else:
        text = rng.choice(["keep", f"revise {GROUND}", "fly", "9 15", "3 4"])
    return [*CHAT.encode(text), CHAT.end_of_turn_id]


def test_results_do_not_depend_on_how_samples_are_batched(script, samples, agents):
    team = script({})
    team.engine.reply = by_seed
    options = {"episodes": 2, "seed": 5, "topology": RandomDag(0.5)}
    together = run(samples(6), agents(), team.engine, team.tools, **options)
    assert [(episode.sample.id, episode.index) for episode in together] == [
        (f"s{n}", k) for n in range(6) for k in range(2)
    ]
    apart = []
    for sample in reversed(samples(6)):
        apart += reversed(run([sample], agents(), team.engine, team.tools, **options))
    assert [outcome(episode) for episode in together] == [outcome(episode) for episode in reversed(apart)]
    other = run(samples(6), agents(), team.engine, team.tools, **{**options, "seed": 6})
    assert [outcome(episode) for episode in together] != [outcome(episode) for episode in other]
    seeds = [turn.seed for episode in together for t in episode.trajectories.values() for turn in t.turns]
    assert len(set(seeds)) == len(seeds)


def test_one_graph_per_sample_shared_by_its_episodes(script, samples, agents):
    team = script({})
    episodes = run(samples(12), agents(), team.engine, team.tools, episodes=3, seed=1, topology=RandomDag(0.5))
    graphs = [episode.visible for episode in episodes]
    assert all(graphs[3 * n] == graphs[3 * n + 1] == graphs[3 * n + 2] for n in range(12))
    assert len({str(graph) for graph in graphs}) > 6


def test_hidden_peers_are_not_read(script, samples, agents, heard):
    lines = {"ada": [GROUND], "bea": [GROUND]}
    episode = one(script(lines), samples, agents(["ada", "bea"]), topology=hidden)
    assert heard(episode.trajectories["ada"])[1] == f"me : {GROUND} = red-square 9 15 | keep ?"
    assert heard(episode.trajectories["ada"])[2] == "answer : when red-square"


def test_the_aggregate_is_the_one_passed_in(script, samples, agents):
    assert one(
        script({}), samples, agents(), aggregate=lambda trajectories: Answer(number=len(trajectories))
    ).answer == (Answer(number=4))


def test_seeds_are_equal_in_every_process():
    code = "from m1lite.collaboration.loop import derive_seed; print(derive_seed(0, 's1', 2, 'ada', 3))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{derive_seed(0, 's1', 2, 'ada', 3)}\n"}
    assert derive_seed("a", "b") != derive_seed("ab", "")
    assert 0 <= derive_seed("anything") < 2**63


def test_what_cannot_be_told_apart_is_refused(script, samples, agents):
    team = script({})

    def play(samples, agents, **options):
        return run(samples, agents, team.engine, team.tools, **{"episodes": 1, "seed": 0, **options})

    with pytest.raises(ValueError, match=r"sample ids \['s0'\] come more than once"):
        play(samples(1) * 2, agents())
    with pytest.raises(ValueError, match=r"agent names \['ada'\] come more than once"):
        play(samples(1), agents(["ada", "ada"]))
    with pytest.raises(ValueError, match="`agents` is empty"):
        play(samples(1), [])
    for name, value in [("episodes", 0), ("max_rounds", -1), ("max_calls", -2)]:
        with pytest.raises(ValueError, match=f"`{name}` is {value}"):
            play(samples(1), agents(), **{name: value})
    assert play([], agents()) == []
