"""The three model judges against a local endpoint, their readers, and that a failure is None and counted."""

import json
from functools import partial

import hydra
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m1lite.configuration import compose as compose_config
from m1lite.metrics import CaptionEvents, OpenAnswerScore
from m1lite.records import Task
from m1lite.rewards.asking import Asker, Reply
from m1lite.rewards.compose import WeightedTerm, compose, term_stats
from m1lite.rewards.endpoint import Endpoint
from m1lite.rewards.judge import Verdict
from m1lite.rewards.model_judge import (
    AnswerJudge,
    EventJudge,
    PlanningJudge,
    read_events,
    read_object,
    read_relations,
    read_score,
    read_verdict,
)
from m1lite.rewards.prompts import Prompt
from m1lite.rewards.reply_cache import ReplyCache
from m1lite.rewards.terms import Collaboration

GOOD = '{"reasons": [], "feasible": true, "appropriate": true, "managed": true}'
BAD = '{"reasons": ["idle"], "feasible": true, "appropriate": true, "managed": false}'


@pytest.fixture
def asker(stub):
    return Asker(Endpoint(base_url=stub.url, model="m", deadline_seconds=20.0, tries=1, workers=4))


def test_a_verdict_through_the_endpoint(stub, asker, table):
    judge = PlanningJudge(asker, tools=[])
    stub.answer = lambda body: GOOD
    assert table.ask(judge) == Verdict(good=True)
    stub.answer = lambda body: f"<think>{GOOD}</think>\nHere it is:\n```json\n{BAD}\n```"
    assert table.ask(judge) == Verdict(good=False, reasons=("not managed", "idle"))
    assert "Agent: ada" in stub.requests[0][2]["messages"][1]["content"]


@pytest.mark.parametrize("answer", [500, b"{", {"choices": []}, "no object", GOOD + BAD, GOOD.replace("true", '"yes"')])
def test_a_failure_is_no_verdict(stub, asker, table, answer):
    stub.answer = lambda body: answer
    assert table.ask(PlanningJudge(asker, tools=[])) is None
    assert asker.failures.total() == 1


def test_rewards_of_a_rollout(stub, asker, table):
    """All agents are judged together, each once; a failure is left out of the total and counted."""
    table.call("bea", 1, "grounding_tool", event="red-square")
    calls = {"together": 0}

    def answer(body):
        calls["together"] += 1
        return GOOD if "Agent: ada" in body["messages"][1]["content"] else 500

    stub.answer = answer
    terms = {"collaboration": WeightedTerm(term=Collaboration(PlanningJudge(asker, tools=[])), weight=2.0)}
    (breakdown,) = compose([table.episode], terms=terms)
    assert (breakdown["ada"].total, breakdown["bea"].total) == (2.0, None)
    assert calls["together"] == 2
    stats = term_stats([breakdown])
    assert (stats["ada/rewards/collaboration/failed"], stats["bea/rewards/collaboration/failed"]) == (0, 1)
    assert "bea/rewards/collaboration/mean" not in stats
    assert asker.failures == {"status 500": 1}
    compose([table.episode], terms=terms)
    assert calls["together"] == 4  # without a cache the next rollout asks again


def test_too_many_calls_are_not_asked_about(stub, asker, table):
    for number in range(6):
        table.call("ada", number + 1, "fine_browser", start=number)
    stub.answer = lambda body: GOOD
    terms = {"collaboration": WeightedTerm(term=Collaboration(PlanningJudge(asker, tools=[])))}
    (breakdown,) = compose([table.episode], terms=terms)
    assert (breakdown["ada"].total, breakdown["bea"].total) == (-1.0, 1.0)
    assert len(stub.requests) == 1


def test_the_cache_saves_the_calls(stub, asker, table, tmp_path):
    stub.answer = lambda body: GOOD
    for _ in range(2):
        judge = PlanningJudge(Asker(asker.replies, cache=ReplyCache(tmp_path)), tools=[])
        judge.prepare([(table.episode, trajectory) for trajectory in table.episode.trajectories.values()])
        assert table.ask(judge).good
    assert len(stub.requests) == 2


