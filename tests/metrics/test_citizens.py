"""Every exported metric class is a good citizen of torchmetrics: one shared test over the list in citizens.py."""

import json
import math
import pickle
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torchmetrics import Metric, MetricCollection

from m1lite import metrics
from tests.metrics.citizens import CITIZENS
from tests.metrics.citizens_worker import SHARES, batches
from tests.metrics.devices_worker import converted_to_gpu

ROOT = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("citizen", CITIZENS, ids=str)
NUMBERS = torch.float32, torch.float64


def draw(citizen, count=12, seed=0):
    return citizen.draw(count, torch.Generator().manual_seed(seed))


def updated(citizen, *seeds, **arguments):
    metric = citizen.make(**arguments)
    for seed in seeds:
        metric.update(**draw(citizen, seed=seed))
    return metric


def values(found):
    found = found.compute() if isinstance(found, Metric) else found
    return {name: value.item() for name, value in found.items()}


def close(expected):
    return {name: pytest.approx(value, nan_ok=True) for name, value in expected.items()}


def states(metric):
    """All states, also those of metrics inside."""
    parts = [part for part in metric.modules() if isinstance(part, Metric)]
    listed = [state for part in parts for state in part.metric_state.values()]
    return [tensor for state in listed for tensor in (state if isinstance(state, list) else [state])]


def converted(value, function):
    """Apply a function to every tensor of numbers with a point, however deep in lists it is."""
    if isinstance(value, torch.Tensor):
        return function(value) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: converted(entry, function) for name, entry in value.items()}
    return [converted(entry, function) for entry in value] if isinstance(value, list | tuple) else value


def test_every_exported_class_is_in_the_list():
    exported = {name for name in metrics.__all__ if _is_metric(getattr(metrics, name))}
    assert exported == {citizen.metric for citizen in CITIZENS}
    assert len({str(citizen) for citizen in CITIZENS}) == len(CITIZENS)


def _is_metric(value):
    return isinstance(value, type) and issubclass(value, Metric)


@EACH
def test_every_value_is_one_number_and_lies_in_the_bounds_of_the_plot(citizen):
    metric = updated(citizen, 0, 1)
    for value in metric.compute().values():
        assert value.shape == ()
        assert value.dtype in NUMBERS
        if metric.plot_upper_bound is not None:
            assert math.isnan(value) or metric.plot_lower_bound <= value <= metric.plot_upper_bound
    assert metric.full_state_update is False
    assert metric.higher_is_better in (True, False)


@pytest.mark.parametrize("citizen", [citizen for citizen in CITIZENS if citizen.means], ids=str)
def test_compute_is_the_mean_of_the_scores(citizen):
    metric = citizen.make()
    drawn = [draw(citizen, count, seed) for count, seed in ((5, 0), (1, 7), (9, 3))]
    for batch in drawn:
        metric.update(**batch)
    scores = [metric.score(**batch) for batch in drawn]
    found = values(metric)
    for name, pick in citizen.means.items():
        assert found[name] == pytest.approx(torch.cat([pick(part).double() for part in scores]).mean().item()), name


@EACH
def test_pickles_before_and_after_samples(citizen):
    for metric in (citizen.make(), updated(citizen, 0)):
        copy = pickle.loads(pickle.dumps(metric))
        for one in (metric, copy):
            one.update(**draw(citizen, seed=5))
        assert values(copy) == close(values(metric))


@EACH
def test_reset_forgets(citizen):
    metric, fresh = updated(citizen, 0, 1), updated(citizen, 2)
    metric.compute()
    metric.reset()
    assert not metric.update_called
    metric.update(**draw(citizen, seed=2))
    assert values(metric) == close(values(fresh))


@EACH
def test_a_clone_is_on_its_own(citizen):
    metric = updated(citizen, 0)
    before = values(metric)
    clone = metric.clone()
    assert hash(clone) != hash(metric)
    clone.update(**draw(citizen, seed=5))
    assert values(metric) == close(before)
    assert values(clone) == close(values(updated(citizen, 0, 5)))
    assert values(clone) != close(before)


@EACH
def test_forward_is_the_value_of_the_batch_and_counts_it(citizen):
    metric = citizen.make()
    for seed in (1, 2, 3):
        assert values(metric(**draw(citizen, seed=seed))) == close(values(updated(citizen, seed)))
    assert values(metric) == close(values(updated(citizen, 1, 2, 3)))
    assert metric.update_count == 3


