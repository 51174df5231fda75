"""The metric classes: equal to the mean of their scores, and good citizens of torchmetrics."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchmetrics import MetricCollection

from m1lite.metrics import MultipleChoiceAccuracy, TemporalIoU
from m1lite.metrics.functional import temporal_iou

GOLDEN = json.loads((Path(__file__).parents[1] / "golden_cases" / "temporal_iou.json").read_text())


def spans(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 20).sort(-1).values


def draw(metric, count=12, seed=0):
    if isinstance(metric, TemporalIoU):
        return spans(count, seed), spans(count, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 4, (count,), generator=generator), torch.randint(0, 4, (count,), generator=generator)


METRICS = pytest.mark.parametrize("make", [TemporalIoU, MultipleChoiceAccuracy])
MAIN_KEY = {TemporalIoU: "miou", MultipleChoiceAccuracy: "accuracy"}


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


@METRICS
def test_compute_is_the_mean_of_the_scores(make):
    metric = make()
    batches = [draw(metric, count, seed) for count, seed in ((5, 0), (1, 7), (9, 3))]
    for batch in batches:
        metric.update(*batch)
    scores = torch.cat([metric.score(*batch) for batch in batches])
    assert values(metric)[MAIN_KEY[make]] == pytest.approx(scores.double().mean().item())


@METRICS
def test_pickle_reset_clone_hash_and_collection(make):
    metric = make()
    metric.update(*draw(metric))
    before = values(metric)
    assert values(pickle.loads(pickle.dumps(metric))) == before
    clone = metric.clone()
    clone.update(*draw(metric, seed=5))
    assert values(metric) == before != values(clone)
    assert hash(metric) != hash(clone)
    assert MetricCollection({"one": metric}).compute()[MAIN_KEY[make]].item() == before[MAIN_KEY[make]]
    metric.reset()
    assert metric.count.item() == 0


@METRICS
def test_forward_is_the_value_of_the_batch(make):
    metric, alone = make(), make()
    metric(*draw(metric, seed=1))
    batch = draw(metric, seed=2)
    alone.update(*batch)
    assert {name: value.item() for name, value in metric(*batch).items()} == values(alone)
    assert metric.count.item() == 24


@METRICS
def test_merged_states_equal_one_metric_on_all(make):
    first, second, whole = make(), make(), make()
    for metric, seed in ((first, 1), (second, 2)):
        metric.update(*draw(metric, seed=seed))
        whole.update(*draw(metric, seed=seed))
    first.merge_state(second)
    assert values(first) == pytest.approx(values(whole))


@METRICS
def test_states_do_not_grow(make):
    metric = make()
    metric.update(*draw(metric, 4))
    sizes = [state.numel() for state in metric.metric_state.values()]
    metric.update(*draw(metric, 400))
    assert [state.numel() for state in metric.metric_state.values()] == sizes


@METRICS
def test_without_samples_the_value_is_nan_with_a_warning(make):
    metric = make()
    empty = tuple(tensor[:0] for tensor in draw(metric))
    metric.update(*empty)
    with pytest.warns(UserWarning, match="saw no samples"):
        assert all(value != value for value in values(metric).values())


def test_recall_counts_scores_at_the_threshold():
    for row in GOLDEN["iou_sets"]:
        ious = torch.tensor(row["ious"], dtype=torch.float64)
        target = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(len(ious), 2)
        metric = TemporalIoU()
        metric.update(torch.stack([torch.zeros_like(ious), ious], -1), target)
        found = values(metric)
        assert 100 * found["miou"] == pytest.approx(row["percent"]["mIoU"])
        for threshold in (0.3, 0.5, 0.7):
            assert 100 * found[f"recall@{threshold}"] == pytest.approx(row["percent"][f"R1@{threshold}"])


def test_the_threshold_holds_in_float32_too():
    metric = TemporalIoU(thresholds=[0.7])
    metric.update(torch.tensor([[0.0, 7.0]]), torch.tensor([[0.0, 10.0]]))
    assert values(metric)["recall@0.7"] == 1.0


def test_no_answer_scores_zero_and_counts():
    listed, tensor = TemporalIoU(), TemporalIoU()
    target = torch.tensor([[0.0, 5.0], [2.0, 3.0], [1.0, 4.0]])
    listed.update([[0.0, 4.0], None, torch.tensor([4.0, 1.0])], target)
    tensor.update(torch.tensor([[0.0, 4.0], [float("nan"), float("nan")], [4.0, 1.0]]), target)
    assert values(listed) == values(tensor)
    assert values(listed)["miou"] == pytest.approx(0.8 / 3)
    choice = MultipleChoiceAccuracy()
    choice.update([0, None, 2], torch.tensor([0, 1, 1]))
    assert values(choice) == pytest.approx({"accuracy": 1 / 3, "answered": 2 / 3})


def test_half_precision_is_cast_up():
    metric = TemporalIoU()
    prediction, target = (tensor.bfloat16() for tensor in draw(metric))
    metric.update(prediction, target)
    assert values(metric)["miou"] == pytest.approx(temporal_iou(prediction.float(), target.float()).mean().item())


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"`thresholds` holds 1\.5"):
        TemporalIoU(thresholds=[0.3, 1.5])
    metric = TemporalIoU()
    with pytest.raises(ValueError, match=r"`target\[1\]` is \[5.0, 3.0\]"):
        metric.update(torch.zeros(2, 2), torch.tensor([[0.0, 1.0], [5.0, 3.0]]))
    with pytest.raises(ValueError, match=r"`target\[0\]` is \[0.0, nan\]"):
        metric.update(torch.zeros(1, 2), torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(ValueError, match=r"`target\[0\]` is \[0.0, inf\]"):
        metric.update(torch.zeros(1, 2), torch.tensor([[0.0, float("inf")]]))
    with pytest.raises(ValueError, match=r"`prediction\[1\]` has shape \(3,\); it must be \(2,\)"):
        metric.update([None, [0.0, 1.0, 2.0]], torch.ones(2, 2))
    with pytest.raises(ValueError, match="`prediction` holds 1 answers for 2 targets"):
        metric.update([None], torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"`prediction` has shape \(1, 2\) and `target` \(2, 2\)"):
        metric.update(torch.ones(1, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"`target\[1\]` is -1"):
        MultipleChoiceAccuracy().update(torch.tensor([0, 0]), torch.tensor([0, -1]))


def test_plots_when_matplotlib_is_there():
    pytest.importorskip("matplotlib").use("Agg")
    metric = MultipleChoiceAccuracy()
    metric.update(*draw(metric))
    figure, _ = metric.plot()
    assert figure is not None


def test_functionals_load_torch_only_and_names_load_lazily():
    code = (
        "import sys, m1lite.metrics.functional\n"
        "heavy = {'torchmetrics', 'transformers', 'lightning', 'vllm', 'torchcodec', 'av', 'hydra', 'peft'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import m1lite.metrics\n"
        "assert 'TemporalIoU' in dir(m1lite.metrics) and 'torchmetrics' not in sys.modules\n"
        "try:\n    m1lite.metrics.Nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "has no attribute 'Nothing'; there are ['Estimate'" in found.stdout
