import copy

import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.full_copies import FullCopies, WholeWeights
from benchmarks.study_lora import RATES, configured, read_rates
from m1lite.configuration import ConfigError
from m1lite.engines.base import EngineGroup, Request, Sampling
from m1lite.engines.hf import HfEngine
from m1lite.modules.bases import Base, hash_weights
from m1lite.modules.marl import MarlModule
from m1lite.modules.objective import Objective
from m1lite.modules.tiny import tiny_base
from m1lite.modules.update import AgentUpdate
from m1lite.records import TokenBatch

MEMBERS = {"ada": "qwen3", "bea": "qwen3", "cyd": "qwen2"}


def make_bases():
    bases = {}
    for number, architecture in enumerate(("qwen3", "qwen2")):
        model, tokenizer = tiny_base(architecture, hidden_size=32, num_layers=2, seed=number)
        bases[architecture] = Base(model=model, tokenizer=tokenizer, name="")
    return bases


def make_batch(agent, *, rows=4, width=20, temperature=1.0):
    """Random rows of uneven length, of which half of the later tokens were written by the agent."""
    draw = torch.Generator().manual_seed(3)
    lengths = torch.randint(width // 2, width + 1, (rows,), generator=draw)
    attention = torch.arange(width) < lengths[:, None]
    loss = attention & (torch.arange(width) >= 5) & (torch.rand(rows, width, generator=draw) < 0.5)
    return TokenBatch(
        agent=agent,
        input_ids=torch.randint(6, 100, (rows, width), generator=draw) * attention,
        attention_mask=attention,
        loss_mask=loss,
        sampled_logprobs=-torch.rand(rows, width, generator=draw) * loss,
        advantages=torch.randn(rows, width, generator=draw) * loss,
        temperature=temperature,
        policy_version=0,
    )


def plain_logits(model, batch, row):
    """Logits of one row without padding, from the whole model."""
    length = int(batch.attention_mask[row].sum())
    return model(input_ids=batch.input_ids[row : row + 1, :length]).logits[0] / batch.temperature


def plain_loss(model, batch):
    """Sum of -advantage x log-prob, token by token."""
    total = torch.zeros(())
    for row, place in batch.loss_mask.nonzero().tolist():
        scores = plain_logits(model, batch, row)[place - 1].log_softmax(-1)
        total = total - batch.advantages[row, place] * scores[batch.input_ids[row, place]]
    return total


def step(team, agent, batch, *, beta):
    """Do one optimiser step of the real update and return the copy's weights."""
    optimizer = torch.optim.AdamW(team.adapter_parameters(agent).values(), lr=1e-2)
    update = AgentUpdate(
        team, agent, batch, objective=Objective(beta=beta), micro_batch_tokens=64, backward=torch.Tensor.backward
    )
    update.accumulate(range(len(batch.input_ids)), anchored=False)
    optimizer.step()


@pytest.mark.parametrize(("agent", "temperature"), [("bea", 1.0), ("cyd", 0.7)])
def test_logprobs_and_entropies_are_those_of_a_plain_forward_pass(agent, temperature):
    team = FullCopies(make_bases(), MEMBERS)
    with torch.no_grad():
        for parameter in team.adapter_parameters(agent).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)), alpha=0.05)
    batch = make_batch(agent, temperature=temperature)
    found, entropy = team.logprobs(agent, batch)
    expected, expected_entropy = torch.zeros(found.shape), torch.zeros(found.shape)
    with torch.no_grad():
        for row, place in batch.loss_mask.nonzero().tolist():
            scores = plain_logits(team.copies[agent], batch, row)[place - 1].log_softmax(-1)
            expected[row, place] = scores[batch.input_ids[row, place]]
            expected_entropy[row, place] = -(scores.exp() * scores).sum()
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy, expected_entropy, atol=1e-5, rtol=0)
    assert not entropy.requires_grad
    assert (team.reference_logprobs(agent, batch) - expected).abs().max() > 1e-2


def test_a_copy_starts_as_its_base():
    team = FullCopies(make_bases(), MEMBERS)
    for agent in MEMBERS:
        batch = make_batch(agent)
        assert torch.equal(team.logprobs(agent, batch)[0], team.reference_logprobs(agent, batch))


def test_the_gradient_reaches_every_weight_of_the_copy_and_is_the_plain_one():
    team = FullCopies(make_bases(), MEMBERS)
    plain = copy.deepcopy(team.copies["cyd"])
    batch = make_batch("cyd")
    batch.sampled_logprobs.copy_(team.logprobs("cyd", batch)[0].detach())
    update = AgentUpdate(
        team, "cyd", batch, objective=Objective(), micro_batch_tokens=64, backward=torch.Tensor.backward
    )
    update.accumulate(range(len(batch.input_ids)), anchored=False)
    plain_loss(plain, batch).backward()
    expected = dict(plain.named_parameters())
    for name, parameter in team.adapter_parameters("cyd").items():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-4, rtol=1e-3)


