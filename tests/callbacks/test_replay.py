"""A second play under another condition, on the real loop with a policy that goes by the frames it is shown."""

from dataclasses import replace
from functools import partial

import pytest
from transformers import AutoConfig, AutoProcessor

from m1lite.agents.media_chat import media_chat, no_stamp
from m1lite.agents.native import NativeAgent
from m1lite.agents.text_answers import TextAnswers
from m1lite.callbacks.replay import EvidenceCheck, FrameOrder, Replayed, with_term
from m1lite.callbacks.rollout import RolloutCallback
from m1lite.collaboration import loop
from m1lite.engines.scripted import ScriptedEngine
from m1lite.engines.sight import sight_of
from m1lite.records import Answer, Sample, Task
from m1lite.rewards.aspects import Accuracy
from m1lite.rewards.compose import Breakdown, WeightedTerm, compose
from m1lite.toolbox import Toolbox
from m1lite.toolbox.clips import ClipTools
from m1lite.video.budget import FrameBudget
from m1lite.video.cache import FrameCache

RIGHT, WRONG = "<answer>B</answer>", "<answer>A</answer>"
LOOK = '<tool_call>{"name": "get_frames", "arguments": {"times": [1, 5]}}</tool_call>'


@pytest.fixture
def act(vision_bases, clip):
    """Give rewards of two questions' episodes by a policy: what it was shown and read to what it says."""
    directory, frames = vision_bases["qwen2_5_vl"], FrameCache(50_000_000)
    tokenizer = AutoProcessor.from_pretrained(directory).tokenizer
    chat = media_chat(tokenizer, sight_of(AutoConfig.from_pretrained(directory)), stamp=no_stamp)
    unit = chat.sight.factor**2
    budget = FrameBudget(fps=0.5, max_frames=4, min_frame_pixels=unit, max_frame_pixels=unit, total_pixels=8 * unit)
    samples = [
        Sample(
            id=name, video=clip, duration=8.0, task=Task.CHOICE, question="Which?", options=("a cat", "a dog"),
            answer=Answer(text="a dog"),
        )
        for name in ("q1", "q2")
    ]  # fmt: skip

    def play(policy, replay, *, tools=(), episodes=2):
        agent = NativeAgent(
            name="ada", answers=TextAnswers(think=False), chat=chat, frames=frames, view=budget, tool_view=budget,
            tools=ClipTools()(list(tools)),
        )  # fmt: skip
        asked = []

        def reply(request):
            seconds = [placed.media.timestamps[0] for placed in request.media]
            asked.append((seconds, tokenizer.decode(request.prompt_ids)))
            return [*tokenizer(policy(seconds, request.seed)).input_ids, chat.end_of_turn_id]

        engine = ScriptedEngine(reply, policies=["ada"], eos_token_ids=[chat.end_of_turn_id])
        run = partial(
            loop.run, sampler=engine, tools=Toolbox(agent.tools, frames), episodes=episodes, max_rounds=2, max_calls=2
        )
        reward = partial(compose, terms={"accuracy": WeightedTerm(term=Accuracy())})
        rollout = RolloutCallback([agent], run, Replayed(reward, replay), seed=0)._rollout(samples, 7)
        return [breakdown["ada"] for breakdown in rollout.breakdowns], asked, rollout

    return play


