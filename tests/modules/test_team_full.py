"""A team in which some agents are whole copies of their base and others adapters on it."""

import copy
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch.optim import AdamW

from m1lite.assembly import Member, PolicyWeights, make_engines
from m1lite.engines.base import Request, Sampling
from m1lite.engines.hf import HfEngine
from m1lite.modules.adapters import read_adapter, save_adapters
from m1lite.modules.bases import Base, hash_weights
from m1lite.modules.batch import RolloutBatch
from m1lite.modules.marl import MarlModule
from m1lite.modules.objective import Objective
from m1lite.modules.team import Team
from m1lite.modules.tiny import tiny_base
from m1lite.modules.update import AgentUpdate
from tests.small_team import MEMBERS, make_bases, make_batch, make_team

FULL = ("bea", "cyd")
"""ada is an adapter on bea's base; nobody has an adapter on cyd's."""


@pytest.fixture
def mixed():
    return make_team(full=FULL, stir=0.05)


def plain_logits(model, batch, row):
    """Logits of one row without padding, from the whole model."""
    length = int(batch.attention_mask[row].sum())
    return model(input_ids=batch.input_ids[row : row + 1, :length]).logits[0] / batch.temperature


def plain_scores(model, batch):
    scores, entropy = torch.zeros(batch.loss_mask.shape), torch.zeros(batch.loss_mask.shape)
    for row, place in batch.loss_mask.nonzero().tolist():
        found = plain_logits(model, batch, row)[place - 1].log_softmax(-1)
        scores[row, place] = found[batch.input_ids[row, place]]
        entropy[row, place] = -(found.exp() * found).sum()
    return scores, entropy


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize(("agent", "temperature"), [("bea", 1.0), ("cyd", 0.7)])
def test_a_copy_scores_and_learns_as_the_plain_model(agent, temperature, packing):
    team = make_team(full=FULL, stir=0.05, packing=packing)
    plain = copy.deepcopy(team.copies[agent])
    plain.set_attn_implementation("sdpa")
    batch = make_batch(agent, temperature=temperature)
    found, entropy = team.logprobs(agent, batch)
    expected, expected_entropy = plain_scores(plain, batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy, expected_entropy, atol=1e-5, rtol=0)
    (found * batch.advantages).sum().backward()
    (expected * batch.advantages).sum().backward()
    gradients = dict(plain.named_parameters())
    for name, parameter in team.adapter_parameters(agent).items():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-4, rtol=1e-3)


def test_a_copy_starts_as_its_base_which_is_its_reference():
    team = make_team(full=FULL)
    for agent in MEMBERS:
        batch = make_batch(agent)
        torch.testing.assert_close(team.logprobs(agent, batch)[0].detach(), team.reference_logprobs(agent, batch))
    for agent in FULL:  # not only close: the same arithmetic on the same bits
        batch = make_batch(agent)
        assert torch.equal(team.logprobs(agent, batch)[0], team.reference_logprobs(agent, batch))


def test_adapters_beside_a_copy_are_those_of_a_team_without_one(mixed):
    alone = make_team(stir=0.0)
    with torch.no_grad():
        for name, parameter in alone.adapter_parameters("ada").items():
            parameter.copy_(mixed.adapter_parameters("ada")[name])
    batch = make_batch("ada")
    for _ in range(2):  # also after the others had their turns
        torch.testing.assert_close(mixed.logprobs("ada", batch)[0], alone.logprobs("ada", batch)[0])
        assert torch.equal(mixed.reference_logprobs("ada", batch), alone.reference_logprobs("ada", batch))
        mixed.logprobs("bea", make_batch("bea"))
        mixed.reference_logprobs("bea", make_batch("bea"))


def batches(steps, start=0):
    class Loader:
        def __len__(self):
            return steps

        def __iter__(self):
            for step in range(start, start + steps):
                batch = RolloutBatch([])
                batch.tokens = {
                    agent: make_batch(agent, seed=10 * step + number, version=step)
                    for number, agent in enumerate(MEMBERS)
                }
                yield batch

    return Loader()


def fit(module, steps, **kwargs):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **{name: value for name, value in kwargs.items() if name != "ckpt_path"},
    )
    done = module.versions["ada"]
    trainer.fit(module, batches(steps - done, done), ckpt_path=kwargs.get("ckpt_path"), weights_only=True)
    return trainer


def make_module(team, **kwargs):
    return MarlModule(team, optimizer=partial(AdamW, lr=0.01), objective=Objective(beta=0.1), **kwargs)


def test_both_kinds_train_in_one_module_and_no_base_changes_a_bit(mixed):
    hashes = {name: hash_weights(model) for name, model in mixed.models.items()}
    before = {agent: mixed.adapter_tensors(agent) for agent in MEMBERS}
    module = make_module(mixed, update_epochs=2, minibatches=2)
    runner = fit(module, 2)
    assert {name: hash_weights(model) for name, model in mixed.models.items()} == hashes == mixed.base_hashes()
    assert module.versions == dict.fromkeys(MEMBERS, 2)
    for agent in MEMBERS:
        after = mixed.adapter_tensors(agent)
        assert after.keys() == before[agent].keys()
        assert runner.callback_metrics[f"{agent}/update/weights_changed_share"] > 0.5
        assert not all(torch.equal(after[name], before[agent][name]) for name in after)
    assert {value.dtype for value in mixed.parameters() if value.requires_grad} == {torch.float32}
    assert not any(
        part.training
        for part in (*mixed.models.modules(), *mixed.copies.modules())
        if part is not mixed.models and part is not mixed.copies
    )


