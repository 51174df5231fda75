"""Every method in conf/rl composes, instantiates, and gives a loss with a gradient on drawn tensors."""

import pytest
import torch
from hydra.utils import instantiate

from benchmarks.parity_cases import draw
from m1lite.configuration import check, compose, conf_dir
from m1lite.modules.marl import MarlModule
from m1lite.modules.objective import Objective
from m1lite.records import TokenBatch
from m1lite.rl.advantages import per_agent
from m1lite.rl.divergences import kl_k2
from m1lite.rl.losses import clipped_surrogate
from m1lite.rl.reductions import sequence_mean, token_mean

METHODS = sorted(path.stem for path in (conf_dir() / "rl").glob("*.yaml"))
PER_TURN_OR_TERM = {"turns", "gdpo"}


def composed(method, *overrides):
    return compose([f"rl={method}", "output_dir=/tmp/unused", *overrides])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_a_yaml_file(method):
    config = composed(method)
    check(config)
    parts = {name: instantiate(node) for name, node in config.rl.items()}
    group = torch.arange(6) // 3
    rewards = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    table = rewards[..., None].expand(6, 2, 3) if method in PER_TURN_OR_TERM else rewards
    credited = parts["credit"](table, torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0]))
    advantages = per_agent(credited, group, parts["advantage"])
    assert advantages.shape == (table.shape if method == "turns" else (6, 2))
    assert advantages.isfinite().all()

    objective = instantiate(config.marl, _recursive_=True).keywords["objective"]
    assert isinstance(objective, Objective)
    drawn = draw(0)
    batch = TokenBatch(
        agent="ada",
        input_ids=drawn.completion.long(),
        attention_mask=drawn.completion,
        loss_mask=drawn.mask,
        sampled_logprobs=drawn.sampled.nan_to_num(-1.0),
        advantages=drawn.advantages,
        temperature=1.0,
        policy_version=0,
    )
    total, _ = objective(batch, drawn.logprobs, drawn.old, drawn.reference, -drawn.logprobs)
    (gradient,) = torch.autograd.grad(total / objective.count(drawn.mask), drawn.logprobs)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert (gradient[~drawn.mask] == 0).all()


def test_the_default_is_what_it_says():
    objective = instantiate(composed("default").rl.objective)
    assert (objective.loss, objective.reduction, objective.beta) == (clipped_surrogate, token_mean, 0.02)
    assert instantiate(composed("grpo").rl.objective).reduction is sequence_mean
    assert compose(["output_dir=/tmp/unused"]).rl == composed("default").rl


def test_parts_of_a_method_are_single_overrides():
    config = composed("dapo", "rl.objective.beta=0.04", "+rl.objective.entropy_weight=0.01", "marl.minibatches=4")
    module = instantiate(config.marl)
    assert module.func is MarlModule
    assert module.keywords["minibatches"] == 4
    assert (module.keywords["objective"].beta, module.keywords["objective"].entropy_weight) == (0.04, 0.01)
    falling = composed("grpo", "marl.schedule._target_=m1lite.modules.schedules.cosine", "marl.schedule.warmup_steps=2")
    schedule = instantiate(falling.marl).keywords["schedule"]
    assert [round(schedule(step, 4), 3) for step in range(5)] == [0.333, 0.667, 1.0, 0.5, 0.0]
    kind = "+rl.penalty._target_=m1lite.callbacks.penalty.KlInReward"
    charged = composed("turns", kind, "+rl.penalty.beta=0.02", "+rl.penalty.by_turn=true", "rl.objective.beta=0")
    assert instantiate(charged.rl.penalty).by_turn
    changed = composed("grpo", "+rl.objective.kl={_target_: hydra.utils.get_method, path: m1lite.rl.divergences.kl_k2}")
    assert instantiate(changed.rl.objective).kl is kl_k2
