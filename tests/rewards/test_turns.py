"""Rewards per turn on a hand-made trajectory: two steps that look at windows, then an answer."""

import pytest

from m1lite.records import (
    Answer,
    Episode,
    Message,
    MessageKind,
    Sample,
    Span,
    Status,
    Task,
    ToolCall,
    Trajectory,
    Turn,
    TurnKind,
)
from m1lite.rewards.turns import BilevelTurns, EvidenceGain, TurnFormat


def turn(kind, number, status=Status.OK):
    return Turn(
        kind=kind,
        round=number,
        prompt_ids=[1],
        reply_ids=[2],
        logprobs=[0.0],
        policy_version=0,
        seed=0,
        text="",
        status=status,
    )


def look(number, **args):
    call = ToolCall(tool="grounding_tool", args=args)
    return Message(author="ada", round=number, kind=MessageKind.RESULT, text="", call=call)


@pytest.fixture
def played():
    sample = Sample(
        id="q",
        video="a.mp4",
        duration=40.0,
        task=Task.GROUNDING,
        question="when?",
        answer=Answer(spans=(Span(start=10, end=20),)),
    )
    trajectory = Trajectory(
        agent="ada",
        turns=[
            turn(TurnKind.PLAN, 0),
            turn(TurnKind.COMMUNICATE, 1, Status.INVALID_PLAN),
            turn(TurnKind.COMMUNICATE, 2),
            turn(TurnKind.ANSWER, 4),
        ],
    )
    messages = [look(1, start=0, end=20), look(2), look(3, start=10, end=20), look(4, start=10, end=20)]
    messages.append(Message(author="bea", round=1, kind=MessageKind.RESULT, text="", call=messages[2].call))
    episode = Episode(sample=sample, index=0, seed=0, visible={}, trajectories={"ada": trajectory}, messages=messages)
    return sample, episode, trajectory


def test_format_looks_at_each_turn(played):
    assert TurnFormat()(*played) == [0.1, 0.0, 0.1, 0.1]


def test_evidence_pays_the_gain_of_the_turn_that_asked(played):
    # Windows fit by 0.5, not at all, and by 1; the third turn's two steps are both after it.
    assert EvidenceGain()(*played) == [0.5, 0.0, 0.5, 0.0]
    assert EvidenceGain(most=0.2)(*played) == [0.2, 0.0, 0.2, 0.0]
    sample, episode, trajectory = played
    sample.answer = Answer(number=3)
    assert EvidenceGain()(sample, episode, trajectory) == [None] * 4


def test_bilevel_turns_gate_and_discount(played):
    rule = BilevelTurns(terms={"format": TurnFormat(), "evidence": EvidenceGain()}, discount=0.5)
    right = [0.6, 0.0, 0.6, 1.1]
    returns = [right[3]]
    for reward in right[2::-1]:
        returns.insert(0, reward + 0.5 * returns[0])
    assert rule(*played, 1.0) == pytest.approx(tuple(returns))
    assert rule(*played, 0.0) == pytest.approx((0.0125, 0.025, 0.05, 0.1))
    assert rule(*played, None) == (None,) * 4
    assert rule(played[0], played[1], Trajectory(agent="ada"), 1.0) == ()


def test_a_bonus_in_the_total_opens_no_gate(played):
    def rule(right):
        return BilevelTurns(terms={"format": TurnFormat()}, discount=1.0, right=lambda *_: right)

    assert rule(1.0)(*played, 1.05) == pytest.approx((1.35, 1.25, 1.25, 1.15))
    assert rule(0.0)(*played, 0.05) == pytest.approx((0.15,) * 4), "the answer's own turn and the bonus are all"
    assert rule(None)(*played, 0.05) == pytest.approx((0.15,) * 4)
