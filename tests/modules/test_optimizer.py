import copy

import pytest
import torch
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR

from m1lite.modules.optimizer import TeamOptimizer, changed_share


def two_agents(seed):
    draw = torch.Generator().manual_seed(seed)
    weights = {name: torch.nn.Parameter(torch.randn(3, generator=draw)) for name in ("ada", "bea")}
    return weights, TeamOptimizer({name: AdamW([weight], lr=0.1) for name, weight in weights.items()})


def train(weights, optimizer, agents):
    for agent in agents:
        weights[agent].grad = weights[agent].detach() * 2 + 1
        optimizer[agent].step()
        optimizer[agent].zero_grad()
    optimizer.step()


def test_its_own_step_counts_and_changes_nothing():
    weights, optimizer = two_agents(0)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    for weight in weights.values():
        weight.grad = torch.ones(3)
    assert optimizer.step(lambda: "ran") == "ran"
    assert optimizer.ticks == 1
    assert all(torch.equal(weights[name], before[name]) for name in weights)


def test_states_of_all_agents_are_restored_by_name():
    weights, optimizer = two_agents(0)
    train(weights, optimizer, ["ada", "bea"])
    train(weights, optimizer, ["ada"])
    other_weights, other = two_agents(1)
    with torch.no_grad():
        for name, weight in weights.items():
            other_weights[name].copy_(weight)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as after a file; AdamW would share the tensors
    assert other.ticks == 2
    for agent in ("ada", "bea"):
        left, right = (opt[agent].state_dict()["state"][0] for opt in (optimizer, other))
        assert left["step"] == right["step"] == (2 if agent == "ada" else 1)
        assert torch.equal(left["exp_avg"], right["exp_avg"])
    train(weights, optimizer, ["bea", "ada"])
    train(other_weights, other, ["bea", "ada"])
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_a_learning_rate_set_outside_reaches_the_agents_also_after_loading():
    weights, optimizer = two_agents(0)
    optimizer.load_state_dict(optimizer.state_dict())
    LambdaLR(optimizer, lambda _: 0.5)
    assert [group["lr"] for name in weights for group in optimizer[name].param_groups] == [0.05, 0.05]


def test_other_agents_are_refused():
    _, optimizer = two_agents(0)
    other = TeamOptimizer({"cyd": SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)})
    with pytest.raises(ValueError, match=r"optimisers of \['ada', 'bea'\], this team of \['cyd'\]"):
        other.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="`optimizers` is empty"):
        TeamOptimizer({})


def test_changed_share_counts_stored_values():
    before = [torch.zeros(2, 3), torch.ones(4)]
    after = [torch.tensor([[0.0, 1e-30, 0.0], [2.0, 0.0, -0.0]]), torch.ones(4)]
    assert changed_share(before, after) == 0.2
    assert changed_share([], []) == 0.0
    with pytest.raises(ValueError, match=r"`before` has shapes \[\(2, 3\), \(4,\)\], `after` \[\(2, 3\)\]"):
        changed_share(before, after[:1])


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.float32, 0.99, 1.0), (torch.bfloat16, 0.0, 0.02)])
def test_bfloat16_weights_hardly_move_at_a_small_learning_rate(dtype, low, high):
    weight = torch.nn.Parameter((0.02 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))).to(dtype))
    before = weight.detach().clone()
    optimizer = AdamW([weight], lr=1e-7, weight_decay=0.0)
    for _ in range(20):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert low <= changed_share([before], [weight]) <= high
