import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import SGD, AdamW

from m1lite.modules.bases import hash_weights
from m1lite.modules.batch import RolloutBatch
from m1lite.modules.marl import MarlModule, NonFiniteUpdateError, StaleRolloutError, refuse_trainer_arguments
from m1lite.modules.objective import Objective
from m1lite.modules.schedules import cosine, linear
from m1lite.rl.losses import clipped_surrogate
from m1lite.rl.mismatch import importance_weights

AGENTS = ("ada", "bea", "cyd")


class Batches:
    """Batches by step, sized and stateful as the real loader; every step's versions are those of a full run."""

    def __init__(self, make_batch, steps, *, agents=AGENTS, **kwargs):
        self.make_batch, self.steps, self.agents, self.kwargs, self.at = make_batch, steps, agents, kwargs, 0

    def __len__(self):
        return self.steps

    def __iter__(self):
        for _ in range(self.steps - self.at):
            self.at += 1
            yield self.batch(self.at - 1)

    def batch(self, step):
        batch = RolloutBatch([])
        batch.tokens = {
            agent: self.make_batch(agent, seed=100 * step + number, version=step, **self.kwargs)
            for number, agent in enumerate(self.agents)
        }
        return batch

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Only:
    """A loader of given batches. A bare list would be a list of loaders to Lightning."""

    def __init__(self, *batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Log(pl.Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def trainer(*callbacks, **kwargs):
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": -1,
        "log_every_n_steps": 1,
        "callbacks": list(callbacks),
    }
    return pl.Trainer(**{**defaults, **kwargs})


def fit(module, batches, *callbacks, ckpt_path=None, weights_only=None, **kwargs):
    log = Log()
    runner = trainer(log, *callbacks, **kwargs)
    runner.fit(module, batches, ckpt_path=ckpt_path, weights_only=weights_only)
    return log.steps, runner


def plain_update(team, agent, batch, optimizer, *, epochs, parts, step, beta, clip, max_norm):
    """One agent's update written plainly: whole rows, PEFT's own logits, mean over tokens."""

    def scores(adapter):
        model = team.models[team.members[agent]]
        model.set_adapter(agent)
        team.requires_grad_(False)
        for parameter in team.adapter_parameters(agent).values():
            parameter.requires_grad_(True)
        if adapter:
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits
        else:
            with model.disable_adapter(), torch.no_grad():
                logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits
        chosen = logits[:, :-1].log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
        return torch.cat([torch.zeros(len(chosen), 1), chosen], dim=1)

    with torch.no_grad():
        old, reference = scores(True), scores(False)
    losses, kls, norms = [], [], []
    for epoch in range(epochs):
        rows = torch.arange(len(old))
        if parts > 1:
            rows = torch.randperm(len(old), generator=torch.Generator().manual_seed(step * epochs + epoch))
        for part in range(parts):
            mask = torch.zeros_like(batch.loss_mask)
            mask[rows[part::parts]] = batch.loss_mask[rows[part::parts]]
            new = scores(True)
            ratio = (new - old).exp()
            gain = torch.minimum(ratio * batch.advantages, ratio.clamp(1 - clip, 1 + clip) * batch.advantages)
            kl = (reference - new).exp() - (reference - new) - 1
            loss = (-gain + beta * kl)[mask].mean()
            optimizer.zero_grad()
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(list(team.adapter_parameters(agent).values()), max_norm).item())
            optimizer.step()
            losses.append((loss.item(), int(mask.sum())))
            kls.append((kl[mask].mean().item(), int(mask.sum())))
    mean = lambda pairs: sum(value * count for value, count in pairs) / sum(count for _, count in pairs)  # noqa: E731
    return {"loss": mean(losses), "kl": mean(kls), "grad_norm": sum(norms) / len(norms)}


