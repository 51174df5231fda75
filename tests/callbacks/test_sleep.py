"""When engines sleep: after a step's rollout, never while the team plays or before weights have reached them."""

import pytest

from m1lite.callbacks.sleep import SleepCallback

EVENTS = ("step", "load_adapter", "sleep")


@pytest.fixture
def told(monkeypatch):
    """Tell what an engine group is asked, equal neighbours once."""

    def watch(engine):
        events = []
        for name in EVENTS:
            original = getattr(engine, name)

            def call(*args, _name=name, _original=original, **kwargs):
                if events[-1:] != [_name]:
                    events.append(_name)
                return _original(*args, **kwargs)

            monkeypatch.setattr(engine, name, call)
        return events

    return watch


def test_engines_sleep_between_rollout_and_sync(campaign, told):
    run = campaign()
    events = told(run.engine)
    run.fit(SleepCallback(run.engine), steps=2)
    assert events == ["load_adapter", *["step", "sleep", "load_adapter"] * 2]