def test_a_step_of_one_copy_moves_nobody_else(mixed):
    before = {agent: mixed.adapter_tensors(agent) for agent in MEMBERS}
    reference = mixed.reference_logprobs("ada", make_batch("ada"))
    optimizer = torch.optim.AdamW(mixed.adapter_parameters("bea").values(), lr=1e-2)
    objective = Objective(beta=0.1)
    batch = make_batch("bea")
    update = AgentUpdate(
        mixed, "bea", batch, objective=objective, micro_batch_tokens=64, backward=torch.Tensor.backward
    )
    update.accumulate(range(len(batch.input_ids)), anchored=False)
    optimizer.step()
    for agent in MEMBERS:
        after = mixed.adapter_tensors(agent)
        assert all(torch.equal(after[name], before[agent][name]) for name in after) == (agent != "bea")
    assert torch.equal(mixed.reference_logprobs("ada", make_batch("ada")), reference)


def test_a_checkpoint_holds_what_is_trained_and_continues_bit_by_bit(tmp_path):
    whole = make_module(make_team(full=FULL, stir=0.05))
    fit(whole, 3)
    stopped = make_module(make_team(full=FULL, stir=0.05))
    fit(stopped, 2).save_checkpoint(tmp_path / "two.ckpt")
    state = torch.load(tmp_path / "two.ckpt", weights_only=True)
    trained = {f"team.{name}" for name, value in stopped.team.named_parameters() if value.requires_grad}
    assert state["state_dict"].keys() == trained | {"team._extra_state"}
    resumed = make_module(make_team(full=FULL, stir=0.05))
    resumed.versions = dict(stopped.versions)  # only so that the loader above knows where to begin
    fit(resumed, 3, ckpt_path=tmp_path / "two.ckpt")
    assert resumed.team.fingerprint() == whole.team.fingerprint()
    with pytest.raises(ValueError, match=r"trains \['bea', 'cyd'\] in full, this team \['bea'\]"):
        make_team(full=["bea"]).set_extra_state(whole.team.get_extra_state())


def test_a_missing_weight_of_a_copy_is_reported(mixed):
    state = mixed.state_dict()
    lost = next(name for name in state if name.startswith("copies.cyd."))
    del state[lost]
    with pytest.raises(RuntimeError, match=lost.replace(".", r"\.")):
        mixed.load_state_dict(state)


def test_gradient_checkpointing_changes_no_gradient():
    found = []
    for checkpointing in (False, True):
        team = make_team(full=FULL, stir=0.05, gradient_checkpointing=checkpointing)
        batch = make_batch("bea")
        (team.logprobs("bea", batch)[0] * batch.advantages).sum().backward()
        found.append({name: value.grad for name, value in team.adapter_parameters("bea").items()})
        assert (
            any(getattr(part, "gradient_checkpointing", False) for part in team.copies["bea"].modules())
            == checkpointing
        )
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_a_copy_of_a_bfloat16_base_is_float32():
    model, tokenizer = tiny_base("qwen3", hidden_size=32, num_layers=2)
    base = Base(model=model.to(torch.bfloat16), tokenizer=tokenizer, name="")
    team = Team({"qwen3": base}, {"ada": "qwen3", "bea": "qwen3"}, full=["bea"])
    assert {value.dtype for value in team.copies.parameters()} == {torch.float32}
    assert next(iter(team.models["qwen3"].get_base_model().parameters())).dtype == torch.bfloat16
    assert team.logprobs("bea", make_batch("bea"))[0].dtype == torch.float32


def engines_of(bases, tmp_path):
    for name, base in bases.items():
        base.name = str(tmp_path / name)
        base.model.save_pretrained(base.name)
    members = {agent: Member(base=base, tools=[], full=agent in FULL) for agent, base in MEMBERS.items()}
    return make_engines(
        members, bases, lambda *args, **kwargs: HfEngine(*args, eos_token_ids=[5], **kwargs), max_context=64
    )


def test_engines_play_what_is_trained_and_what_was_saved(tmp_path):
    bases = make_bases()
    engines = engines_of(bases, tmp_path)
    assert len({id(engine) for engine in engines.engines.values()}) == 3
    team = make_team(bases=bases, full=FULL, stir=0.05)
    weights = PolicyWeights(engines)
    save_adapters(team, tmp_path / "adapters")
    prompt, sampling = [6, 7, 8, 9], Sampling(temperature=1.0, max_new_tokens=6)
    for version, published in enumerate(("trained", "saved"), start=1):
        for agent in MEMBERS:
            given = team.adapter_tensors(agent), team.adapter_config(agent)
            if published == "saved":
                given = read_adapter(tmp_path / "adapters" / agent)
            weights.load_adapter(agent, *given, version=version)
            reply = engines.generate([Request(policy=agent, prompt_ids=prompt, sampling=sampling, seed=1)])[0]
            assert reply.policy_version == version
            ids = torch.tensor([prompt + reply.token_ids])
            model = team._policy(agent)
            scores = model(input_ids=ids).logits[0].log_softmax(-1)
            expected = [scores[len(prompt) + place - 1, token].item() for place, token in enumerate(reply.token_ids)]
            assert reply.logprobs == pytest.approx(expected, abs=1e-4)
    assert weights.versions() == dict.fromkeys(MEMBERS, 2)


def test_an_unknown_agent_is_named():
    with pytest.raises(ValueError, match=r"`full` names \['eve'\]; the team is \['ada', 'bea', 'cyd'\]"):
        make_team(full=["eve"])