def test_a_step_moves_one_copy_and_neither_reference_nor_peer():
    bases = make_bases()
    hashes = {name: hash_weights(base.model) for name, base in bases.items()}
    team = FullCopies(bases, MEMBERS)
    before = {agent: hash_weights(model) for agent, model in team.copies.items()}
    whole = team.fingerprint()
    reference = team.reference_logprobs("ada", make_batch("ada"))
    step(team, "ada", make_batch("ada"), beta=0.01)
    after = {agent: hash_weights(model) for agent, model in team.copies.items()}
    assert {agent for agent in MEMBERS if after[agent] != before[agent]} == {"ada"}
    assert team.base_hashes() == hashes
    assert team.fingerprint() != whole
    assert torch.equal(team.reference_logprobs("ada", make_batch("ada")), reference)
    assert not torch.allclose(team.logprobs("ada", make_batch("ada"))[0], reference, atol=1e-3)


def test_the_module_trains_all_weights_of_all_copies_and_leaves_the_references_frozen():
    team = FullCopies(make_bases(), MEMBERS)
    module = MarlModule(team, optimizer=torch.optim.AdamW)
    trained = {
        id(p) for inner in module.configure_optimizers().agents.values() for p in inner.param_groups[0]["params"]
    }
    assert trained == {id(p) for p in team.copies.parameters()}
    assert {id(p) for p in team.parameters() if p.requires_grad} == trained
    team.train()
    assert not any(module.training for module in (*team.copies.modules(), *team.references.modules()))


def test_an_engine_gets_a_copys_whole_weights():
    bases = make_bases()
    team = FullCopies(bases, MEMBERS)
    engines = EngineGroup(
        {agent: HfEngine(bases[name].model, [agent], eos_token_ids=[5]) for agent, name in MEMBERS.items()}
    )
    step(team, "bea", make_batch("bea"), beta=0.0)
    WholeWeights(engines).load_adapter("bea", team.adapter_tensors("bea"), team.adapter_config("bea"), version=7)
    assert WholeWeights(engines).versions() == {"ada": 0, "bea": 7, "cyd": 0}
    sampling = Sampling(temperature=1.0, max_new_tokens=6)
    for agent in ("ada", "bea"):
        prompt = [6, 7, 8, 9]
        reply = engines.generate([Request(policy=agent, prompt_ids=prompt, sampling=sampling, seed=1)])[0]
        ids = torch.tensor([prompt + reply.token_ids])
        scores = team.copies[agent](input_ids=ids).logits[0].log_softmax(-1)
        expected = [scores[len(prompt) + place - 1, token].item() for place, token in enumerate(reply.token_ids)]
        assert reply.logprobs == pytest.approx(expected, abs=1e-4)


def make_config(engine):
    return OmegaConf.create(
        {
            "team": {
                "agents": {"ada": {"base": "qwen3"}, "cyd": {"base": "qwen2"}},
                "adapters": {"rank": 16, "alpha": 32},
            },
            "engine": {"_target_": engine},
            "marl": {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.0}},
        }
    )


def test_a_lora_variant_differs_from_the_run_by_rank_and_rate():
    given = make_config("m1lite.engines.vllm.VllmEngine")
    found = configured(given, "lora32", RATES)
    assert found.team.adapters == {"rank": 32, "alpha": 64}
    assert found.engine.max_lora_rank == 32
    assert found.marl.optimizer.cyd == {"_target_": "torch.optim.AdamW", "lr": 2e-3, "weight_decay": 0.0}
    assert found.team.agents == given.team.agents
    assert given == make_config("m1lite.engines.vllm.VllmEngine"), "the run's own configuration must stay"


def test_full_copies_have_a_base_of_their_own_and_the_rate_of_their_architecture():
    found = configured(make_config("m1lite.engines.vllm.VllmEngine"), "full", read_rates(["full.qwen2=3e-4"]))
    assert {name: member.base for name, member in found.team.agents.items()} == {"ada": "ada", "cyd": "cyd"}
    assert {name: optimizer.lr for name, optimizer in found.marl.optimizer.items()} == {"ada": 1e-3, "cyd": 3e-4}
    assert found.engine.max_adapters == 0
    assert configured(make_config("m1lite.engines.hf.HfEngine"), "full", RATES).engine.keys() == {"_target_"}


def test_a_rate_that_is_missing_or_unreadable_is_named():
    config = make_config("m1lite.engines.hf.HfEngine")
    with pytest.raises(ConfigError, match=r"no learning rate for 'full.qwen2'; give one with --lr full.qwen2="):
        configured(config, "full", {"full.qwen3": 1e-3})
    with pytest.raises(ConfigError, match="`--lr lora8=fast` cannot be read"):
        read_rates(["lora8=fast"])