def test_frames_in_order_are_paid_where_order_helps(act):
    """The policy is right exactly where it sees the frames in order."""
    found, asked, rollout = act(
        lambda seconds, _: RIGHT if seconds == sorted(seconds) else WRONG, FrameOrder(Accuracy())
    )
    orders = [tuple(seconds) for seconds, _ in asked]
    assert orders[:4] == [(0.0, 2.0, 4.0, 6.0)] * 4
    assert len(orders[4:]) == 2 * 4, "four more of each question"
    assert {tuple(sorted(order)) for order in orders} == {(0.0, 2.0, 4.0, 6.0)}
    assert len(set(orders[4:8])) == len(set(orders[8:])) == 1, "one order for the episodes of a question"
    assert all("seconds>" not in text for _, text in asked), "no stamps that would tell the order"
    shuffled_right = [order == (0.0, 2.0, 4.0, 6.0) for order in orders[4:]]
    assert not any(shuffled_right), "this seed draws other orders"
    assert [one.total for one in found] == pytest.approx([1.3] * 4)
    assert [one.terms for one in found] == [{"accuracy": 1.0, "temporal": 1.0}] * 4
    assert rollout.rewards[:, 0].tolist() == pytest.approx([1.3] * 4)
    assert len(rollout.episodes) == 4, "the second play is not learnt from"


def test_no_bonus_where_disorder_does_as_well(act):
    found, *_ = act(lambda seconds, _: WRONG if seconds == sorted(seconds) else RIGHT, FrameOrder(Accuracy()))
    assert [one.total for one in found] == [0.0] * 4
    found, *_ = act(lambda seconds, seed: RIGHT, FrameOrder(Accuracy(), ratio=1.01))
    assert [one.total for one in found] == [1.0] * 4
    found, *_ = act(lambda seconds, seed: RIGHT, FrameOrder(Accuracy()))
    assert [one.total for one in found] == pytest.approx([1.3] * 4), "0.8 of the shuffled ones is enough in the code"


def test_what_was_searched_must_suffice(act):
    """The policy looks at two frames; asked again it is right where it sees these and nothing else."""

    def policy(seconds, _):
        if seconds == [0.0, 2.0, 4.0, 6.0]:
            return LOOK
        return RIGHT if seconds[-2:] == [1.0, 5.0] else WRONG

    found, asked, _ = act(policy, EvidenceCheck(Accuracy()), tools=["get_frames"])
    assert [one.terms for one in found] == [{"accuracy": 1.0, "completeness": 1.0}] * 4
    assert [one.total for one in found] == pytest.approx([1.5] * 4)
    again = [(seconds, text) for seconds, text in asked if len(seconds) == 2]
    assert len(again) == 4
    assert all("get_frames" not in text for _, text in again)


@pytest.mark.parametrize(
    ("first", "again", "value"),
    [(RIGHT, WRONG, 0.0), (WRONG, RIGHT, 0.0)],
)
def test_completeness_needs_both_answers(act, first, again, value):
    def policy(seconds, _):
        return {4: LOOK, 6: first, 2: again}[len(seconds)]

    found, asked, _ = act(policy, EvidenceCheck(Accuracy()), tools=["get_frames"])
    assert [one.terms["completeness"] for one in found] == [value] * 4
    assert sum(len(seconds) == 2 for seconds, _ in asked) == (4 if first == RIGHT else 0), "only the right are asked"


def test_who_searched_nothing_is_not_complete(act):
    found, asked, _ = act(lambda seconds, _: RIGHT, EvidenceCheck(Accuracy()), tools=["get_frames"])
    assert [one.terms["completeness"] for one in found] == [0.0] * 4
    assert len(asked) == 4


def test_a_judge_that_fails_leaves_the_total_as_it_is(act):
    for replay in (FrameOrder(lambda *_: None), EvidenceCheck(lambda *_: None)):
        found, *_ = act(lambda seconds, _: RIGHT, replay, tools=["get_frames"])
        assert [one.total for one in found] == [1.0] * 4
        assert [one.terms[replay.name] for one in found] == [None] * 4


def test_a_term_is_added_once():
    one = with_term(Breakdown(total=None), "late", 0.5, weight=2.0)
    assert (one.total, one.terms, one.shares) == (1.0, {"late": 0.5}, {"late": 1.0})
    assert with_term(replace(one, total=1.0), "other", None, weight=2.0).total == 1.0
    with pytest.raises(ValueError, match="There is a reward term 'late' already"):
        with_term(one, "late", 0.5, weight=2.0)
