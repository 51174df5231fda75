"""The bootstrap against scipy and by simulation, and Holm's correction by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from m1lite.metrics import bootstrap_difference, bootstrap_mean, holm


@pytest.mark.parametrize("law", ["normal", "skewed"])
def test_one_value_per_cluster_equals_scipy(law):
    generator = np.random.default_rng(0)
    values = generator.normal(0.3, 1, 60) if law == "normal" else generator.exponential(1, 60) ** 2
    found = bootstrap_mean(values, range(60))
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    error = values.std() / math.sqrt(60)
    assert found.low == pytest.approx(expected.low, abs=0.06 * error)
    assert found.high == pytest.approx(expected.high, abs=0.06 * error)


def test_unequal_clusters_equal_scipy_on_the_ratio_of_sums():
    generator = np.random.default_rng(3)
    sizes = generator.integers(1, 6, 40)
    level = generator.normal(0, 1, 40)
    clusters = np.repeat(np.arange(40), sizes)
    values = level[clusters] + generator.normal(0, 0.3, len(clusters))
    found = bootstrap_mean(values, clusters.tolist())
    sums = np.bincount(clusters, values)
    expected = stats.bootstrap(
        (sums, sizes),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        paired=True,
        n_resamples=20_000,
        method="BCa",
        rng=1,
    ).confidence_interval
    width = expected.high - expected.low
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=0.03 * width)
    assert found.high == pytest.approx(expected.high, abs=0.03 * width)
    naive = bootstrap_mean(values, range(len(values)))
    assert naive.high - naive.low < 0.8 * (found.high - found.low)


def test_tasks_count_alike_whatever_their_numbers():
    values = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    tasks = ["a", "a", "a", "b", "c", "c", "c"]
    assert bootstrap_mean(values, range(7), tasks=tasks).mean == pytest.approx(1 / 3)
    assert bootstrap_mean(values, range(7)).mean == pytest.approx(3 / 7)


def test_a_plain_mean_is_the_task_mean_of_a_balanced_design():
    generator = np.random.default_rng(4)
    values = generator.uniform(-1, 1, 120)
    clusters, tasks = np.repeat(np.arange(30), 4).tolist(), np.tile(np.arange(4), 30).tolist()
    with_tasks, without = bootstrap_mean(values, clusters, tasks=tasks), bootstrap_mean(values, clusters)
    assert (with_tasks.mean, with_tasks.low, with_tasks.high) == pytest.approx(
        (without.mean, without.low, without.high)
    )


def test_the_interval_covers_the_truth():
    generator = np.random.default_rng(5)
    hits = 0
    for trial in range(300):
        level = np.repeat(generator.normal(0, 1, 50), 3)
        values = 0.2 + level + generator.normal(0, 1, 150)
        found = bootstrap_mean(values, np.repeat(np.arange(50), 3).tolist(), num_draws=1000, seed=trial % 2)
        hits += found.low <= 0.2 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=12), st.sampled_from([0.8, 0.95]))
@settings(deadline=None, max_examples=60)
def test_interval_and_p_value_say_the_same(values, level):
    found = bootstrap_mean(values, range(len(values)), level=level, num_draws=500)
    assert found.low <= found.high
    assert min(values) - 1e-9 <= found.low
    assert found.high <= max(values) + 1e-9
    assert 0 <= found.p_value <= 1
    if found.low > 0.01 or found.high < -0.01:
        assert found.p_value <= 1 - level + 0.01
    if found.low < -0.01 and found.high > 0.01:
        assert found.p_value >= 1 - level - 0.01


def test_the_p_value_is_near_that_of_the_t_test():
    values = np.random.default_rng(6).normal(0.25, 1, 80)
    found = bootstrap_mean(values, range(80))
    assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.01)


def test_a_paired_difference_is_sharper_than_two_means():
    generator = np.random.default_rng(7)
    base = generator.normal(0, 1, 60)
    first, second = base + 0.2 + generator.normal(0, 0.1, 60), base
    found = bootstrap_difference(first, second, range(60))
    assert found.mean == pytest.approx((first - second).mean())
    assert found.low > 0
    assert bootstrap_mean(first, range(60)).low < bootstrap_mean(second, range(60)).high


def test_equal_scores_give_a_point():
    found = bootstrap_mean([0.1] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.p_value < 0.01
    assert bootstrap_mean([0.0] * 4, range(4)).p_value == pytest.approx(1.0)


def test_one_cluster_gives_no_interval():
    found = bootstrap_mean([0.0, 1.0], ["v", "v"])
    assert (found.mean, found.n) == (0.5, 2)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.p_value)


def test_the_same_seed_gives_the_same_interval_and_names_do_not_matter():
    values = np.random.default_rng(8).normal(size=30)
    clusters = [f"v{i // 2}" for i in range(30)]
    assert bootstrap_mean(values, clusters, seed=3) == bootstrap_mean(values, [(c, 1) for c in clusters], seed=3)
    assert bootstrap_mean(values, clusters, seed=3) != bootstrap_mean(values, clusters, seed=4)


def holm_by_steps(p_values):
    """Reject from the smallest on: the adjusted p-value is the smallest level at which a test is rejected."""
    order = sorted(p_values, key=p_values.get)
    adjusted = {}
    for name in p_values:
        adjusted[name] = max(
            min(1.0, p_values[earlier] * (len(order) - rank))
            for rank, earlier in enumerate(order[: order.index(name) + 1])
        )
    return adjusted


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=7))
def test_holm_equals_the_definition(p_values):
    found = holm(p_values)
    assert list(found) == list(p_values)
    assert found == pytest.approx(holm_by_steps(p_values))


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="`clusters` holds 1 labels for 2 values"):
        bootstrap_mean([0.0, 1.0], ["a"])
    with pytest.raises(ValueError, match=r"`values\[1\]` is nan"):
        bootstrap_mean([0.0, float("nan")], ["a", "b"])
    with pytest.raises(ValueError, match=r"`values` has shape \(0,\)"):
        bootstrap_mean([], [])
    with pytest.raises(ValueError, match="`level` is 95"):
        bootstrap_mean([0.0, 1.0], ["a", "b"], level=95)
    with pytest.raises(ValueError, match="`first` holds 1 scores and `second` 2"):
        bootstrap_difference([0.0], [0.0, 1.0], ["a", "b"])
    with pytest.raises(ValueError, match=r"p-value of 'choice' is 1\.2"):
        holm({"choice": 1.2})
