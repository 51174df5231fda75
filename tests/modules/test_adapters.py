"""Adapters on disk: PEFT reads them as its own, engines serve them, and a missing file is named."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open

from m1lite.engines.base import Request, Sampling
from m1lite.engines.hf import HfEngine
from m1lite.modules.adapters import CONFIG, WEIGHTS, read_adapter, save_adapters
from m1lite.modules.tiny import tiny_base


@pytest.fixture
def folder(team, tmp_path):
    save_adapters(team, tmp_path / "runs" / "adapters")
    return tmp_path / "runs" / "adapters"


def bare(team, agent):
    """The agent's base, made anew without any adapter."""
    architecture = team.members[agent]
    return tiny_base(architecture, hidden_size=32, num_layers=2, seed=("qwen3", "qwen2").index(architecture))[0]


@pytest.mark.parametrize("agent", ["ada", "bea", "cyd"])
def test_peft_loads_the_agent_as_it_was(team, folder, make_batch, agent):
    batch = make_batch(agent)
    with torch.no_grad():
        expected = team.logprobs(agent, batch)[0]
        model = PeftModel.from_pretrained(bare(team, agent), folder / agent).eval()
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits
    scores = logits[:, :-1].log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    mask = batch.loss_mask
    torch.testing.assert_close(scores[mask[:, 1:]], expected[mask], atol=1e-5, rtol=1e-5)
    reference = team.reference_logprobs(agent, batch)
    assert (expected - reference).abs().max() > 0.01, "the adapter does something"


def test_what_is_read_is_what_was_saved(team, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["ada", "bea", "cyd"]
    for agent in team.agents:
        tensors, config = read_adapter(folder / agent)
        saved = team.adapter_tensors(agent)
        assert tensors.keys() == saved.keys()
        assert all(torch.equal(tensors[name], saved[name]) for name in saved)
        assert config == team.adapter_config(agent)
        with safe_open(folder / agent / WEIGHTS, "pt") as file:
            assert file.metadata() == {"format": "pt"}


def test_a_second_save_replaces_the_first(team, folder):
    with torch.no_grad():
        for parameter in team.adapter_parameters("ada").values():
            parameter.zero_()
    save_adapters(team, folder)
    assert not any(tensor.any() for tensor in read_adapter(folder / "ada")[0].values())


def test_an_engine_serves_what_was_saved(team, folder):
    engine = HfEngine(bare(team, "ada"), ["ada", "bea"])
    request = Request(policy="ada", prompt_ids=list(range(6, 20)), sampling=Sampling(max_new_tokens=8), seed=3)
    before = engine.generate([request])[0]
    engine.load_adapter("ada", *read_adapter(folder / "ada"), version=4)
    after = engine.generate([request])[0]
    assert (before.policy_version, after.policy_version) == (0, 4)
    assert after.logprobs != before.logprobs
    sampled = torch.tensor([[*request.prompt_ids, *after.token_ids]])
    model = PeftModel.from_pretrained(bare(team, "ada"), folder / "ada").eval()
    with torch.no_grad():
        scores = model(input_ids=sampled).logits[0].log_softmax(-1)
    start = len(request.prompt_ids)
    expected = [float(scores[start - 1 + place, token]) for place, token in enumerate(after.token_ids)]
    assert after.logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("missing", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named(folder, missing):
    (folder / "ada" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"No {missing} in {folder}/ada; give the folder of one agent"):
        read_adapter(folder / "ada")


def test_the_configuration_is_plain_json(folder):
    config = json.loads((folder / "cyd" / CONFIG).read_text(encoding="utf-8"))
    assert config["peft_type"] == "LORA"
    assert (config["r"], config["lora_alpha"]) == (4, 8)