@pytest.mark.parametrize(("epochs", "parts", "micro"), [(1, 1, 4096), (1, 1, 30), (2, 1, 60), (2, 2, 60)])
def test_update_equals_a_plain_one(make_team, make_batch, epochs, parts, micro):
    team, other = make_team(stir=0.05), make_team(stir=0.05)
    optimizer = partial(AdamW, lr=0.01)
    objective = Objective(partial(clipped_surrogate, clip_low=0.05, clip_high=0.05), beta=0.1)
    module = MarlModule(
        team,
        optimizer=optimizer,
        objective=objective,
        update_epochs=epochs,
        minibatches=parts,
        micro_batch_tokens=micro,
        max_grad_norm=0.3,
    )
    batches = Batches(make_batch, 3)
    logged, _ = fit(module, batches, max_steps=3)
    for agent in AGENTS:
        own = optimizer(list(other.adapter_parameters(agent).values()))
        for step in range(3):
            expected = plain_update(
                other,
                agent,
                batches.batch(step).tokens[agent],
                own,
                epochs=epochs,
                parts=parts,
                step=step,
                beta=0.1,
                clip=0.05,
                max_norm=0.3,
            )
            for name, value in expected.items():
                assert logged[step][f"{agent}/{name}"] == pytest.approx(value, rel=2e-3, abs=1e-5), (step, name)
        for name, parameter in team.adapter_parameters(agent).items():
            torch.testing.assert_close(parameter, other.adapter_parameters(agent)[name], atol=2e-4, rtol=0)
    if epochs > 1:
        assert sum(step["ada/clip_ratio/region_mean"] for step in logged) > 0, "the ratio must be live"
    else:
        assert all(step["ada/clip_ratio/region_mean"] == 0 for step in logged)


def test_trainers_steps_are_marl_steps_whatever_the_number_of_updates(make_team, make_batch, tmp_path):
    files = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    module = MarlModule(make_team(), optimizer=partial(AdamW, lr=0.01), update_epochs=2, minibatches=2)
    logged, runner = fit(module, Batches(make_batch, 9), files, max_steps=5)
    assert runner.global_step == len(logged) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=2.ckpt", "step=4.ckpt"]
    assert module.versions == dict.fromkeys(AGENTS, 5)
    state = torch.load(tmp_path / "step=4.ckpt", weights_only=True)
    assert state["marl"]["versions"] == dict.fromkeys(AGENTS, 4)
    assert state["optimizer_states"][0]["ticks"] == 4
    adam = state["optimizer_states"][0]["agents"]["bea"]["state"][0]
    assert adam["step"] == 4 * 2 * 2


def test_a_resumed_run_continues_bit_by_bit(make_team, make_batch, tmp_path):
    def module():
        objective = Objective(beta=0.05)
        return MarlModule(
            make_team(stir=0.05), optimizer=partial(AdamW, lr=0.01), objective=objective, update_epochs=2, minibatches=2
        )

    whole = module()
    logged, _ = fit(whole, Batches(make_batch, 6), max_steps=6)
    stopped = module()
    files = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=3)
    first, _ = fit(stopped, Batches(make_batch, 6), files, max_steps=3)
    resumed = module()
    second, _ = fit(resumed, Batches(make_batch, 6), max_steps=6, ckpt_path=tmp_path / "step=3.ckpt", weights_only=True)
    assert [len(first), len(second)] == [3, 3]
    timing = {"perf/update_s", "perf/update_tokens_per_s"}
    for one, other in zip(logged, first + second, strict=True):
        assert {k: v for k, v in one.items() if k not in timing} == {k: v for k, v in other.items() if k not in timing}
    assert resumed.team.fingerprint() == whole.team.fingerprint()
    assert resumed.versions == whole.versions == dict.fromkeys(AGENTS, 6)


def test_a_schedule_scales_every_agents_rate_by_the_step_alone(make_team, make_batch, tmp_path):
    def module():
        rates = {"ada": 0.02, "bea": 0.01, "cyd": 0.03}
        return MarlModule(
            make_team(stir=0.05),
            optimizer={agent: partial(AdamW, lr=rate) for agent, rate in rates.items()},
            schedule=partial(cosine, warmup_steps=2),
            update_epochs=2,
            minibatches=2,
        )

    whole = module()
    logged, _ = fit(whole, Batches(make_batch, 6), max_steps=6)
    factors = [cosine(step, 6, warmup_steps=2) for step in range(6)]
    for agent, rate in (("ada", 0.02), ("bea", 0.01), ("cyd", 0.03)):
        assert [step[f"{agent}/lr"] for step in logged] == pytest.approx([rate * factor for factor in factors])
    files = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=4)

    # The end is the run's and not this call's: stopped otherwise than by `max_steps`, as Ctrl-C does.
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 4

    first, _ = fit(module(), Batches(make_batch, 6), files, Stop(), max_steps=6)
    resumed = module()
    second, _ = fit(resumed, Batches(make_batch, 6), max_steps=6, ckpt_path=tmp_path / "step=4.ckpt", weights_only=True)
    assert [step["cyd/lr"] for step in first + second] == [step["cyd/lr"] for step in logged]
    assert resumed.team.fingerprint() == whole.team.fingerprint()


