"""Lessons are read back from their words alone; a base that is trained on them answers better than before."""

import re
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import count, pairwise
from math import isnan
from types import SimpleNamespace

import pytest
import torch
from torch.optim import AdamW
from transformers import AutoModelForCausalLM

from m1lite import base_training, cold_start
from m1lite.cold_start import ColdStart, Lessons, Schedule
from m1lite.collaboration.topology import RandomDag, complete, hidden
from m1lite.data.drawn import DrawnScenes
from m1lite.modules import sft
from m1lite.modules.bases import Base, hash_weights
from m1lite.modules.tiny import load_tokenizer, tiny_base
from m1lite.toolbox import Toolbox
from m1lite.toolbox.classical import CLASSICAL_TOOLS


def shows(sample, results):
    """Whether a reader of these results alone can give the answer."""
    subject, truth = sample.question.split()[1], sample.answer
    lines = [result.split() for result in results]
    spans = [
        [subject, f"{span.start:g}", f"{span.end:g}"] == line[at : at + 3]
        for span in truth.spans
        for line in lines
        for at in range(len(line))
    ]
    match sample.question.split()[0]:
        case "when":
            return any(spans)
        case "count":
            return any(line[:2] == ["seen", f"{truth.number:g}"] for line in lines)
        case "where":
            return any(spans) and any(line[:2] == [subject, truth.text] for line in lines)
        case "next":
            seen = [line[2:] for line in lines if line[0] == "seen"]
            fine = [line[::3] for line in lines if re.fullmatch(r"(\S+-\S+ \d+ \d+ ?)+", " ".join(line))]
            return any((subject, truth.text) in pairwise(order) for order in seen + fine)


def exchanges(row, chat):
    """Cut a row into (what the agent was told, what it replied, the weights, the answer marks) by its markup."""
    begin, end = (chat.tokenizer.convert_tokens_to_ids(name) for name in ("<bot>", "<end>"))
    ids, at, unread = row.input_ids, 0, set(range(len(row.input_ids)))
    while at < len(ids):
        start = ids.index(begin, at) + 1
        stop = ids.index(end, start) + 1
        told = chat.tokenizer.decode(ids[at : start - 1]).rpartition("<user> ")[2].removesuffix(" <end>")
        unread -= set(range(start, stop))
        yield told, chat.decode(ids[start:stop]), row.weights[start:stop], row.answer_mask[start:stop]
        at = stop
    assert {row.weights[place] for place in unread} == {0.0}, "what others wrote is never learnt"
    assert {row.answer_mask[place] for place in unread} == {False}


def read_row(row, chat, truths):
    """Check every reply of a row and count what it is and how much it weighs."""
    assert row.weights[0] == 0
    results, found, duration = [], Counter(), None
    for told, reply, weights, marks in exchanges(row, chat):
        if told.startswith("video "):
            duration = told.split()[1]
        results += re.findall(r"= ([^|]+?)(?: \||$)", told)
        assert len(set(weights)) == len(set(marks)) == 1
        if "answer : " in told:
            question = told.rpartition("answer : ")[2]
            assert (duration, question, reply) in truths, "the answer is right"
            known = shows(truths[duration, question, reply], results)
            assert marks[0] == known, (question, reply, results)
            assert (weights[0] > 0) == known
            found["answer", weights[0]] += 1
        else:
            assert not marks[0]
            found["other", weights[0]] += 1
    return found


@pytest.fixture(scope="module")
def questions(world):
    return world.every_question("train")


@pytest.fixture(scope="module")
def truths(questions, world_agents):
    return truths_of(questions, world_agents[0].spelling)


def truths_of(questions, spelling):
    """Every right (duration, question, answer), as agents write them, and what it is of."""
    found = {}
    for sample in questions:
        asked = spelling.ask_answer(sample, (), ()).removeprefix("answer : ")
        found[f"{sample.duration:g}", asked, spelling.write_answer(sample.answer, sample)] = sample
    return found


@pytest.mark.parametrize("topology", [hidden, complete])
def test_demonstrations_weigh_replies_and_answers_that_were_shown(
    world_agents, world_toolbox, questions, truths, topology
):
    lessons = Lessons(topology=topology, num_demonstrations=60, num_drills=0, answer_weight=2.0)
    rows = lessons.rows(world_agents, questions, world_toolbox)
    assert Counter(row.agent for row in rows) == dict.fromkeys(("ada", "bea", "cyd", "dov"), 60)
    found = sum((read_row(row, world_agents[0].chat, truths) for row in rows), Counter())
    assert found.keys() == {("other", 1.0), ("answer", 2.0), ("answer", 0.0)}
    assert found["answer", 2.0] + found["answer", 0.0] == 240


