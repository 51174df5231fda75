"""The small team and its batches as fixtures; sums in one thread, for another order would differ in the last bit."""

import pytest

from tests.small_team import make_batch, make_team


@pytest.fixture
def team():
    return make_team(stir=0.05)


@pytest.fixture(name="make_team")
def make_team_fixture():
    return make_team


@pytest.fixture(name="make_batch")
def make_batch_fixture():
    return make_batch


@pytest.fixture(autouse=True)
def in_one_thread(one_thread):
    """Every test of this folder."""
