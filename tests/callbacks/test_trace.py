"""The trace of one step of a real fit."""

import json
from functools import partial

import pytest

from m1lite.callbacks.trace import TraceCallback
from m1lite.collaboration.timeline import TimedSampler, TimedTools, Timeline


@pytest.mark.parametrize(("steps", "step", "written"), [(3, 1, True), (2, 1, True), (1, 1, False)])
def test_one_step_is_traced(campaign, tmp_path, steps, step, written):
    run, timeline, path = campaign(), Timeline(), tmp_path / "trace.json"
    play = run.rollout.play
    bound = play.keywords
    run.rollout.play = partial(
        play, sampler=TimedSampler(bound["sampler"], timeline), tools=TimedTools(bound["tools"], timeline)
    )
    trainer = run.trainer(steps=steps)
    trainer.callbacks.insert(0, TraceCallback(timeline, path, step=step))
    trainer.fit(run.module, run.loader)
    assert path.is_file() is written
    if not written:
        return
    events = json.loads(path.read_text())["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert set(tracks.values()) >= {"step", "engines", *(agent.name for agent in run.agents)}
    parts = {event["name"]: event for event in events if event["ph"] == "X" and tracks[event["tid"]] == "step"}
    assert list(parts) == ["rollout", "update", "sync"]
    ends = {name: part["ts"] + part["dur"] for name, part in parts.items()}
    assert parts["rollout"]["ts"] < ends["rollout"] == pytest.approx(parts["update"]["ts"], abs=1)
    assert parts["update"]["ts"] < ends["update"] == pytest.approx(parts["sync"]["ts"], abs=1)
    replies = [event for event in events if event["name"] == "reply" and event["ph"] == "b"]
    assert {event["args"]["version"] for event in replies} == {step}, "the weights of that step"
    assert all(parts["rollout"]["ts"] <= event["ts"] <= ends["rollout"] + 1 for event in replies)
