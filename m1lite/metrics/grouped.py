"""Any metric per group of samples (duration, category, level): the value of each, of all, and the mean over groups."""

from __future__ import annotations

import json
from inspect import Parameter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors
from typing_extensions import override

from m1lite.metrics._base import VideoMetric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class GroupedMetric(VideoMetric):
    """A metric on all samples (micro), on the samples of each group, and averaged over groups (macro).

    ``update`` takes what the metric takes, and after it the label of every sample: N strings, enums or whole numbers
    (a tensor too), by the keyword that ``by`` names or as the last positional argument. Arguments that are tensors or
    lists are split along their first dimension; anything else goes to every group as it is. Keywords that the metric
    does not know are dropped, so that groupings by different labels can share a
    :class:`~torchmetrics.MetricCollection`.

    ``compute`` gives a dictionary. For every key ``k`` of the metric (its class name in lower case where it gives one
    tensor): ``k``, the value on all samples; ``k/macro``, the unweighted mean over the groups whose value is not NaN;
    and ``k/<by>=<label>`` for each group, in the order of the labels. ``forward`` gives the same of the batch alone.
    Groups need not be known beforehand, nor be the same on all processes. Range and direction are those of the metric.

    Args:
        metric: the metric; it is copied, empty, for all samples and for each group. Its own settings say whether and
            how processes are brought together.
        by: what the labels are, such as ``"duration"``: the keyword of ``update`` and part of the keys.

    Raises:
        ValueError: if ``by`` is no name or one of the metric's arguments, or the metric syncs on every step (the groups
            of a batch differ between processes); on update if there is not one label, or one row of an argument, per
            sample; on merging with anything but the same grouping.
        TypeError: on update without labels.

    Example:
        >>> from m1lite.metrics import TemporalIoU
        >>> metric = GroupedMetric(TemporalIoU(thresholds=[]), by="length")
        >>> target = torch.tensor([[0.0, 5.0], [0.0, 2.0], [4.0, 6.0]])
        >>> metric.update([[0.0, 4.0], None, [4.0, 6.0]], target, length=["long", "short", "short"])
        >>> {name: round(value.item(), 2) for name, value in metric.compute().items()}
        {'miou': 0.6, 'miou/macro': 0.65, 'miou/length=long': 0.8, 'miou/length=short': 0.5}
    """

    def __init__(self, metric: Metric, *, by: str) -> None:
        super().__init__()
        parameters = metric._update_signature.parameters
        if not by.isidentifier() or by in parameters:
            raise ValueError(
                f"`by` is {by!r}; it must be a name such as 'duration', and none of the arguments {[*parameters]} of "
                f"`{type(metric).__name__}`."
            )
        if metric.dist_sync_on_step:
            raise ValueError(
                f"`{type(metric).__name__}` has dist_sync_on_step=True; groups of a batch differ between processes, "
                "so leave it False."
            )
        self.by = by
        positional = Parameter.POSITIONAL_OR_KEYWORD
        self._names = [name for name, parameter in parameters.items() if parameter.kind is positional]
        self._empty = metric.clone()
        self._empty.reset()
        self._all = self._empty.clone()
        self._groups = nn.ModuleList()
        self._labels: list[str] = []  # of the groups; a ModuleDict would forbid dots

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """Direction of the metric."""
        return self._all.higher_is_better

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add samples: the metric's arguments, then the labels."""
        arguments, rows = self._split(args, kwargs)
        self._all.update(**arguments)
        for label, chosen in rows.items():
            self._group(label).update(**_take(arguments, chosen))

    @override
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Add samples and return the values of these samples alone."""
        arguments, rows = self._split(args, kwargs)
        everything = self._all(**arguments)
        groups = {label: self._group(label)(**_take(arguments, rows[label])) for label in sorted(rows)}
        self._computed = None
        self._update_count += 1
        value = self._joined(everything, groups)
        self._forward_cache = value  # type: ignore[assignment]  # where Lightning finds the batch's value
        return value

    def compute(self) -> dict[str, Tensor]:
        """Return the values of all samples, of the groups, and their mean."""
        parts = {}
        for label in self._labels_of_all_processes():
            # A process without the group takes part in bringing its states together, with an empty metric.
            parts[label] = self._group(label) if label in self._labels else self._blank()
        for metric in (self._all, *parts.values()):
            metric._computed = None  # processes gather in turn: one that kept a value from before would not take part
        return self._joined(self._all.compute(), {label: part.compute() for label, part in parts.items()})

    @override
    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add another grouping's samples to this one's."""
        if not isinstance(incoming_state, GroupedMetric) or incoming_state.by != self.by:
            found = f"by={incoming_state.by!r}" if isinstance(incoming_state, GroupedMetric) else type(incoming_state)
            raise ValueError(f"A `GroupedMetric` with by={self.by!r} merges with its like only; got {found}.")
        _merge(self._all, incoming_state._all)
        for label, group in zip(incoming_state._labels, incoming_state._groups, strict=True):
            _merge(self._group(label), group)
        self._computed = None
        self._update_count += incoming_state._update_count

    @override
    def reset(self) -> None:
        """Forget all samples and groups."""
        super().reset()
        self._all.reset()
        self._groups, self._labels = nn.ModuleList(), []

    @override
    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the values (needs matplotlib)."""
        return self._all._plot(self.compute() if val is None else val, ax)

    def _split(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[int]]]:
        """Name the metric's arguments, check their lengths, and give the rows of each label."""
        names = [*self._names, self.by]
        if len(args) > len(names):
            raise TypeError(f"`update` takes {names}; got {len(args)} positional arguments.")
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        labels = arguments.pop(self.by, None)
        if labels is None:
            raise TypeError(f"`update` needs `{self.by}`, one label per sample, after the arguments {self._names}.")
        labels = labels.tolist() if isinstance(labels, Tensor) else list(labels)
        arguments = self._all._filter_kwargs(**arguments)
        for name, value in arguments.items():
            if _has_rows(value) and len(value) != len(labels):
                raise ValueError(f"`{name}` holds {len(value)} samples and `{self.by}` {len(labels)} labels.")
        rows: dict[str, list[int]] = {}
        for row, label in enumerate(labels):
            rows.setdefault(str(label), []).append(row)
        return arguments, rows

    def _blank(self) -> Metric:
        blank = self._empty.clone()
        blank._update_count = 1  # it computes with the other processes' samples; torchmetrics would warn
        return blank

    def _group(self, label: str) -> Any:
        """Return the metric of a group; a new one for a new label."""
        if label not in self._labels:
            self._labels.append(label)
            self._groups.append(self._empty.clone())
        return self._groups[self._labels.index(label)]

    def _labels_of_all_processes(self) -> list[str]:
        """Return the labels in one order for all processes, since each group's states are then gathered in turn."""
        labels = set(self._labels)
        available = self._all.distributed_available_fn
        if self._all.sync_on_compute and available is not None and available():
            written = torch.tensor(list(json.dumps(self._labels).encode()), dtype=torch.uint8, device=self._all.device)
            gather = self._all.dist_sync_fn or gather_all_tensors
            for text in gather(written, self._all.process_group):
                labels.update(json.loads(bytes(text.tolist())))
        return sorted(labels)

    def _joined(self, everything: Any, groups: dict[str, Any]) -> dict[str, Tensor]:
        """Write micro, macro and the groups' values as one dictionary."""
        micro, parts = self._named(everything), {label: self._named(value) for label, value in groups.items()}
        macro = {f"{key}/macro": _mean((part[key] for part in parts.values()), like=micro[key]) for key in micro}
        each = {f"{key}/{self.by}={label}": value for label, part in parts.items() for key, value in part.items()}
        return {**micro, **macro, **each}

    def _named(self, value: Any) -> dict[str, Tensor]:
        return value if isinstance(value, dict) else {type(self._all).__name__.lower(): value}


def _merge(metric: Any, incoming: Any) -> None:
    """Merge two metrics of any class; torchmetrics 1.9 keeps the old value, and doesn't count what came in."""
    count = metric._update_count + incoming._update_count
    metric.merge_state(incoming)
    metric._computed, metric._update_count = None, count


def _has_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.ndim > 0)


def _take(arguments: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """Keep some rows of every argument that has rows."""
    taken: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, Tensor) and value.ndim > 0:
            taken[name] = value[torch.tensor(rows, device=value.device)]
        else:
            taken[name] = [value[row] for row in rows] if _has_rows(value) else value
    return taken


def _mean(values: Iterable[Tensor], *, like: Tensor) -> Tensor:
    """Mean over the values that are not NaN; NaN where there are none."""
    present = [value.double() for value in values]
    return torch.stack(present).nanmean(0) if present else torch.full_like(like, float("nan"), dtype=torch.float64)
