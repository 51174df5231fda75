"""Traces of agents as metrics: are plans valid, do tools succeed, and what does an answer cost. No rewards here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics.functional.trace import plan_validity, tool_success
from m1lite.records import Status, Trajectory, TurnKind

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(kw_only=True, slots=True, frozen=True)
class TraceCounts:
    """What happened in one sample, as plain numbers; None where something was not measured.

    Raises:
        ValueError: if a number is negative or not finite, or there are more valid plans than plans or more successful
            calls than calls.

    Example:
        >>> TraceCounts(frames=16, seconds=0.5).frames
        16
    """

    plans: float | None = None
    """Plans, and decisions over the rest of a plan."""
    valid_plans: float | None = None
    """Those that parse and name only tools that the agent has."""
    tool_calls: float | None = None
    """Executed calls."""
    successful_calls: float | None = None
    """Those without an error or a missed deadline."""
    turns: float | None = None
    """Generations of the model."""
    frames: float | None = None
    """Frames that the model read."""
    pixels: float | None = None
    """Height times width of these frames, summed."""
    input_tokens: float | None = None
    """Tokens that the model was given, each counted once."""
    output_tokens: float | None = None
    """Tokens that the model wrote."""
    seconds: float | None = None
    """Wall time."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(
                    f"`{field.name}` is {value}; it must be finite and at least 0, or None if not measured."
                )
        for part, whole in (("valid_plans", "plans"), ("successful_calls", "tool_calls")):
            some, of = getattr(self, part), getattr(self, whole)
            if some is not None and of is not None and some > of:
                raise ValueError(f"`{part}` is {some}, more than the {of} of `{whole}`.")


def count_trace(trajectories: Trajectory | Iterable[Trajectory]) -> TraceCounts:
    """Count what one sample took.

    Args:
        trajectories: of one agent, or of all agents of an episode, which are added.

    Returns:
        All numbers. ``frames`` and ``pixels`` are those of the turns' media; ``input_tokens`` counts every token once,
        as it was appended to the context; ``seconds`` is the wall time of the tool calls, since a trajectory does not
        hold that of generation.

    Example:
        >>> count_trace(Trajectory(agent="ada")).tool_calls
        0
    """
    traces = [trajectories] if isinstance(trajectories, Trajectory) else list(trajectories)
    turns = [turn for trace in traces for turn in trace.turns]
    plans = [turn for turn in turns if turn.kind in (TurnKind.PLAN, TurnKind.COMMUNICATE)]
    results = [result for trace in traces for result in trace.results]
    media = [frames for turn in turns for frames in turn.media]
    return TraceCounts(
        plans=len(plans),
        valid_plans=sum(turn.status is Status.OK for turn in plans),
        tool_calls=len(results),
        successful_calls=sum(result.status is Status.OK for result in results),
        turns=len(turns),
        frames=sum(len(frames.timestamps) for frames in media),
        pixels=sum(len(frames.timestamps) * frames.size[0] * frames.size[1] for frames in media),
        input_tokens=sum(len(turn.prompt_ids) for turn in turns),
        output_tokens=sum(len(turn.reply_ids) for turn in turns),
        seconds=sum(result.seconds for result in results),
    )


