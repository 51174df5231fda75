"""What a trace holds, read as a viewer reads it."""

import json

from m1lite.collaboration.loop import run
from m1lite.collaboration.timeline import TimedSampler, TimedTools, Timeline

GROUND = "grounding_tool red-square"


def test_a_rollout_is_traced_and_plays_as_without(script, samples, agents, tmp_path):
    lines, timeline = {"ada": [GROUND], "bea": [f"{GROUND} ; grounding_tool red-circle"]}, Timeline()

    def play(wrapped):
        team = script(lines)
        sampler, tools = team.engine, team.tools
        if wrapped:
            sampler, tools = TimedSampler(sampler, timeline), TimedTools(tools, timeline)
        return run(samples(2), agents(["ada", "bea"]), sampler, tools, episodes=2, seed=3)

    plain = play(wrapped=False)
    assert play(wrapped=True) == plain
    timeline.write(tmp_path / "off.json")
    assert json.loads((tmp_path / "off.json").read_text())["traceEvents"] == [], "nothing unless it records"

    timeline.recording = True
    assert play(wrapped=True) == plain
    timeline.span("step", "update", 5.0, 7.5)
    timeline.write(tmp_path / "traces" / "on.json")
    events = json.loads((tmp_path / "traces" / "on.json").read_text())["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert set(tracks.values()) == {"engines", "ada", "bea", "tools", "step"}
    begun = [event for event in events if event["ph"] == "b"]
    ended = {event["id"]: event for event in events if event["ph"] == "e"}
    assert len(begun) == len(ended)
    for event in begun:
        assert event["ts"] <= ended[event["id"]]["ts"]
        assert event["tid"] == ended[event["id"]]["tid"]
    turns = [(name, turn) for e in plain for name, part in e.trajectories.items() for turn in part.turns]
    replies = [(tracks[event["tid"]], event["args"]) for event in begun if event["name"] == "reply"]
    assert sorted((name, args["seed"], args["sampled"]) for name, args in replies) == sorted(
        (name, str(turn.seed), len(turn.reply_ids)) for name, turn in turns
    )
    calls = [event["args"] for event in begun if tracks[event["tid"]] == "tools"]
    assert sorted((call["sample"], call["status"]) for call in calls) == sorted(
        [(sample, status) for sample in ("s0", "s1") for status in ("ok", "ok", "tool_error")] * 2
    )
    steps = [event for event in events if event["ph"] == "X" and tracks[event["tid"]] == "engines"]
    assert sum(step["args"]["finished"] for step in steps) == len(turns)
    (update,) = [event for event in events if event["name"] == "update"]
    assert update["dur"] == 2.5e6
    assert min(event["ts"] for event in events if event["ph"] != "M") == 0


def test_what_was_written_is_forgotten(tmp_path):
    timeline = Timeline()
    timeline.span("a", "b", 1, 2)
    for _ in range(2):
        timeline.write(tmp_path / "one.json")
    assert [e for e in json.loads((tmp_path / "one.json").read_text())["traceEvents"] if e["ph"] == "X"] == []


def test_aborted_replies_are_not_waited_for(script):
    team, timeline = script({}), Timeline()
    sampler = TimedSampler(team.engine, timeline)
    timeline.recording = True
    from tests.collaboration.test_scheduler import ask

    sampler.submit(ask())
    sampler.abort()
    assert (sampler.num_unfinished, sampler.step(), sampler._asked) == (0, [], {})
