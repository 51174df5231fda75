import copy

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict

from m1lite.engines.hf import HfEngine
from m1lite.modules.adapters import save_adapters
from m1lite.modules.bases import Base, base_tensors, hash_weights
from m1lite.modules.team import Team
from m1lite.modules.tiny import tiny_base


@torch.no_grad()
def plain_scores(model, batch):
    """Log-probs and entropies row by row, without padding, from transformers' own logits."""
    logprobs, entropies = torch.zeros(batch.input_ids.shape), torch.zeros(batch.input_ids.shape)
    for row in range(len(logprobs)):
        length = int(batch.attention_mask[row].sum())
        ids = batch.input_ids[row, :length]
        scores = (model(input_ids=ids[None]).logits[0] / batch.temperature).log_softmax(-1)
        for place in range(1, length):
            if batch.loss_mask[row, place]:
                logprobs[row, place] = scores[place - 1, ids[place]]
                entropies[row, place] = -(scores[place - 1].exp() * scores[place - 1]).sum()
    return logprobs, entropies


@pytest.mark.parametrize(("agent", "temperature"), [("ada", 1.0), ("bea", 0.7), ("cyd", 1.3)])
def test_logprobs_are_those_of_peft_row_by_row(team, make_batch, agent, temperature):
    batch = make_batch(agent, temperature=temperature)
    found, entropy = team.logprobs(agent, batch)
    model = team.models[team.members[agent]]
    model.set_adapter(agent)
    expected, expected_entropy = plain_scores(model, batch)
    assert found.dtype == torch.float32
    assert not entropy.requires_grad
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy, expected_entropy, atol=1e-5, rtol=0)
    assert (found[~batch.loss_mask] == 0).all()


def test_reference_is_the_base_without_a_copy(team, make_batch):
    for agent, architecture, seed in (("ada", "qwen3", 0), ("cyd", "qwen2", 1)):
        batch = make_batch(agent)
        untouched, _ = tiny_base(architecture, hidden_size=32, num_layers=2, seed=seed)
        expected, _ = plain_scores(untouched, batch)
        torch.testing.assert_close(team.reference_logprobs(agent, batch), expected, atol=1e-5, rtol=0)
        before = team.logprobs(agent, batch)[0].detach()
        team.reference_logprobs(agent, batch)
        assert torch.equal(team.logprobs(agent, batch)[0], before), "the adapter must be on again"
        assert not torch.allclose(before, expected, atol=1e-3), "the adapter must change something"
    frozen = sum(p.numel() for p in team.parameters() if not p.requires_grad)
    bases = [tiny_base(name, hidden_size=32, num_layers=2)[0] for name in ("qwen3", "qwen2")]
    assert frozen == sum(p.numel() for base in bases for p in base.parameters())


def test_every_adapter_stays_trainable_and_only_the_active_one_gets_gradients(team, make_batch):
    every = [p for agent in team.agents for p in team.adapter_parameters(agent).values()]
    for agent in ("ada", "cyd", "bea", "ada"):
        team.zero_grad()
        team.reference_logprobs("bea", make_batch("bea"))
        team.logprobs(agent, make_batch(agent))[0].sum().backward()
        own = {id(p) for p in team.adapter_parameters(agent).values()}
        for parameter in every:
            assert parameter.requires_grad
            assert (parameter.grad is not None) == (id(parameter) in own)
        assert sum(p.requires_grad for p in team.parameters()) == len(every)


def test_gradient_is_that_of_peft(team, make_batch):
    batch = make_batch("bea", temperature=0.8)
    (team.logprobs("bea", batch)[0] * batch.advantages).sum().backward()
    found = {name: p.grad.clone() for name, p in team.adapter_parameters("bea").items()}
    team.zero_grad()
    model = team.models["qwen3"]
    model.set_adapter("bea")
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits / 0.8
    chosen = logits[:, :-1].log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    (chosen * batch.advantages[:, 1:]).sum().backward()
    for name, parameter in team.adapter_parameters("bea").items():
        torch.testing.assert_close(found[name], parameter.grad, atol=2e-5, rtol=1e-4)