@pytest.mark.parametrize("max_context", [1024, 190])
def test_drills_weigh_nothing_but_answers_that_were_shown(world_agents, world_toolbox, questions, truths, max_context):
    """With a short context some agents never read their last results; these are no ground for an answer."""
    agents = [replace(agent, max_context=max_context) for agent in world_agents]
    lessons = Lessons(topology=complete, num_demonstrations=0, num_drills=30, answers_per_drill=3)
    rows = lessons.rows(agents, questions, world_toolbox)
    per_row = [read_row(row, agents[0].chat, truths) for row in rows]
    for found in per_row:
        assert found.keys() <= {("other", 0.0), ("answer", 1.0)}
        assert 1 <= found["answer", 1.0] <= 3
    assert max(found["answer", 1.0] for found in per_row) == 3
    assert 20 < len(rows) < 90 if max_context == 190 else len(rows) > 100


def test_lessons_play_as_many_episodes_as_asked_from_few_samples(world_agents, world_toolbox, questions):
    lessons = Lessons(topology=hidden, num_demonstrations=11, num_drills=0)
    rows = lessons.rows(world_agents, questions[:4], world_toolbox)
    assert Counter(row.agent for row in rows)["ada"] == 11


def test_rows_depend_on_the_seed_and_not_on_the_number_of_ranks(world_agents, world_toolbox, questions, monkeypatch):
    monkeypatch.setattr(cold_start, "_BATCH", 5)
    lessons = Lessons(topology=RandomDag(0.5), num_demonstrations=12, num_drills=8, seed=3)
    alone = lessons.rows(world_agents, questions, world_toolbox)
    assert lessons.rows(world_agents, questions, world_toolbox) == alone
    assert replace(lessons, seed=4).rows(world_agents, questions, world_toolbox) != alone
    shares = []
    for rank in range(3):
        monkeypatch.setattr(cold_start, "num_ranks", lambda: 3)
        monkeypatch.setattr(cold_start, "this_rank", lambda rank=rank: rank)
        monkeypatch.setattr(cold_start, "gather_rows", lambda rows: shares.append(rows) or rows)
        lessons.rows(world_agents, questions, world_toolbox)
    assert 0 < min(map(len, shares)) <= max(map(len, shares)) < 0.7 * len(alone), "the ranks share the work"
    monkeypatch.setattr(cold_start, "gather_rows", lambda rows: [row for share in shares for row in share])
    assert lessons.rows(world_agents, questions, world_toolbox) == alone


def test_no_samples_are_refused(world_agents, world_toolbox):
    with pytest.raises(ValueError, match="`samples` is empty; lessons are made of at least one question"):
        Lessons(topology=complete).rows(world_agents, [], world_toolbox)


def loss(model, rows):
    """The mean loss of the learnt tokens, row by row and without Lightning."""
    total = weight = 0.0
    for row in rows:
        ids, weights = torch.tensor(row.input_ids), torch.tensor(row.weights)
        with torch.no_grad():
            scores = model(ids[None]).logits[0, :-1].log_softmax(-1)
        total -= float((scores.gather(1, ids[1:, None])[:, 0] * weights[1:]).sum())
        weight += float(weights.sum())
    return total / weight


@pytest.mark.filterwarnings("ignore")
def test_every_base_learns_from_its_own_agents(world_agents, world_toolbox, questions, tmp_path, monkeypatch):
    ticks = count()  # the budget is wall time; this clock makes it about 40 steps on any machine
    monkeypatch.setattr(sft, "time", SimpleNamespace(monotonic=lambda: next(ticks) * 1000 / 80))
    lessons = Lessons(topology=complete, num_demonstrations=8, num_drills=0)
    rows = lessons.rows(world_agents, questions, world_toolbox)
    bases = {}
    for name in ("qwen3", "qwen2"):
        model, tokenizer = tiny_base(name, hidden_size=32)
        bases[name] = Base(model=model, tokenizer=tokenizer, name="")
    members = {"ada": "qwen3", "bea": "qwen3", "cyd": "qwen2"}
    before = {name: (loss(base.model, rows), hash_weights(base.model)) for name, base in bases.items()}
    fast, still = partial(AdamW, lr=1e-2), partial(AdamW, lr=0.0)
    cold = ColdStart(
        lessons,
        no_questions,
        drills=([], None),
        optimizer={"qwen3": fast, "qwen2": still},
        schedule=Schedule(seconds=1000, cooldown=0.95, batch_size=4, num_validations=1),
    )
    asked = [row for row in rows if row.agent != "cyd" or not any(row.answer_mask)]
    tokens = Counter()
    curves = cold.train(bases, members, rows, asked, tmp_path / "bases", tokens=tokens)
    assert tokens.keys() == {"trained"}
    shortest = min(len(row.input_ids) for row in rows)
    assert tokens["trained"] >= 4 * shortest * sum(curve[-1]["step"] for curve in curves.values())
    assert loss(bases["qwen3"].model, rows) < 0.8 * before["qwen3"][0]
    assert hash_weights(bases["qwen2"].model) == before["qwen2"][1], "a rate of its own for every base"
    for name, base in bases.items():
        assert base.name == str(tmp_path / "bases" / name)
        assert not base.model.training
        assert not any(parameter.requires_grad for parameter in base.model.parameters())
        assert hash_weights(AutoModelForCausalLM.from_pretrained(base.name)) == hash_weights(base.model)
        assert load_tokenizer(base.name)("keep").input_ids == base.tokenizer("keep").input_ids
        assert curves[name]
        assert all(point.keys() == {"seconds", "step", "sft/val_loss", "sft/val_exact"} for point in curves[name])
    assert curves["qwen3"][-1]["sft/val_loss"] < before["qwen3"][0]
    assert 0 <= curves["qwen3"][-1]["sft/val_exact"] <= 1
    assert isnan(curves["qwen2"][-1]["sft/val_exact"]), "no row of its agent has an answer"
    own = [row for row in asked if row.agent == "cyd"]
    assert curves["qwen2"][0]["sft/val_loss"] == pytest.approx(loss(bases["qwen2"].model, own), rel=1e-4)


