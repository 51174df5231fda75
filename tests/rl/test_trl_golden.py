"""Losses and gradients against what TRL 1.16.0 gave for the same drawn tensors; ``trl_parity.py`` froze it."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.parity_cases import METHODS, cases, draw, run_ours

STORED = json.loads((Path(__file__).parents[1] / "golden_cases" / "trl_losses.json").read_text("utf-8"))


@pytest.mark.parametrize("seed", list(STORED["seeds"]))
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradient_are_those_of_trl(method, seed):
    drawn, rows = draw(int(seed)), STORED["seeds"][seed]
    found = [case for case in cases(frozen=True) if case.method == method]
    assert len(found) in (30, 60)
    for case in found:
        loss, gradient = run_ours(case, drawn)
        ramp = torch.arange(1, gradient.numel() + 1, dtype=gradient.dtype)
        ours = [loss.item(), gradient.norm().item(), (gradient.flatten() @ ramp).item()]
        assert ours == pytest.approx(rows[case.name], abs=1e-6, rel=1e-6), case.name
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_every_switch_of_a_setting_binds_in_the_drawn_tensors():
    rows = STORED["seeds"]["0"]
    for one, other in (
        ("grpo/token/off/off", "grpo/sequence/off/off"),
        ("dapo/token/off/off", "dapo/token/off/off/two_sided"),
        ("dapo/sequence/off/off", "bnpo/sequence/off/off"),
        ("bnpo/token/token_truncate/off", "bnpo/token/token_mask/off"),
        ("sapo/token/sequence_truncate/off", "sapo/token/sequence_mask/off"),
        ("cispo/token/off/plain", "cispo/token/off/weighted"),
        ("vespo/token/off/off", "vespo/token/token_truncate/off"),
        ("luspo/sequence/off/off", "luspo/sequence/off/plain"),
        ("dr_grpo/token/off/off", "grpo/token/off/off"),
    ):
        assert rows[one][1] != pytest.approx(rows[other][1], rel=1e-3), (one, other)
