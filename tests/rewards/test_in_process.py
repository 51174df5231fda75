"""Engines as judges: a script that judges, and a tiny base whose noise is a counted failure and never a crash."""

import pytest

from m1lite.agents.chat import Chat
from m1lite.engines.hf import HfEngine
from m1lite.engines.scripted import ScriptedEngine
from m1lite.modules.tiny import tiny_base, tiny_tokenizer
from m1lite.rewards.asking import Asker
from m1lite.rewards.in_process import EngineReplies
from m1lite.rewards.judge import Verdict
from m1lite.rewards.model_judge import AnswerJudge, EventJudge, PlanningJudge
from m1lite.rewards.prompts import Prompt

SAID = '{ "feasible": true, "appropriate": true, "managed": false }'


@pytest.fixture(scope="module")
def chat():
    return Chat(tiny_tokenizer(list(dict.fromkeys(SAID.split()))))


def scripted(chat, said=SAID, **options):
    ids = [*chat.encode(said), chat.end_of_turn_id]
    return ScriptedEngine(lambda _: ids, policies=["judge"], eos_token_ids=[chat.end_of_turn_id], **options)


def test_an_engine_that_judges(chat, table):
    asker = Asker(EngineReplies(scripted(chat), chat, name="script"))
    assert table.ask(PlanningJudge(asker, tools=[])) == Verdict(good=False, reasons=("not managed",))
    assert not asker.failures


def test_a_reply_that_is_cut_is_a_failure(chat, table):
    asker = Asker(EngineReplies(scripted(chat), chat, name="script", max_new_tokens=3))
    assert table.ask(PlanningJudge(asker, tools=[])) is None
    assert asker.failures == {"cut": 1}


def test_a_prompt_that_does_not_fit_fails_alone(chat):
    replies = EngineReplies(scripted(chat, max_model_len=40), chat, name="script")
    short, long = Prompt(system="a", user="b"), Prompt(system="a", user="b " * 60)
    first, second, third = replies([short, long, short])
    assert first == third
    assert first.text == SAID
    assert (second.text, second.problem) == (None, "engine")
    assert "40" in second.detail


def test_identity_names_the_version(chat):
    engine = scripted(chat)
    replies = EngineReplies(engine, chat, name="script")
    before = replies.identity
    engine.load_base([], 3)
    assert replies.identity != before
    assert EngineReplies(engine, chat, name="script", temperature=0.5).identity != replies.identity


def test_an_unknown_policy_is_named(chat):
    with pytest.raises(ValueError, match=r"`policy` is 'gpt', which the engine does not serve; it serves \['judge'\]"):
        EngineReplies(scripted(chat), chat, name="script", policy="gpt")


def test_noise_is_counted_and_never_a_crash(table):
    model, tokenizer = tiny_base(seed=3)
    chat = Chat(tokenizer)
    engine = HfEngine(model, ["judge"], eos_token_ids=[chat.end_of_turn_id], max_model_len=1024)
    asker = Asker(EngineReplies(engine, chat, name="noise", max_new_tokens=6, temperature=1.0))
    judge = PlanningJudge(asker, tools=[])
    judge.prepare([(table.episode, trajectory) for trajectory in table.episode.trajectories.values()])
    assert [table.ask(judge, agent) for agent in ("ada", "bea")] == [None, None]
    assert EventJudge(asker)(["a"], ["b"]) is None
    assert AnswerJudge(asker)("q", "a", "b") is None
    assert asker.failures.total() == asker.asked == 5
    engine.close()