def no_questions(split):
    raise AssertionError("the rows are given")


def test_drills_are_about_what_is_given_and_validation_is_about_other_videos(world, world_agents, world_toolbox):
    drawn = DrawnScenes(world.spec.scenes, world.spec.tasks, num_scenes=3)
    tools = Toolbox(CLASSICAL_TOOLS, look=drawn.look)
    lessons = Lessons(topology=complete, num_demonstrations=5, num_drills=6)
    cold = ColdStart(
        lessons,
        world.every_question,
        drills=(drawn.samples, tools),
        optimizer=AdamW,
        schedule=Schedule(seconds=1),
        validation_drills=4,
    )
    rows, validation = cold.rows(world_agents, world_toolbox)
    spelling, chat = world_agents[0].spelling, world_agents[0].chat
    parts = [
        (rows[:20], truths_of(world.every_question("train"), spelling), {("other", 1.0), ("answer", 0.0)}),
        (rows[20:], truths_of(drawn.samples, spelling), {("other", 0.0)}),
        (validation, truths_of(world.every_question("val"), spelling), {("other", 0.0)}),
    ]
    for part, truths, kinds in parts:
        assert part
        found = sum((read_row(row, chat, truths) for row in part), Counter())
        assert found.keys() == kinds | {("answer", 1.0)}
    assert len(rows) > 35
    assert 10 < len(validation) <= 16


@pytest.mark.parametrize(
    ("losses", "flat"),
    [
        ([1.0], False),
        ([3.0, 2.0, 1.0, 0.9], False),
        ([1.0, 1.2, 1.1, 0.995], True),
        ([1.0, 1.2, 1.1, 0.98], False),
        ([1.2, 1.0, 1.1, 1.1], False),  # the best is among the last three
        ([1.2, 1.0, 1.1, 1.1, 1.1], True),
        ([1.0, float("nan"), 1.1, 1.2], False),
    ],
)
def test_a_loss_is_flat_when_it_has_not_improved_by_a_hundredth_for_a_while(losses, flat):
    assert Schedule(seconds=1, patience=3).is_flat([{"sft/val_loss": loss} for loss in losses]) is flat


@pytest.mark.filterwarnings("ignore")
def test_training_ends_once_validation_is_flat(world_agents, world_toolbox, questions, tmp_path, monkeypatch):
    ticks = count()
    monkeypatch.setattr(sft, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    lessons = Lessons(topology=complete, num_demonstrations=8, num_drills=0)
    rows = lessons.rows(world_agents, questions, world_toolbox)
    model, tokenizer = tiny_base("qwen3", hidden_size=32)
    schedule = Schedule(seconds=400, cooldown=0.1, batch_size=4, num_validations=1, patience=2)
    cold = ColdStart(lessons, no_questions, drills=([], None), optimizer=partial(AdamW, lr=0.0), schedule=schedule)
    # Lightning's own clock sets the time between validations; here there is one after every step.
    monkeypatch.setattr(base_training, "timedelta", lambda seconds: 1)
    base = Base(model=model, tokenizer=tokenizer, name="")
    members = dict.fromkeys(("ada", "bea", "cyd"), "qwen3")
    (curve,) = cold.train({"qwen3": base}, members, rows, rows[:4], tmp_path / "bases").values()
    # Nothing is learnt, so the third validation finds the loss flat; a tenth of the clock's budget later all ends.
    assert 3 < curve[-1]["step"] < 30
    assert curve[-1]["seconds"] < 200
