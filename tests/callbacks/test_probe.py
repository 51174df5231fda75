"""The probe finds an engine that is behind, on other weights or on old keys and values; and its rows by hand."""

import random

import pytest
import torch

from m1lite.callbacks.probe import Probe, rows
from m1lite.engines.base import EngineGroup
from m1lite.engines.hf import HfEngine
from m1lite.engines.scripted import ScriptedEngine
from tests.small_team import MEMBERS, make_bases, make_team


@pytest.fixture
def engines():
    bases = make_bases()
    parts = {
        name: HfEngine(base.model, [agent for agent, owner in MEMBERS.items() if owner == name])
        for name, base in bases.items()
    }
    return EngineGroup({agent: parts[owner] for agent, owner in MEMBERS.items()})


@pytest.fixture
def team():
    return make_team(stir=0.1)


def publish(engines, team, version):
    for agent in team.agents:
        engines.load_adapter(agent, team.adapter_tensors(agent), team.adapter_config(agent), version)


def move(team, agent, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in team.adapter_parameters(agent).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def test_an_engine_in_step_agrees_and_the_shift_is_that_of_the_last_probe_s_tokens(engines, team):
    probe = Probe(engines.generate)
    publish(engines, team, 1)
    first = probe(team, team.agents)
    assert [(row.agent, row.shift) for row in first] == [(agent, None) for agent in ("ada", "bea", "cyd")]
    assert all(row.agrees and row.error < 1e-4 for row in first)
    tokens, logprobs = probe._last["bea"]
    prompt = probe._prompt(team, "bea")
    move(team, "bea", 3)
    publish(engines, team, 2)
    (found,) = probe(team, ["bea"])
    # By hand: the whole row through the model, one position at a time.
    team.logprobs("bea", rows("bea", prompt, [tokens], pad_id=0, device=torch.device("cpu")))
    with torch.no_grad():
        logits = team.models["qwen3"](torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].double()
    now = [row.log_softmax(-1)[token].item() for row, token in zip(logits, tokens, strict=True)]
    assert found.shift == pytest.approx(max(abs(a - b) for a, b in zip(now, logprobs, strict=True)), abs=1e-4)
    assert found.shift > 0.01
    assert found.agrees


def test_an_engine_that_is_behind_shows_an_error_as_large_as_the_shift(engines, team):
    probe = Probe(engines.generate)
    publish(engines, team, 1)
    probe(team, ["ada", "cyd"])
    move(team, "ada", 3)
    behind, other = probe(team, ["ada", "cyd"])
    assert behind.shift > 0.01
    assert behind.error == pytest.approx(behind.shift, abs=1e-4), "the same seed draws the same tokens"
    assert not behind.agrees
    assert other.agrees
    assert other.shift < 1e-4


def test_no_number_does_not_agree(team):
    silent = ScriptedEngine(lambda request: [7, 8], policies=["ada"], logprob=float("nan"))
    (found,) = Probe(silent.generate)(team, ["ada"])
    assert not found.agrees


def test_the_tolerance_follows_the_trainer_s_type_unless_it_is_given(engines, team):
    publish(engines, team, 1)
    assert [row.tolerance for row in Probe(engines.generate)(team, ["ada", "cyd"])] == [1e-3, 1e-3]
    assert [row.tolerance for row in Probe(engines.generate, tolerance=0.0)(team, ["ada"])] == [0.0]
    team.models["qwen2"].to(torch.bfloat16)
    (found,) = Probe(engines.generate)(team, ["cyd"])
    assert found.tolerance == 0.5
    assert 0 < found.error < 0.5


def test_prompts_are_plain_words_and_always_the_same(engines, team):
    state = random.getstate()
    one, two = (Probe(engines.generate)._prompt(team, "ada") for _ in range(2))
    assert one == two
    assert random.getstate() == state
    assert len(one) == 40
    tokenizer = team.tokenizers["qwen3"]
    assert not set(one) & {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}


def test_rows_by_hand():
    batch = rows("ada", [5, 6], [[7], [8, 9]], pad_id=0, device=torch.device("cpu"))
    assert batch.input_ids.tolist() == [[5, 6, 7, 0], [5, 6, 8, 9]]
    assert batch.attention_mask.tolist() == [[True, True, True, False], [True] * 4]
    assert batch.loss_mask.tolist() == [[False, False, True, False], [False, False, True, True]]
