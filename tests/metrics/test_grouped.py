"""Grouping against a loop that keeps a list per group, and what it refuses."""

import math
from collections import defaultdict
from enum import StrEnum

import pytest
import torch
from torchmetrics import MeanSquaredError, MetricCollection

from m1lite.metrics import GroupedMetric, MultipleChoiceAccuracy, TemporalIoU


def values(found):
    return {name: value.item() for name, value in found.items()}


def iou(span, true):
    inter = max(0.0, min(span[1], true[1]) - max(span[0], true[0]))
    return inter / (max(span[1], true[1]) - min(span[0], true[0]))


def mean(scores):
    return sum(scores) / len(scores)


def draw(count, seed):
    generator = torch.Generator().manual_seed(seed)
    spans, true = ((20 * torch.rand(count, 2, generator=generator)).sort(-1).values for _ in range(2))
    labels = [["short", "medium", "a.b/c"][index] for index in torch.randint(0, 3, (count,), generator=generator)]
    return spans, true, labels


def test_equals_a_list_per_group():
    metric, lists = GroupedMetric(TemporalIoU(), by="length"), defaultdict(list)
    for seed in range(4):
        spans, true, labels = draw(9, seed)
        metric.update(spans, true, length=labels)
        for span, target, label in zip(spans.tolist(), true.tolist(), labels, strict=True):
            lists[label].append(iou(span, target))
    found = values(metric.compute())
    assert found["miou"] == pytest.approx(mean([score for scores in lists.values() for score in scores]))
    assert found["miou/macro"] == pytest.approx(mean([mean(scores) for scores in lists.values()]))
    for label, scores in lists.items():
        assert found[f"miou/length={label}"] == pytest.approx(mean(scores))
        hits = mean([score >= 0.5 for score in scores])
        assert found[f"recall@0.5/length={label}"] == pytest.approx(hits)
    assert [name for name in found if name.startswith("miou")][2:] == [
        f"miou/length={label}" for label in sorted(lists)
    ]


def test_labels_may_come_last_and_be_enums_or_numbers():
    class Level(StrEnum):
        EASY = "easy"

    expected = {"accuracy/level=easy": 1.0, "accuracy/level=3": 0.0}
    for labels in ([Level.EASY, 3], ["easy", "3"]):
        metric = GroupedMetric(MultipleChoiceAccuracy(), by="level")
        metric.update(torch.tensor([1, 2]), torch.tensor([1, 0]), labels)
        found = values(metric.compute())
        assert {name: found[name] for name in expected} == expected
    metric = GroupedMetric(MultipleChoiceAccuracy(), by="level")
    metric.update([None, 2], target=torch.tensor([1, 2]), level=torch.tensor([7, 8]))
    assert values(metric.compute())["accuracy/level=8"] == 1.0


def test_forward_gives_the_batch_and_keeps_all():
    metric, alone, whole = (GroupedMetric(TemporalIoU(), by="length") for _ in range(3))
    for seed, count in enumerate((5, 2, 7)):
        batch = draw(count, seed)
        alone.reset()
        alone.update(*batch)
        whole.update(*batch)
        assert values(metric(*batch)) == values(alone.compute())
    assert values(metric.compute()) == pytest.approx(values(whole.compute()))


def test_groupings_share_a_collection():
    spans, true, labels = draw(6, 1)
    grouped = {name: GroupedMetric(TemporalIoU(thresholds=[]), by=name) for name in ("length", "source")}
    collection = MetricCollection({**grouped, "plain": TemporalIoU(thresholds=[])})
    for _ in range(2):
        collection.update(spans, true, length=labels, source=["x"] * 6)
    found = collection.compute()
    assert found["source_miou/source=x"] == found["plain_miou"] == found["length_miou"]


def test_merges_groups_that_only_one_side_knows():
    first, second, whole = (GroupedMetric(MultipleChoiceAccuracy(), by="level") for _ in range(3))
    batches = [(torch.tensor([0, 1]), torch.tensor([0, 0]), ["a", "b"]), (torch.tensor([2]), torch.tensor([2]), ["c"])]
    for metric, batch in zip((first, second), batches, strict=True):
        metric.update(*batch)
        metric.compute()
        whole.update(*batch)
    first.merge_state(second)
    assert values(first.compute()) == values(whole.compute())
    assert first.update_count == 2


def test_wraps_a_torchmetrics_class():
    metric = GroupedMetric(MeanSquaredError(), by="level")
    metric.update(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 0.0, 0.0]), ["a", "a", "b"])
    assert values(metric.compute()) == pytest.approx({
        "meansquarederror": 10 / 3,
        "meansquarederror/macro": 4.75,
        "meansquarederror/level=a": 0.5,
        "meansquarederror/level=b": 9.0,
    })  # fmt: skip
    assert metric.higher_is_better is False


def test_the_wrapped_metric_stays_as_it_is():
    inner = TemporalIoU()
    inner.update(*draw(3, 0)[:2])
    metric = GroupedMetric(inner, by="length")
    metric.update(*draw(4, 1))
    assert inner.count.item() == 3
    metric.reset()
    metric.update(*draw(2, 2))
    assert sum(group.count.item() for group in metric._groups) == 2


def test_without_samples_all_and_macro_are_nan():
    metric = GroupedMetric(MultipleChoiceAccuracy(), by="level")
    empty = torch.zeros(0, dtype=torch.long)
    metric.update(empty, empty, [])
    with pytest.warns(UserWarning, match="saw no samples"):
        found = values(metric.compute())
    assert all(math.isnan(value) for value in found.values())
    assert set(found) == {"accuracy", "accuracy/macro", "answered", "answered/macro"}


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"`by` is 'target'; .*none of the arguments \['prediction', 'target'\]"):
        GroupedMetric(TemporalIoU(), by="target")
    with pytest.raises(ValueError, match="`by` is 'video length'"):
        GroupedMetric(TemporalIoU(), by="video length")
    with pytest.raises(ValueError, match="dist_sync_on_step=True"):
        GroupedMetric(TemporalIoU(dist_sync_on_step=True), by="length")
    metric = GroupedMetric(TemporalIoU(), by="length")
    spans, true, labels = draw(3, 0)
    with pytest.raises(ValueError, match="`prediction` holds 3 samples and `length` 2 labels"):
        metric.update(spans, true, labels[:2])
    with pytest.raises(TypeError, match="`update` needs `length`"):
        metric.update(spans, true)
    with pytest.raises(TypeError, match="got 4 positional"):
        metric.update(spans, true, labels, labels)
    with pytest.raises(ValueError, match="by='length' merges with its like only; got by='level'"):
        metric.merge_state(GroupedMetric(TemporalIoU(), by="level"))
    with pytest.raises(ValueError, match="got <class 'dict'>"):
        metric.merge_state({})
    assert not metric._labels
