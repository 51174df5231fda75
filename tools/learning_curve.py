"""Draws the learning curve of finished runs: the cold start's validation answers, then the team's reward during MARL.

Run it as ``python tools/learning_curve.py outputs/<date>/<time> ... --output docs/learning_curve.png``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

mpl.use("Agg")
import matplotlib.pyplot as plt

WINDOW = 9
"""Steps that a point of the smoothed curve averages."""


def scalars(run: Path, tag: str) -> tuple[list[int], list[float]]:
    """Read one scalar of a run's TensorBoard events, in order of step."""
    events = []
    for file in sorted((run / "tensorboard").rglob("events.out.tfevents.*")):
        reader = EventAccumulator(str(file))
        reader.Reload()
        if tag in reader.Tags()["scalars"]:
            events += [(event.step, event.value) for event in reader.Scalars(tag)]
    events.sort()
    return [step for step, _ in events], [value for _, value in events]


def smooth(values: list[float]) -> np.ndarray:
    """Average over a centred window that shrinks at the ends."""
    half = WINDOW // 2
    return np.array([np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def draw(runs: list[Path], output: Path) -> None:
    """Draw both stages side by side and write the picture."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    for index, run in enumerate(runs):
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        colour, label = f"C{index}", f"seed {metrics['seed']}"
        for base, curve in metrics["cold_start"].items():
            seconds = [point["seconds"] for point in curve]
            exact = [point["sft/val_exact"] for point in curve]
            style = "-" if base == next(iter(metrics["cold_start"])) else "--"
            left.plot(seconds, exact, style, color=colour, label=f"{label}, {base}")
        steps, rewards = scalars(run, "team/reward")
        right.plot(steps, rewards, color=colour, alpha=0.2, linewidth=0.8)
        right.plot(steps, smooth(rewards), color=colour, label=label)
        blind = np.mean([entry["score"] for entry in metrics["blind"].values()])
        right.axhline(blind, color=colour, linestyle=":", linewidth=0.8)
    left.set(title="Cold start", xlabel="seconds", ylabel="drills answered wholly right", ylim=(0, 1))
    right.set(
        title="MARL with agent dropout (dotted: best blind)", xlabel="step", ylabel="team reward, 2m - 1", ylim=(-1, 1)
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--output", type=Path, required=True, help="the picture, a PNG file")
    arguments = parser.parse_args()
    draw(arguments.runs, arguments.output)


if __name__ == "__main__":
    main()
