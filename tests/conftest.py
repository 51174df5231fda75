"""What every test gets: the random state as it was before, and GPU tests only where there is a GPU."""

import os
import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def random_state():
    """Leave the global generators as they were, whatever a test draws."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


def pytest_collection_modifyitems(items):
    """Skip GPU tests without a GPU, unless ``M1LITE_REQUIRE_GPU=1`` says that there must be one."""
    if torch.cuda.is_available() or os.environ.get("M1LITE_REQUIRE_GPU") == "1":
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
