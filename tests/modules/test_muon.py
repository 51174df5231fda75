"""One optimiser of two: the same steps as torch's own Muon and AdamW taken apart, with schedules and checkpoints."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from m1lite.modules.muon import MuonAdamW
from m1lite.modules.tiny import tiny_base


class Net(nn.Module):
    """Embedding, hidden matrix, vector and head: every kind of weight that a small transformer has."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = nn.Embedding(11, 8)
        self.hidden = nn.Linear(8, 6)
        self.norm = nn.LayerNorm(6)
        self.lm_head = nn.Linear(6, 11, bias=False)

    def forward(self, ids):
        return self.lm_head(self.norm(self.hidden(self.embed_tokens(ids)).relu()))


BATCHES = torch.randint(0, 11, (8, 2, 5), generator=torch.Generator().manual_seed(1))


def backward(net, batch):
    net.zero_grad()
    loss = nn.functional.cross_entropy(net(batch[0]), batch[1])
    loss.backward()
    return loss.detach()


def weights(net):
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def halves(net, lr, adamw_lr, decay):
    """The two optimisers by hand."""
    rest = [value for name, value in net.named_parameters() if name != "hidden.weight"]
    return (
        Muon([net.hidden.weight], lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        AdamW(rest, lr=adamw_lr, betas=(0.9, 0.98), weight_decay=decay),
    )


def test_steps_are_those_of_both_optimisers():
    one, two = Net(), Net()
    whole = MuonAdamW(one.named_parameters(), lr=0.02, adamw_lr=0.005, weight_decay=0.1)
    apart = halves(two, 0.02, 0.005, 0.1)
    for batch in BATCHES:
        assert torch.equal(backward(one, batch), backward(two, batch))
        whole.step()
        for optimizer in apart:
            optimizer.step()
    start, end, expected = weights(Net()), weights(one), weights(two)
    assert all(torch.equal(end[name], expected[name]) for name in end)
    assert not any(torch.equal(end[name], start[name]) for name in end), "every weight is trained"


def test_a_schedule_reaches_both():
    one, two = Net(), Net()
    whole = MuonAdamW(one.named_parameters(), lr=0.02, adamw_lr=0.005)
    schedule = LambdaLR(whole, lambda step: 1 / (step + 1))
    assert [group["lr"] for group in whole.param_groups] == [0.02, 0.005]
    for step, batch in enumerate(BATCHES):
        backward(one, batch)
        whole.step()
        schedule.step()
        backward(two, batch)
        if step == 0:
            apart = halves(two, 0.02, 0.005, 0.0)
        for optimizer, peak in zip(apart, (0.02, 0.005), strict=True):
            optimizer.param_groups[0]["lr"] = peak / (step + 1)
            optimizer.step()
    end, expected = weights(one), weights(two)
    assert all(torch.equal(end[name], expected[name]) for name in end)
    assert [group["lr"] for group in whole.param_groups] == [0.02 / 9, 0.005 / 9]


def test_a_checkpoint_continues_with_the_same_bits(tmp_path):
    straight = Net()
    optimizer = MuonAdamW(straight.named_parameters())
    for step, batch in enumerate(BATCHES):
        if step == 4:
            torch.save({"net": straight.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "half.pt")
        backward(straight, batch)
        optimizer.step()
    half = torch.load(tmp_path / "half.pt", weights_only=True)
    resumed = Net()
    resumed.load_state_dict(half["net"])
    again = MuonAdamW(resumed.named_parameters(), lr=0.5, adamw_lr=0.5)
    again.load_state_dict(half["optimizer"])
    assert [group["lr"] for group in again.param_groups] == [1e-2, 4e-3]
    schedule = LambdaLR(again, lambda _: 1.0)
    for batch in BATCHES[4:]:
        backward(resumed, batch)
        again.step()
        schedule.step()
    end, expected = weights(resumed), weights(straight)
    assert all(torch.equal(end[name], expected[name]) for name in end)
    again.param_groups[0]["lr"] = 0.25
    assert again.parts[0].param_groups[0]["lr"] == 0.25, "the groups are the parts' own after loading, too"


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2"])
def test_a_transformers_matrices_are_muons_and_the_rest_is_adamws(architecture):
    model, _ = tiny_base(architecture, hidden_size=32, num_layers=1)
    muon, adamw = MuonAdamW(model.named_parameters()).parts
    names = {id(value): name for name, value in model.named_parameters()}
    matrices = {names[id(value)] for value in muon.param_groups[0]["params"]}
    rest = {names[id(value)] for value in adamw.param_groups[0]["params"]}
    layer = "model.layers.0."
    assert matrices == {
        *(f"{layer}self_attn.{part}_proj.weight" for part in "qkvo"),
        *(f"{layer}mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= rest
    assert matrices | rest == set(names.values())


def test_one_kind_of_weight_is_enough():
    vector = nn.Parameter(torch.ones(3))
    matrix = nn.Parameter(torch.ones(3, 3))
    assert [type(part) for part in MuonAdamW([("bias", vector)]).parts] == [AdamW]
    assert [type(part) for part in MuonAdamW([("weight", matrix)]).parts] == [Muon]


def test_the_closure_runs_once_before_both_with_gradients():
    net = Net()
    optimizer = MuonAdamW(net.named_parameters())
    before, losses = copy.deepcopy(weights(net)), []

    def closure():
        assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())
        losses.append(backward(net, BATCHES[0]))
        return losses[-1]

    with torch.no_grad():
        assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1
    assert not torch.equal(net.hidden.weight, before["hidden.weight"])
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_convolution_has_the_rate_of_matrices():
    torch.manual_seed(0)
    net, twin = (nn.ModuleDict({"patch_embed": nn.Conv3d(1, 2, 2)}) for _ in range(2))
    twin.load_state_dict(net.state_dict())
    whole = MuonAdamW(net.named_parameters(), lr=0.02, adamw_lr=0.005)
    apart = AdamW([{"params": [twin["patch_embed"].weight], "lr": 0.02}, {"params": [twin["patch_embed"].bias]}],
                  lr=0.005, betas=(0.9, 0.98), weight_decay=0.0)  # fmt: skip
    for one, optimizer in ((net, whole), (twin, apart)):
        one["patch_embed"](torch.ones(1, 1, 2, 2, 2)).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in net.state_dict().items())