@EACH
def test_merged_states_equal_one_metric_on_all(citizen):
    first, second, third = (updated(citizen, seed) for seed in (1, 2, 3))
    values(first)
    values(second)  # a value computed before the merge must not be given again
    first.merge_state(second)
    assert values(first) == close(values(updated(citizen, 1, 2)))
    first.merge_state(third)
    assert values(first) == close(values(updated(citizen, 1, 2, 3)))
    assert first.update_count == 3
    empty = citizen.make()
    empty.merge_state(second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values(empty) == close(values(second))


@EACH
def test_sits_in_a_collection(citizen):
    metric, first, second = citizen.make(), citizen.make(), citizen.make()
    collection = MetricCollection({"one": first, "two": second})
    for seed in (0, 1, 2):
        collection.update(**draw(citizen, seed=seed))
        metric.update(**draw(citizen, seed=seed))
    expected = values(metric)
    found = {name: value.item() for name, value in collection.compute().items()}
    for prefix in ("one", "two"):
        assert {name: found[f"{prefix}_{name}"] for name in expected} == close(expected)


@EACH
def test_states_of_one_size_in_float64_whatever_the_model_is_cast_to(citizen):
    metric = updated(citizen, 0).half().bfloat16()
    metric.set_dtype(torch.float16)
    sizes = [state.numel() for state in states(metric)]
    metric.update(**draw(citizen, 400))
    assert {state.dtype for state in states(metric)} == {torch.float64}
    if not citizen.grows:
        assert [state.numel() for state in states(metric)] == sizes


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_cast_up_first(citizen, dtype):
    half = converted(draw(citizen), lambda tensor: tensor.to(dtype))
    metric, expected = citizen.make(), citizen.make()
    metric.update(**half)
    expected.update(**converted(half, torch.Tensor.float))
    assert values(metric) == close(values(expected))


@EACH
def test_float64_stays(citizen):
    metric, expected = citizen.make(), updated(citizen, 0)
    metric.update(**converted(draw(citizen), torch.Tensor.double))
    assert values(metric) == {name: pytest.approx(value, abs=1e-5) for name, value in values(expected).items()}


@pytest.mark.parametrize("citizen", [citizen for citizen in CITIZENS if citizen.validates], ids=str)
def test_unchecked_gives_the_same(citizen):
    assert values(updated(citizen, 0, validate_args=False)) == close(values(updated(citizen, 0)))


@EACH
def test_without_samples_the_values_are_nan_with_a_warning(citizen):
    metric = citizen.make()
    metric.update(**draw(citizen, 0))
    with pytest.warns(UserWarning, match="saw no samples"):
        assert all(math.isnan(value) for value in values(metric).values())
    metric.update(**draw(citizen))
    metric.update(**draw(citizen, 0))
    assert values(metric) == close(values(updated(citizen, 0)))


@EACH
def test_plots(citizen):
    pytest.importorskip("matplotlib").use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    metric = updated(citizen, 0)
    for value in (None, [metric.compute(), metric.compute()]):
        figure, _ = metric.plot(value)
        assert figure is not None
        pyplot.close(figure)


@pytest.mark.gpu
@EACH
def test_a_gpu_gives_the_same(citizen):
    metric = citizen.make().to("cuda")
    metric.update(**converted_to_gpu(draw(citizen)))
    assert {value.device.type for value in metric.compute().values()} == {"cuda"}
    assert values(metric) == {
        name: pytest.approx(value, abs=1e-5) for name, value in values(updated(citizen, 0)).items()
    }


def test_devices_are_not_mixed():
    """In a process of its own: what an engine replaces in torch would read values of tensors that have none."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.metrics.devices_worker"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.split() == [f"{citizen}:cuda" for citizen in CITIZENS if citizen.metric != "GroupedMetric"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What two fresh processes found: a forked one would inherit the group that an engine may have left behind."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore::UserWarning", "-m", "tests.metrics.citizens_worker"]
    ranks = [subprocess.Popen([*command, str(rank), str(port), str(folder)], cwd=ROOT) for rank in range(2)]
    try:
        assert [rank.wait(timeout=800) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first waits for both processes, which on a busy machine wait for each other
@EACH
@pytest.mark.parametrize("share", SHARES)
def test_two_processes_agree_with_one(citizen, share, results):
    found = [result[f"{citizen} {share}"] for result in results]
    metric, expected = citizen.make(), []
    for seed, sizes in ((0, SHARES[share]), (10, ((1,), (1,)))):
        for rank in range(2):
            for batch in batches(citizen, seed + rank, sizes[rank]):
                metric.update(**batch)
        expected.append(values(metric))
    assert found[0] == [close(part) for part in expected]
    assert found[1] == [close(part) for part in expected]