def test_the_rate_of_a_step_is_the_one_that_the_weights_move_by(make_team, make_batch):
    moves = []
    for factor in (1.0, 0.25):
        team = make_team(stir=0.05)
        before = team.adapter_tensors("ada")
        schedule = lambda step, max_steps, factor=factor: factor  # noqa: E731
        module = MarlModule(team, optimizer=partial(SGD, lr=0.1), schedule=schedule, max_grad_norm=None)
        fit(module, Batches(make_batch, 1, agents=("ada",)), max_steps=1)
        moves.append({name: value - before[name] for name, value in team.adapter_tensors("ada").items()})
    for name, move in moves[0].items():
        torch.testing.assert_close(moves[1][name], 0.25 * move, atol=1e-7, rtol=1e-3)
    assert max(move.abs().max() for move in moves[0].values()) > 1e-4


def test_a_schedule_that_ends_refuses_a_run_without_an_end(make_team, make_batch):
    module = MarlModule(make_team(), optimizer=partial(SGD, lr=0.1), schedule=linear)
    with pytest.raises(ValueError, match="`max_steps` is -1"):
        fit(module, Batches(make_batch, 1), max_steps=-1, max_epochs=1)


def test_a_run_changes_every_trained_weight_and_no_frozen_bit(make_team, make_batch):
    team = make_team(stir=0.05)
    hashes = {name: hash_weights(model) for name, model in team.models.items()}
    frozen = {name: value.clone() for name, value in team.models.state_dict().items() if ".lora_" not in name}
    objective = Objective(beta=0.1)
    module = MarlModule(team, optimizer=partial(AdamW, lr=0.01), objective=objective, update_epochs=2, minibatches=2)
    logged, _ = fit(module, Batches(make_batch, 3), max_steps=3)
    assert {name: hash_weights(model) for name, model in team.models.items()} == hashes == team.base_hashes()
    after = team.models.state_dict()
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    for step in logged:
        for agent in AGENTS:
            assert step[f"{agent}/update/weights_changed_share"] > 0.99


def test_a_rate_below_the_weights_spacing_shows_in_the_changed_share(make_team, make_batch):
    module = MarlModule(make_team(stir=0.05), optimizer=partial(AdamW, lr=1e-12, weight_decay=0.0))
    logged, _ = fit(module, Batches(make_batch, 1, agents=("ada",)), max_steps=1)
    assert logged[0]["ada/update/weights_changed_share"] < 0.05
    assert "bea/update/weights_changed_share" not in logged[0]


def test_an_agent_without_tokens_keeps_weights_and_version(make_team, make_batch):
    team = make_team(stir=0.05)
    before = {agent: team.adapter_tensors(agent) for agent in AGENTS}
    module = MarlModule(team, optimizer=partial(AdamW, lr=0.01))
    logged, _ = fit(module, Batches(make_batch, 1, agents=("ada",)), max_steps=1)
    assert module.versions == {"ada": 1, "bea": 0, "cyd": 0}
    for agent in AGENTS:
        after = team.adapter_tensors(agent)
        assert all(torch.equal(after[name], before[agent][name]) for name in after) == (agent != "ada")
    assert "ada/loss" in logged[0]
    assert "bea/loss" not in logged[0]


def test_sampling_difference_compares_trainer_and_engine(make_team, make_batch):
    team = make_team(stir=0.05)
    batches = Batches(make_batch, 1)
    batch = batches.batch(0).tokens["cyd"]
    difference = (team.logprobs("cyd", batch)[0].detach() - batch.sampled_logprobs)[batch.loss_mask]
    logged, _ = fit(MarlModule(team, optimizer=partial(AdamW, lr=0.01)), batches, max_steps=1)
    expected = {
        "sampling_logp_difference/mean": difference.abs().mean(),
        "sampling_logp_difference/max": difference.abs().max(),
        "importance_sampling_ratio/mean": difference.exp().mean(),
        "importance_sampling_ratio/max": difference.exp().max(),
        "importance_sampling_ratio/min": difference.exp().min(),
    }
    for name, value in expected.items():
        assert logged[0][f"cyd/sampling/{name}"] == pytest.approx(value.item(), rel=1e-4)
    assert logged[0]["perf/update_s"] > 0
    assert logged[0]["cyd/entropy"] > 0


