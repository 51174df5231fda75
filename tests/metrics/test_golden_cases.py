"""The stored cases of official scoring code: every core cell passes, and none is lost without notice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.cells import Exclusion, Field, Section, decoded, equal, replay_section
from tests.golden.sections import SECTIONS

CASES = Path(__file__).parents[1] / "golden_cases"
PASSED = {  # core and optional cells that pass today
    "caption": 81, "cgbench": 111, "gqa": 229, "mcq": 485, "temporal": 926, "tracking": 321, "vsi": 270,
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED)
def test_every_core_cell_passes(name):
    passed = 0
    for section, rows in json.loads((CASES / f"golden_{name}.json").read_text(encoding="utf-8")).items():
        if section.startswith("_"):
            continue
        for field, count in replay_section(SECTIONS[section], rows).items():
            assert not (count.core and count.failures), (section, field, count.failures[:3])
            passed += count.passed
    assert passed == PASSED[name]


def test_cases_pass_where_a_process_group_exists(tmp_path):
    code = (
        "import sys, torch.distributed as dist\n"
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/store', rank=0, world_size=1)\n"
        "from tests.golden.__main__ import main\n"
        "code = main()\n"
        "dist.destroy_process_group()\n"
        "sys.exit(code)\n"
    )
    files = [str(CASES / f"golden_{name}.json") for name in ("caption", "mcq", "gqa")]
    command = [sys.executable, "-W", "ignore", "-c", code, *files]
    found = subprocess.run(command, cwd=CASES.parents[1], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    assert "all: 795 passed, 0 failed" in found.stdout


def test_a_wrong_value_a_crash_and_an_unknown_field_fail():
    section = Section(
        fields={"half": Field(replay=lambda row: row["x"] / 2), "crash": Field(replay=lambda row: row["no"])},
        inputs=["x"],
        exclusions=[Exclusion(field="other", reason="not built"), Exclusion(field="half", reason="x", when=_big)],
    )
    rows = [
        {"x": 4, "half": 2.0, "crash": 1, "other": 1, "new": 1},
        {"x": 4, "half": 2.1},
        {"x": 400, "half": 1.0},
        {"x": 4, "half": {"error": "ZeroDivisionError"}},
    ]
    counts = replay_section(section, rows)
    assert (counts["half"].passed, len(counts["half"].failures), counts["half"].excluded) == (1, 1, 2)
    assert counts["half"].failures == ["row 1: expected 2.1, found 2.0"]
    assert "raised KeyError('no')" in counts["crash"].failures[0]
    assert counts["other"].excluded == 1
    assert counts["new"].failures == ["row 0: nothing replays the field 'new'"]


def _big(row):
    return row["x"] > 100


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        (1.0, 1, True), (True, 1, False), ("1", 1, False), (float("nan"), "nan", True), (0.5, "nan", False),
        ([1, (2.0,)], [1, [2]], True), ([1], [1, 2], False), ({"a": 1}, {"a": 1, "b": 2}, False),
        ({0.3: 1.0}, {"0.3": 1}, True), (None, 0, False), (1 + 1e-7, 1.0, False),
        (10**400, 10**400, True), ([None], [None], True), ("nan", "nan", True), (float("inf"), "inf", True),
        ({"a": 1, "b": 2}, {"a": 1, "b": {"error": "IndexError"}}, True), ([1, 2], [2, {"error": ""}], False),
    ],
)  # fmt: skip
def test_values_are_compared_strictly(found, expected, same):
    assert equal(found, expected, relative=1e-9, absolute=1e-12) is same


def test_numbers_that_json_lacks_are_decoded_and_descriptions_are_no_outputs():
    assert decoded({"spans": [["-inf", 2], ["inf", None]]}) == {"spans": [[-float("inf"), 2], [float("inf"), None]]}
    section = Section(fields={"same": Field(replay=lambda row: decoded(row["x"])[0])}, inputs=["x"])
    counts = replay_section(section, [{"tag": "odd", "note": "", "x": ["nan"], "same": "nan"}])
    assert {name: count.passed for name, count in counts.items()} == {"same": 1}