class ToolUse(VideoMetric):
    """Share of plans that are valid, and of tool calls that succeed, over all plans and all calls.

    ``update`` takes ``traces``, one :class:`TraceCounts` or :class:`~m1lite.records.Trajectory` per sample; what was
    not measured is left out. ``compute`` gives a dictionary of fractions: ``plan_validity`` and ``tool_success``, each
    over all plans or calls (a sample with many weighs more); without any they are NaN, with a warning. Per sample,
    :meth:`score` gives the two functionals.

    Args:
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: on update, if a trace is neither.

    References:
        As :func:`~m1lite.metrics.functional.plan_validity`.

    Example:
        >>> metric = ToolUse()
        >>> calls = TraceCounts(tool_calls=4, successful_calls=3)
        >>> metric.update([TraceCounts(plans=2, valid_plans=1), TraceCounts(plans=6, valid_plans=5), calls])
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'plan_validity': 0.75, 'tool_success': 0.75}
    """

    parts: Tensor
    wholes: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sums("parts", "wholes", shape=(2,))

    @staticmethod
    def score(traces: Sequence[TraceCounts | Trajectory]) -> dict[str, Tensor]:
        """Return ``plan_validity`` and ``tool_success`` of every sample, float64 ``(N,)``; NaN without any."""
        valid, plans, successful, calls = _table(traces, ("valid_plans", "plans", "successful_calls", "tool_calls")).T
        return {"plan_validity": plan_validity(valid, plans), "tool_success": tool_success(successful, calls)}

    def update(self, traces: Sequence[TraceCounts | Trajectory]) -> None:
        """Add samples."""
        parts = _table(traces, ("valid_plans", "successful_calls")).to(self.parts.device)
        wholes = _table(traces, ("plans", "tool_calls")).to(self.wholes.device)
        known = ~(parts.isnan() | wholes.isnan())
        self.parts += torch.where(known, parts, 0.0).sum(0)
        self.wholes += torch.where(known, wholes, 0.0).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Return ``plan_validity`` and ``tool_success``."""
        return dict(zip(("plan_validity", "tool_success"), self.ratio(self.parts, self.wholes), strict=True))


class Efficiency(VideoMetric):
    """What an answer costs: frames, pixels, tokens, turns, tool calls and seconds, each the mean per sample.

    ``update`` takes ``traces``, one :class:`TraceCounts` or :class:`~m1lite.records.Trajectory` per sample (an episode
    of several agents is one sample: :func:`count_trace` adds them). A number that was not measured is left out of its
    mean. ``compute`` gives a dictionary of means, at least 0 and smaller is better: ``frames``, ``pixels``,
    ``input_tokens``, ``output_tokens``, ``turns``, ``tool_calls``, ``seconds``; NaN, with a warning, where nothing was
    measured. Each is the mean of the per-sample :meth:`score`.

    Args:
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: on update, if a trace is neither.

    References:
        Ours; no paper defines these.

    Example:
        >>> metric = Efficiency()
        >>> numbers = {"pixels": 64, "input_tokens": 9, "output_tokens": 5, "turns": 1, "tool_calls": 0}
        >>> metric.update([TraceCounts(frames=8, seconds=1.0, **numbers), TraceCounts(frames=16, **numbers)])
        >>> {name: value.item() for name, value in metric.compute().items() if name in ("frames", "seconds", "turns")}
        {'frames': 12.0, 'turns': 1.0, 'seconds': 1.0}
    """

    higher_is_better = False
    plot_upper_bound = None  # type: ignore[assignment]

    names = ("frames", "pixels", "input_tokens", "output_tokens", "turns", "tool_calls", "seconds")
    """The keys of ``compute``."""

    totals: Tensor
    counts: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sums("totals", "counts", shape=(len(self.names),))

    @classmethod
    def score(cls, traces: Sequence[TraceCounts | Trajectory]) -> dict[str, Tensor]:
        """Return each number of every sample, float64 ``(N,)``; NaN where it was not measured."""
        return dict(zip(cls.names, _table(traces, cls.names).T, strict=True))

    def update(self, traces: Sequence[TraceCounts | Trajectory]) -> None:
        """Add samples."""
        numbers = _table(traces, self.names).to(self.totals.device)
        self.totals += numbers.nansum(0)
        self.counts += (~numbers.isnan()).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of each number per sample."""
        return dict(zip(self.names, self.ratio(self.totals, self.counts), strict=True))


def _table(traces: Sequence[TraceCounts | Trajectory], names: Sequence[str]) -> Tensor:
    """Numbers of the samples as float64 ``(N, len(names))``, NaN where not measured."""
    rows = []
    for index, trace in enumerate(traces):
        if not isinstance(trace, TraceCounts | Trajectory):
            raise TypeError(f"`traces[{index}]` is a {type(trace).__name__}; give a `TraceCounts` or a `Trajectory`.")
        counts = count_trace(trace) if isinstance(trace, Trajectory) else trace
        numbers = (getattr(counts, name) for name in names)
        rows.append([math.nan if number is None else number for number in numbers])
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(names))