def test_captions(stub, asker):
    """A text is split first; then each side is held against the other."""

    def answer(body):
        system, user = (message["content"] for message in body["messages"])
        if system.startswith("You split"):
            return json.dumps({"events": ["he cuts", "he fries"]})
        if '1. "he cuts"' in user:
            return json.dumps({"relations": [" Entailment ", "neutral"]})
        return json.dumps({"relations": ["entailment", "contradiction", "neutral", "neutral"]})

    stub.answer = answer
    judge = EventJudge(asker)
    truth = ["cuts", "eats", "fries", "washes"]
    assert judge("He cuts. He fries.", truth) == ([True, False], [True, False, False, False])
    metric = CaptionEvents(judge)
    metric.update(["He cuts. He fries.", None, []], [truth, truth, truth])
    found = {name: round(value.item(), 3) for name, value in metric.compute().items()}
    assert found == {"precision": 0.5, "recall": 0.083, "f1": 0.143, "judged": 1.0}
    before = len(stub.requests)
    judge.prepare([("He cuts. He fries.", truth), (["he cuts", "he fries"], truth)])
    assert len(stub.requests) == before + 1 + 2 + 1  # the text, both ways of it, and one way of the list
    assert judge("He cuts. He fries.", truth) == ([True, False], [True, False, False, False])
    assert len(stub.requests) == before + 4


@pytest.mark.filterwarnings("ignore:.*saw no samples")
@pytest.mark.parametrize(
    "answer", [500, '{"relations": ["entailment"]}', '{"relations": ["entailment", "maybe"]}', '{"relations": [1, 2]}']
)
def test_a_caption_that_could_not_be_judged(stub, asker, answer):
    stub.answer = lambda body: answer
    judge = EventJudge(asker)
    assert judge(["a", "b"], ["c", "d"]) is None
    metric = CaptionEvents(judge)
    metric.update([["a", "b"]], [["c", "d"]])
    assert metric.compute()["judged"] == 0
    assert judge("a text", ["c", "d"]) is None


def test_captions_that_need_no_model():
    judge = EventJudge(Asker(None))
    assert judge([], ["a"]) == ([], [False])
    assert judge(["a"], []) == ([False], [])
    assert judge(" ", []) == ([], [])


def test_events_beyond_the_bound_get_no_credit(stub, asker):
    stub.answer = lambda body: json.dumps({"relations": ["entailment"] * body["messages"][1]["content"].count(". ")})
    told, true = EventJudge(asker, max_events=2)(["a"] * 5, ["b"])
    assert (told, true) == ([True, True, False, False, False], [True])


def test_open_answers_as_a_metric(stub, asker):
    def grade(body):
        asked = body["messages"][1]["content"]
        return "no object" if "who?" in asked else '{"reason": "half", "score": 0.5}'

    stub.answer = grade
    metric = OpenAnswerScore(judge=AnswerJudge(asker))
    metric.update(["onion", "a vegetable", "somebody", None], ["an onion"] * 4, ["what?", "what?", "who?", "what?"])
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(
        {"judge": (1.0 + 0.5 + 0.0) / 3, "answered": 0.75, "judged": 0.75}
    )
    assert len(stub.requests) == 2, "what equals the truth and no answer need no model"


def test_open_answers(stub, asker):
    judge = AnswerJudge(asker)
    assert judge("what?", None, "an onion") == judge("what?", " ", "an onion") == judge("what?", "x" * 1000, "x") == 0.0
    assert judge("what?", "The Onion.", ["carrot", "an onion"]) == 1.0
    assert stub.requests == []
    stub.answer = lambda body: '{"reason": "half", "score": 0.5}'
    assert judge("what?", "a vegetable", "an onion") == 0.5
    stub.answer = lambda body: '{"reason": "much", "score": 0.7}'
    judge.prepare([("what?", "some vegetable", "an onion"), ("what?", None, "an onion")])
    assert judge("what?", "some vegetable", "an onion") is None
    assert len(stub.requests) == 2
    with pytest.raises(ValueError, match=r"`target` is \[\] for the question 'what\?'"):
        judge("what?", "x", [])


