from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.modules.schedules import constant, cosine, linear

STEPS = st.integers(1, 60)


def torchs(kind, max_steps, warmup):
    """The rates of torch's own schedulers, chained."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    rest = max_steps - warmup
    fall = {
        "linear": partial(torch.optim.lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.25, total_iters=rest),
        "cosine": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=rest, eta_min=0.25),
    }[kind](optimizer)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[warmup])
    rates = []
    for _ in range(max_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize(("kind", "schedule"), [("linear", linear), ("cosine", cosine)])
def test_rates_are_those_of_torchs_schedulers(kind, schedule, warmup):
    found = [schedule(step, 11, warmup_steps=warmup, floor=0.25) for step in range(11)]
    assert found == pytest.approx(torchs(kind, 11, warmup))


@given(max_steps=STEPS, warmup=st.integers(0, 59), floor=st.floats(0, 1))
def test_a_rate_rises_then_falls_to_its_floor(max_steps, warmup, floor):
    warmup = min(warmup, max_steps - 1)
    for schedule in (linear, cosine):
        rates = [schedule(step, max_steps, warmup_steps=warmup, floor=floor) for step in range(max_steps + 3)]
        assert rates[:warmup] == [(step + 1) / (warmup + 1) for step in range(warmup)]
        assert rates[warmup] == pytest.approx(1.0)
        assert all(one >= other - 1e-12 for one, other in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
        assert rates[max_steps:] == pytest.approx([floor] * 3)


def test_a_constant_rate_needs_no_end():
    assert [constant(step, -1) for step in (0, 7, 10**9)] == [1.0] * 3


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"`max_steps` is -1 with `warmup_steps` 0; .* or take `constant`"):
        cosine(0, -1)
    with pytest.raises(ValueError, match="`max_steps` is 4 with `warmup_steps` 4"):
        linear(0, 4, warmup_steps=4)
    with pytest.raises(ValueError, match=r"`floor` is 1.5; .* in \[0, 1\]"):
        linear(0, 4, floor=1.5)
    with pytest.raises(ValueError, match="`warmup_steps` is -1"):
        constant(0, 4, warmup_steps=-1)