def test_bases_stay_in_eval_mode_and_frozen(team, make_batch):
    hashes = {name: hash_weights(model) for name, model in team.models.items()}
    team.train()
    assert team.training
    assert not any(module.training for module in team.models.modules() if module is not team.models)
    optimizer = torch.optim.SGD([p for p in team.parameters() if p.requires_grad], lr=0.1)
    for agent in team.agents:
        team.logprobs(agent, make_batch(agent))[0].sum().backward()
    optimizer.step()
    assert {name: hash_weights(model) for name, model in team.models.items()} == hashes == team.base_hashes()


def test_hash_does_not_depend_on_adapters_but_on_every_bit(make_team):
    model, tokenizer = tiny_base("qwen3", hidden_size=32, num_layers=2)
    bare = hash_weights(model)
    names = {name for name, _ in base_tensors(model)}
    assert "lm_head.weight" in names, "the tied head is part of what an engine loads"
    Team({"q": Base(model=copy.deepcopy(model), tokenizer=tokenizer, name="")}, {"ada": "q"})
    inside = make_team({"ada": "qwen3"}).models["qwen3"]
    assert hash_weights(inside) == bare
    assert {name for name, _ in base_tensors(inside)} == names
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-6
    assert hash_weights(model) != bare


def test_adapter_tensors_have_pefts_names_and_are_copies(team):
    for agent in team.agents:
        model = team.models[team.members[agent]]
        expected = get_peft_model_state_dict(model, adapter_name=agent, save_embedding_layers=False)
        found = team.adapter_tensors(agent)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        next(iter(found.values())).add_(1.0)
        assert not torch.equal(next(iter(found.values())), next(iter(team.adapter_tensors(agent).values())))
    config = team.adapter_config("ada")
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.0)
    ends = {name.rsplit(".", 1)[-1] for name in config["target_modules"]}
    assert ends == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("layers", [r".*\.layers\.1\..*(q|up)_proj", ["q_proj", "up_proj"], "all-linear"])
def test_engines_and_peft_get_the_layers_as_they_were_asked_for(layers, tmp_path):
    model, tokenizer = tiny_base("qwen3", hidden_size=32, num_layers=2)
    bare = copy.deepcopy(model)
    team = Team({"q": Base(model=model, tokenizer=tokenizer, name="")}, {"ada": "q"}, target_modules=layers)
    config, tensors = team.adapter_config("ada"), team.adapter_tensors("ada")
    if layers != "all-linear":
        assert config["target_modules"] == layers
    save_adapters(team, tmp_path)
    found = get_peft_model_state_dict(PeftModel.from_pretrained(bare, tmp_path / "ada"))
    assert found.keys() == tensors.keys()
    engine = HfEngine(tiny_base("qwen3", hidden_size=32, num_layers=2)[0], ["ada"])
    engine.load_adapter("ada", tensors, config, version=1)
    assert engine.versions() == {"ada": 1}