@pytest.mark.parametrize(
    "text",
    [
        *("", "true", "{", "}", "{}{}", "[1]", "[" * 5000, "{" * 5000, '{"a":' * 5000, '{"a": NaN}', "{'a': 1}"),
        *('{"a": 1, "a": 2}', '<think>{"a": 1}', '{"a": 1} {"a": 1}', '{x} {"a": 1}', '{"a": ' + "9" * 5000 + "}"),
        *('{"a": 1}' + " " * 100_000, '{"a": "\x01"}'),
    ],
)
def test_what_is_no_object(text):
    assert read_object(text) is None


@pytest.mark.parametrize(
    "text", ['{"a": 1}', 'So: {"a": 1}. Done.', '<think>{"a": 2}</think>{"a": 1}', '```\n{"a": 1}\n```']
)
def test_what_is_one(text):
    assert read_object(text) == {"a": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["reasons", "score", "relations", "events"]), inner)
    ),
    max_leaves=8,
)
READERS = [read_verdict, read_events, read_score, partial(read_relations, prompt=Prompt(system="", user="", items=2))]


@given(st.text() | JSON.map(json.dumps))
def test_no_reader_ever_raises(text):
    for reader in READERS:
        reader(text)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        *(('{"score": 1}', 1.0), ('{"score": 0.0}', 0.0), ('{"score": 0.5}', 0.5), ('{"score": true}', None)),
        *(('{"score": "1"}', None), ('{"score": 2}', None), ('{"score": null}', None), ('{"grade": 1}', None)),
    ],
)
def test_scores(text, score):
    assert read_score(text) == score


@pytest.mark.parametrize(
    ("text", "events"),
    [
        *(('{"events": ["a"]}', ["a"]), ('{"events": []}', []), ('{"events": ["a", ""]}', None)),
        *(('{"events": "a"}', None), ('{"events": [1]}', None)),
    ],
)
def test_events(text, events):
    assert read_events(text) == events


def test_errors_name_the_task(table, make):
    with pytest.raises(ValueError, match=r"`suits` names the task 'chioce'; there are \['grounding'"):
        PlanningJudge(Asker(None), tools=[], suits={"chioce": []})
    table.episode.sample = make(Task.TRACKING, "track red-square")
    with pytest.raises(ValueError, match=r"nothing of the task 'tracking' \(sample 's'\); add the tools"):
        table.ask(PlanningJudge(Asker(None), tools=[], suits={"choice": []}))


def test_a_reply_that_is_missing_is_a_failure(table):
    class Silent:
        identity = "silent"

        def __call__(self, prompts):
            return [Reply(problem="deadline") for _ in prompts]

    asker = Asker(Silent())
    assert table.ask(PlanningJudge(asker, tools=[])) is None
    assert EventJudge(asker)(["a"], ["b"]) is None
    assert AnswerJudge(asker)("q", "a", "b") is None
    assert asker.failures == {"deadline": 4}


def test_a_run_takes_the_judge_from_its_configuration(stub, table, tmp_path):
    where = "rewards.terms.collaboration.term.judge.asker.replies"
    overrides = [f"{where}.base_url={stub.url}", f"{where}.model=m", f"cache_dir={tmp_path}", "output_dir=/tmp/unused"]
    config = compose_config(["rewards=videochat_m1_judge", *overrides])
    reward = hydra.utils.instantiate(config.rewards)
    judge = reward.keywords["terms"]["collaboration"].term.judge
    assert isinstance(judge, PlanningJudge)
    assert (judge.max_calls, len(judge.tools), judge.asker.replies.model) == (config.collaboration.max_calls, 8, "m")
    stub.answer = lambda body: GOOD
    (breakdown,) = reward([table.episode])
    assert breakdown["ada"].terms == {"result": -1.0, "format": 0.5, "collaboration": 1.0}
    assert list((tmp_path / "judge").rglob("*.json"))
    assert "- fine_browser(question, start, end): Say from" in stub.requests[0][2]["messages"][1]["content"]
