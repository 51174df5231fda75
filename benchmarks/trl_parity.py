"""Are losses and gradients those of TRL 1.16.0? Every setting of parity_cases.py, on drawn tensors.

    uv run --group oracle python -m benchmarks.trl_parity --seed 0

TRL's loss is called with a stub in place of its trainer, which returns the drawn log-probs; nothing of a model is
needed. ``--freeze FILE`` writes TRL's results of the stored settings, for tests on machines without TRL.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.parity_cases import (
    BETA,
    CISPO_HIGH,
    CLIP_HIGH,
    CLIP_LOW,
    IS_HIGH,
    IS_LOW,
    MAX_LENGTH,
    METHODS,
    MINIBATCHES,
    RATIO_CAP,
    THRESHOLD,
    Case,
    Drawn,
    cases,
    draw,
    run_ours,
)

TARGET = 1e-6
FROZEN_SEEDS = (0, 1)


def oracle() -> Any:
    """Import TRL's trainer.

    Raises:
        SystemExit: if TRL 1.16.0 is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of vLLM versions, which play no part
            import trl
            from trl import GRPOTrainer
    except ImportError as error:
        raise SystemExit(f"{error}; install the oracle: uv sync --group oracle") from error
    if trl.__version__ != "1.16.0":
        raise SystemExit(f"TRL is {trl.__version__}; the definitions compared with are those of 1.16.0.")
    return GRPOTrainer


def engine_weights(case: Case, drawn: Drawn) -> Tensor:
    """Form the weights between trainer and engine, which TRL's loss takes ready-made, row by row."""
    level, outside = case.correction.split("_")
    rows = []
    for old, sampled, mask in zip(drawn.old, drawn.sampled, drawn.mask, strict=True):
        differences = [
            float(a - b) if keep and not b.isnan() else 0.0 for a, b, keep in zip(old, sampled, mask, strict=True)
        ]
        rows.append(differences if level == "token" else [sum(differences)])
    weights = torch.tensor(rows, dtype=torch.float64).exp()
    if outside == "truncate":
        weights = weights.clamp(IS_LOW, IS_HIGH)
    else:
        weights = weights * ((weights >= IS_LOW) & (weights <= IS_HIGH))
    return weights.to(drawn.old.dtype)


def run_trl(trainer: Any, case: Case, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """Return TRL's loss and its gradient ``(B, T)`` towards the log-probs."""
    corrected = case.correction != "off"
    stub = SimpleNamespace(
        loss_type=case.method,
        importance_sampling_level=case.level,
        beta=0.0 if case.kl == "off" else BETA,
        epsilon_low=CLIP_LOW,
        epsilon_high=CISPO_HIGH if case.method == "cispo" else CLIP_HIGH,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=THRESHOLD if case.filtered else None,
        use_vllm=corrected,
        vllm_importance_sampling_correction=corrected,
        aux_loss_enabled=False,
        max_completion_length=MAX_LENGTH,
        current_gradient_accumulation_steps=1,
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        args=SimpleNamespace(
            use_bias_correction_kl=case.kl == "weighted",
            delta=RATIO_CAP if case.two_sided else None,
            steps_per_generation=MINIBATCHES,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            vespo_k_pos=2.0,
            vespo_lambda_pos=3.0,
            vespo_k_neg=3.0,
            vespo_lambda_neg=2.0,
        ),
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (drawn.logprobs, torch.zeros_like(drawn.old), None),
        get_off_policy_mask=trainer.get_off_policy_mask,
        get_gamma_weights=trainer.get_gamma_weights,
    )
    inputs = {
        "prompt_ids": torch.zeros(len(drawn.old), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(drawn.old), 1, dtype=torch.long),
        "completion_ids": torch.zeros(drawn.old.shape, dtype=torch.long),
        "completion_mask": drawn.completion.to(drawn.old.dtype),
        "tool_mask": drawn.written.to(drawn.old.dtype),
        "advantages": drawn.advantages if case.by_token else drawn.row_advantages(),
        "old_per_token_logps": drawn.old,
        "ref_per_token_logps": drawn.reference,
        "sampling_per_token_logps": drawn.sampled,
        "num_items_in_batch": drawn.mask.sum() + drawn.other.sum(),
    }
    if corrected:
        inputs["importance_sampling_ratio"] = engine_weights(case, drawn)
    loss = trainer._compute_loss(stub, None, inputs)
    (gradient,) = torch.autograd.grad(loss, drawn.logprobs)
    return loss.detach(), gradient


def compare(trainer: Any, seed: int, dtype: torch.dtype) -> dict[str, tuple[int, float, float]]:
    """Return per method the number of settings and the worst error of loss and gradient: absolute, above 1 relative."""
    drawn = draw(seed, dtype=dtype)
    worst = dict.fromkeys(METHODS, (0, 0.0, 0.0))
    for case in cases():
        loss, gradient = run_ours(case, drawn)
        expected, slopes = run_trl(trainer, case, drawn)
        number, of_loss, of_gradient = worst[case.method]
        errors = [
            ((found - right).abs() / right.abs().clamp(min=1)).max().item()
            for found, right in ((loss, expected), (gradient, slopes))
        ]
        worst[case.method] = (number + 1, max(of_loss, errors[0]), max(of_gradient, errors[1]))
    return worst


def report(results: dict[str, dict[str, tuple[int, float, float]]]) -> list[str]:
    """Write a table per dtype, and one line per figure."""
    lines, figures = [], []
    for dtype, worst in results.items():
        lines += [f"{dtype:<10}settings  worst loss error  worst gradient error", "-" * 58]
        lines += [f"{name:<10}{number:>8}{loss:>18.1e}{slope:>22.1e}" for name, (number, loss, slope) in worst.items()]
        lines.append("")
        for what, index in (("loss", 1), ("gradient", 2)):
            value = max(row[index] for row in worst.values())
            figures.append(f"figure trl_parity_{what}_{dtype} {value:.1e} error target <= {TARGET:g}")
    return [*lines, *figures]


def freeze(trainer: Any, path: Path) -> None:
    """Write TRL's loss, the norm of its gradient, and its projection on (1, 2, ..., B T), for the stored settings."""
    stored: dict[str, dict[str, list[float]]] = {}
    for seed in FROZEN_SEEDS:
        drawn = draw(seed)
        rows = {}
        for case in cases(frozen=True):
            loss, gradient = run_trl(trainer, case, drawn)
            ramp = torch.arange(1, gradient.numel() + 1, dtype=gradient.dtype)
            rows[case.name] = [loss.item(), gradient.norm().item(), (gradient.flatten() @ ramp).item()]
        stored[str(seed)] = rows
    text = json.dumps({"source": "trl==1.16.0, GRPOTrainer._compute_loss, float64", "seeds": stored})
    path.write_text(text.replace('], "', '],\n"') + "\n", encoding="utf-8")


def main() -> None:
    """Compare, print, and freeze where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--freeze", type=Path, help="write TRL's results of the stored settings to this file")
    arguments = parser.parse_args()
    trainer = oracle()
    if arguments.freeze is not None:
        freeze(trainer, arguments.freeze)
    dtypes = {"float64": torch.float64, "float32": torch.float32}
    results = {name: compare(trainer, arguments.seed, dtype) for name, dtype in dtypes.items()}
    print("\n".join(report(results)))


if __name__ == "__main__":
    main()