def test_first_adapters_follow_from_seed_and_name_alone(make_team):
    torch.manual_seed(1)
    one = make_team(seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other = make_team({"bea": "qwen3", "ada": "qwen3"}, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "the global generator must stay untouched"
    for agent in ("ada", "bea"):
        pairs = zip(one.adapter_tensors(agent).values(), other.adapter_tensors(agent).values(), strict=True)
        assert all(torch.equal(left, right) for left, right in pairs)
    first = {agent: next(iter(one.adapter_tensors(agent).values())) for agent in ("ada", "bea")}
    assert not torch.equal(first["ada"], first["bea"])
    assert one.fingerprint() != make_team(seed=4).fingerprint()
    assert one.fingerprint() == make_team(seed=3).fingerprint()


def test_checkpoint_holds_adapters_only_and_restores_them(make_team):
    one, other = make_team(stir=0.05), make_team(seed=8)
    state = one.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    assert len(tensors) == sum(p.requires_grad for p in one.parameters())
    assert all(".lora_" in name for name in tensors)
    other.load_state_dict(state)
    assert other.fingerprint() == one.fingerprint()
    del state[next(iter(tensors))]
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(state)


def test_checkpoint_of_another_base_or_team_is_refused_with_both_sides(make_team):
    one, other = make_team(), make_team()
    with torch.no_grad():
        other.models["qwen2"].get_base_model().model.norm.weight += 1e-3
    stored, own = one.base_hashes()["qwen2"], other.base_hashes()["qwen2"]
    with pytest.raises(ValueError, match=rf"'qwen2' with hash {stored}, but the loaded base has hash {own}"):
        other.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match=r"\{'ada': 'qwen3'\}, this team is \{'ada': 'qwen2'\}"):
        make_team({"ada": "qwen2"}).load_state_dict(make_team({"ada": "qwen3"}).state_dict())


def test_gradient_checkpointing_recomputes_under_the_right_adapter(make_team, make_batch):
    plain, saving = make_team(stir=0.05), make_team(stir=0.05, gradient_checkpointing=True)
    layers = saving.models["qwen3"].get_base_model().model.layers
    calls = []
    layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    for team in (plain, saving):
        losses = [team.logprobs(agent, make_batch(agent))[0].sum() for agent in ("ada", "bea")]
        # Backward after the other agent's forward pass: the recomputation must switch back.
        if team is plain:
            for loss in losses:
                loss.backward()
        else:
            forwards = len(calls)
            for loss in losses:
                loss.backward()
            assert len(calls) > forwards, "the layer must run again in the backward pass"
    for agent in ("ada", "bea"):
        for name, parameter in plain.adapter_parameters(agent).items():
            torch.testing.assert_close(saving.adapter_parameters(agent)[name].grad, parameter.grad)


def test_bfloat16_base_keeps_float32_adapters(make_batch):
    model, tokenizer = tiny_base("qwen3", hidden_size=32)
    team = Team({"q": Base(model=model.bfloat16(), tokenizer=tokenizer, name="")}, {"ada": "q"})
    assert {p.dtype for p in team.adapter_parameters("ada").values()} == {torch.float32}
    found, _ = team.logprobs("ada", make_batch())
    assert found.dtype == torch.float32
    found.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in team.adapter_parameters("ada").values())


def test_batch_without_loss_tokens_scores_nothing(team, make_batch):
    batch = make_batch()
    batch.loss_mask[:] = False
    logprobs, entropy = team.logprobs("ada", batch)
    assert logprobs.abs().sum() == entropy.abs().sum() == team.reference_logprobs("ada", batch).sum() == 0


def test_wrong_input_is_named(team, make_batch):
    with pytest.raises(ValueError, match=r"Unknown agent 'eve'; the team is \['ada', 'bea', 'cyd'\]"):
        team.logprobs("eve", make_batch())
    with pytest.raises(ValueError, match=r"'ada''s batch is 0\.0; only tokens sampled above 0"):
        team.logprobs("ada", make_batch(temperature=0.0))
    batch = make_batch()
    batch.loss_mask[2, 0] = True
    with pytest.raises(ValueError, match="'ada' is true on a first token"):
        team.logprobs("ada", batch)


def test_wrong_members_are_named():
    model, tokenizer = tiny_base("qwen3", hidden_size=32)
    base = Base(model=model, tokenizer=tokenizer, name="")
    with pytest.raises(ValueError, match=r"'ada' names base 'w'; there are \['q'\]"):
        Team({"q": base}, {"ada": "w"})
    with pytest.raises(ValueError, match=r"'ada\.b' may hold only"):
        Team({"q": base}, {"ada.b": "q"})
    with pytest.raises(ValueError, match="`members` is empty"):
        Team({"q": base}, {})
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match=r"'q' \(Qwen3ForCausalLM\).*final_logit_softcapping"):
        Team({"q": base}, {"ada": "q"})
