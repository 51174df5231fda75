"""One agent: what it asks with, how a reply changes its state, and what stops it."""

import pytest

from m1lite.agents.agent import Agent
from m1lite.agents.chat import Chat
from m1lite.agents.compact import CompactSpelling
from m1lite.engines.base import Generation, Sampling
from m1lite.modules.tiny import tiny_tokenizer
from m1lite.records import Answer, Message, MessageKind, Plan, Span, Status, ToolCall, TurnKind

CHAT = Chat(tiny_tokenizer())
GROUND = ToolCall(tool="grounding_tool", args={"event": "red-square"})


@pytest.fixture
def agent(tools):
    return Agent(
        name="ada", spelling=CompactSpelling(tools), chat=CHAT, tools=[t for t in tools if t.name == GROUND.tool]
    )


def reply(text, *, cut=False, version=2):
    ids = [*CHAT.encode(text), *([] if cut else [CHAT.end_of_turn_id])]
    logprobs = [-1.0 - place for place in range(len(ids))]
    return Generation(
        token_ids=ids, logprobs=logprobs, policy_version=version, finish_reason="length" if cut else "stop"
    )


def play(agent, state, kind, text, own=(), peers=(), **options):
    """One turn; returns its request and what the memory keeps."""
    request = agent.ask(state, kind, 1, own, peers, 11)
    return request, agent.read(state, reply(text, **options))


def test_an_episode_appends_and_is_recorded(agent, sample_of):
    state = agent.start(sample_of())
    request, plan = play(agent, state, TurnKind.PLAN, "grounding_tool red-square")
    opening = "<sys> tools grounding_tool <user> video 47 : when red-square <bot>"
    assert CHAT.tokenizer.decode(request.prompt_ids) == opening
    assert (request.policy, request.seed, request.sampling) == ("ada", 11, Sampling())
    assert state.steps == [(GROUND,)]
    assert (plan.kind, plan.plan, plan.status) == (MessageKind.PLAN, Plan(steps=(GROUND,)), Status.OK)

    found = Message(author="ada", round=1, kind=MessageKind.RESULT, text="red-square 9 15", call=GROUND)
    request, decision = play(agent, state, TurnKind.COMMUNICATE, "revise none", own=[found])
    heard = "<user> me : grounding_tool red-square = red-square 9 15 | keep ? <bot>"
    assert CHAT.tokenizer.decode(request.prompt_ids) == f"{opening} grounding_tool red-square <end> {heard}"
    assert (state.steps, decision.plan, decision.kind) == ([], Plan(), MessageKind.DECISION)

    request, answer = play(agent, state, TurnKind.ANSWER, "red-square 9 15")
    assert CHAT.tokenizer.decode(request.prompt_ids).endswith(
        "<bot> revise none <end> <user> answer : when red-square <bot>"
    )
    trajectory = state.trajectory
    assert trajectory.answer == Answer(spans=(Span(start=9, end=15),))
    assert trajectory.answer_logprob == pytest.approx(-2.5)
    assert (answer.text, answer.kind) == ("red-square 9 15", MessageKind.ANSWER)
    whole = [token for turn in trajectory.turns for token in [*turn.prompt_ids, *turn.reply_ids]]
    assert whole == state.context
    assert [turn.kind for turn in trajectory.turns] == [TurnKind.PLAN, TurnKind.COMMUNICATE, TurnKind.ANSWER]
    assert {turn.policy_version for turn in trajectory.turns} == {2}


def test_a_request_keeps_its_prompt_when_the_episode_goes_on(agent, sample_of):
    state = agent.start(sample_of())
    request = agent.ask(state, TurnKind.PLAN, 0, (), (), 1)
    before = list(request.prompt_ids)
    agent.read(state, reply("none"))
    assert list(request.prompt_ids) == before


def test_a_bad_plan_is_told_and_a_bad_decision_keeps_the_rest(agent, sample_of):
    state = agent.start(sample_of())
    _, message = play(agent, state, TurnKind.PLAN, "spatial_tool red-square")
    assert (message.status, message.plan, state.steps) == (Status.INVALID_PLAN, None, [])
    assert (
        state.problem == state.trajectory.turns[0].error == "There is no tool 'spatial_tool'; there are grounding_tool."
    )
    request, _ = play(agent, state, TurnKind.COMMUNICATE, "revise grounding_tool red-square")
    assert CHAT.tokenizer.decode(request.prompt_ids).endswith("<user> me : invalid | keep ? <bot>")
    assert (state.problem, state.steps) == ("", [(GROUND,)])
    _, message = play(agent, state, TurnKind.COMMUNICATE, "keep keep")
    assert (message.status, state.steps) == (Status.INVALID_PLAN, [(GROUND,)])
    assert state.problem.startswith("The decision is 'keep keep'")


def test_a_bad_answer_is_none(agent, sample_of):
    state = agent.start(sample_of())
    play(agent, state, TurnKind.PLAN, "none")
    _, message = play(agent, state, TurnKind.ANSWER, "15 9")
    assert (message.status, state.trajectory.answer) == (Status.INVALID_ANSWER, None)


def test_a_cut_reply_is_truncated_and_closed_by_an_unsampled_token(agent, sample_of):
    state = agent.start(sample_of())
    _, message = play(agent, state, TurnKind.PLAN, "grounding_tool red-square", cut=True)
    assert (message.status, state.steps) == (Status.TRUNCATED, [])
    assert state.problem == "The reply was cut after 2 tokens; write a shorter one."
    play(agent, state, TurnKind.ANSWER, "red-square 9 15", cut=True)
    first, second = state.trajectory.turns
    assert first.reply_ids[-1] != CHAT.end_of_turn_id == second.prompt_ids[0]
    assert (second.status, state.trajectory.answer) == (Status.TRUNCATED, None)


def test_a_full_context_stops_the_agent(tools, sample_of):
    spelling = CompactSpelling(tools)
    small = Agent(
        name="ada", spelling=spelling, chat=CHAT, tools=tools[:1], sampling=Sampling(max_new_tokens=4), max_context=20
    )
    state = small.start(sample_of())
    play(small, state, TurnKind.PLAN, "global_sampling")
    assert len(state.context) == 12
    state.steps.append((GROUND,))
    assert small.ask(state, TurnKind.ANSWER, 1, (), (), 5) is None
    assert (state.stopped, state.steps) == (True, [])
    last = state.trajectory.turns[-1]
    assert (last.prompt_ids, last.reply_ids, last.status) == ([], [], Status.TRUNCATED)
    assert last.error.startswith("The context would need 22 tokens, more than `max_context` 20 of agent 'ada'")
    assert small.ask(state, TurnKind.ANSWER, 2, (), (), 6) is None
    assert len(state.trajectory.turns) == 2