@pytest.mark.parametrize(("version", "async_level", "allowed"), [(2, 0, "3 to 3"), (4, 1, "2 to 3"), (1, 1, "2 to 3")])
def test_tokens_of_a_wrong_version_are_refused(make_team, make_batch, version, async_level, allowed):
    objective = Objective(correction=importance_weights)
    module = MarlModule(make_team(), optimizer=partial(SGD, lr=0.1), objective=objective, async_level=async_level)
    module.versions["bea"] = 3
    batch = RolloutBatch([])
    batch.tokens = {"bea": make_batch("bea", version=version)}
    with pytest.raises(StaleRolloutError, match=f"'bea' were sampled under version {version}, .* accepts {allowed}"):
        fit(module, Only(batch), max_steps=1)


def test_a_batch_that_was_not_rolled_out_is_refused(make_team, make_batch):
    module = MarlModule(make_team(), optimizer=partial(SGD, lr=0.1))
    with pytest.raises(ValueError, match="no tokens; `RolloutCallback`"):
        fit(module, Only(RolloutBatch([])), max_steps=1)
    batch = RolloutBatch([])
    batch.tokens = {"eve": make_batch("eve")}
    with pytest.raises(ValueError, match=r"tokens of 'eve'; the team is \['ada', 'bea', 'cyd'\]"):
        fit(module, Only(batch), max_steps=1)


def test_an_update_that_is_not_finite_is_skipped_and_counted_then_raised(make_team, make_batch):
    def batches():
        made = Batches(make_batch, 3).batch
        found = [made(step) for step in range(3)]
        for batch in found:
            for tokens in batch.tokens.values():
                tokens.policy_version = 0
            rows, places = batch.tokens["bea"].loss_mask.nonzero(as_tuple=True)
            batch.tokens["bea"].advantages[rows[0], places[0]] = math.nan
            del batch.tokens["ada"], batch.tokens["cyd"]
        return Only(*found)

    team = make_team(stir=0.05)
    module = MarlModule(team, optimizer=partial(AdamW, lr=0.1), max_skipped=2)
    before = team.fingerprint()
    with pytest.raises(NonFiniteUpdateError, match=r"update of 'bea' at step 2 is not finite .* after 2 skipped"):
        fit(module, batches(), max_steps=3)
    assert team.fingerprint() == before
    assert module.versions["bea"] == 0
    with pytest.raises(NonFiniteUpdateError, match="at step 0"):
        fit(MarlModule(make_team(), optimizer=partial(AdamW, lr=0.1)), batches(), max_steps=3)


def test_clipping_and_accumulation_of_the_trainer_are_refused(make_team, make_batch):
    for key, value, own in (("gradient_clip_val", 0.5, "max_grad_norm"), ("accumulate_grad_batches", 4, "micro_batch")):
        with pytest.raises(ValueError, match=f"`trainer.{key}={value}`.*`{own}"):
            refuse_trainer_arguments({key: value})
        with pytest.raises(MisconfigurationException, match=key):
            fit(MarlModule(make_team(), optimizer=partial(SGD, lr=0.1)), Batches(make_batch, 1), **{key: value})
    refuse_trainer_arguments({"gradient_clip_val": None, "accumulate_grad_batches": 1, "max_steps": 3})


def test_low_precision_weights_are_refused(make_team, make_batch):
    module = MarlModule(make_team(), optimizer=partial(SGD, lr=0.1))
    with pytest.raises(ValueError, match=r"lora_A.*bfloat16.*32-true or bf16-mixed"):
        fit(module, Batches(make_batch, 1), max_steps=1, precision="bf16-true")


def test_constructor_names_what_is_wrong(make_team):
    team, optimizer = make_team(), partial(SGD, lr=0.1)
    with pytest.raises(ValueError, match="`update_epochs` is 0"):
        MarlModule(team, optimizer=optimizer, update_epochs=0)
    with pytest.raises(ValueError, match=r"`async_level` is 1.*`correction`"):
        MarlModule(team, optimizer=optimizer, async_level=1)
    with pytest.raises(ValueError, match=r"names \['ada'\], but the team is \['ada', 'bea', 'cyd'\]"):
        MarlModule(team, optimizer={"ada": optimizer})


def test_each_agent_can_have_its_own_learning_rate(make_team, make_batch):
    rates = {agent: partial(SGD, lr=rate) for agent, rate in zip(AGENTS, (0.1, 0.2, 0.3), strict=True)}
    module = MarlModule(make_team(), optimizer=rates)
    optimizer = module.configure_optimizers()
    assert [optimizer[agent].param_groups[0]["lr"] for agent in AGENTS] == [0.1, 0.2, 0.3]
