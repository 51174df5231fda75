"""The closing table, line for line, and what it does without a stage, a baseline or an interval."""

import json
import re

from m1lite.baselines import BlindResult
from m1lite.report.metrics import compile_metrics, strict_json
from m1lite.report.table import closing_table


def figure(mean, low, high, n=8):
    return {"mean": mean, "ci95": [low, high], "n": n}


def stage(score, choice, grounding):
    part = {
        "score": figure(score, score - 0.1, score + 0.1),
        "tasks": {"choice": figure(choice, -1, 1), "grounding": figure(grounding, -1, 1)},
        "parse_share": figure(0.97, 0.9, 1.0),
    }
    return {"team": part, "agents": {"ada": part, "bea": part}}


METRICS = {
    "stages": {"sft": stage(0.1, 0.0, 0.2), "marl": stage(0.5, 0.4, 0.6), "marl_hidden": stage(0.0, 0.0, 0.0)},
    "gains": {"marl_minus_sft": {**figure(0.4, 0.3, 0.5), "tasks": {"choice": figure(0.4, 0.3, 0.5)}}},
    "blind": {"choice": {"name": "option 1", "score": -0.5}, "grounding": {"name": "constant span", "score": -0.1}},
    "ceiling": {"choice": 0.9, "grounding": 1.0},
    "seconds": {"sft": 10.4, "marl": 20.0},
    "cpu_seconds": {"sft": 20.0, "marl": 39.6},
    "tokens": {"sft": 1200, "marl": 1300},
    "token_kinds": {"sft": {"trained": 1200}, "marl": {"read": 1000, "sampled": 300}},
}
TABLE = """\
team score (2m - 1)  choice  grounding    mean     95 % interval  parse  questions
----------------------------------------------------------------------------------
best blind           -0.500     -0.100  -0.300
sft                  +0.000     +0.200  +0.100  [+0.000, +0.200]  0.970          8
marl                 +0.400     +0.600  +0.500  [+0.400, +0.600]  0.970          8
ceiling (oracle)     +0.900     +1.000  +0.950

agents after MARL  choice  grounding    mean     95 % interval  parse
---------------------------------------------------------------------
ada                +0.400     +0.600  +0.500  [+0.400, +0.600]  0.970
bea                +0.400     +0.600  +0.500  [+0.400, +0.600]  0.970

gain            choice  grounding    mean     95 % interval
-----------------------------------------------------------
marl_minus_sft  +0.400             +0.400  [+0.300, +0.500]

stage  seconds  CPU seconds  tokens read  tokens sampled  tokens trained
------------------------------------------------------------------------
sft         10           20                                         1200
marl        20           40         1000             300
all         30           60         1000             300            1200"""


def test_the_table_line_for_line():
    assert closing_table(METRICS) == TABLE


def test_missing_parts_are_left_out():
    bare = {**METRICS, "stages": {"sft": METRICS["stages"]["sft"]}, "gains": {}, "blind": {}, "ceiling": None}
    text = closing_table(bare)
    assert not re.search("best blind|ceiling|agents after|gain|marl_hidden", text)
    assert [line.split()[0] for line in text.split("\n\n")[0].splitlines()[2:]] == ["sft"]
    old = {name: figures for name, figures in METRICS.items() if name != "token_kinds"}
    assert closing_table(old).endswith("stage  seconds  CPU seconds\n" + "-" * 27 + "\nsft         10           20\n"
                                       "marl        20           40\nall         30           60")  # fmt: skip
    partly = {**METRICS, "blind": {"choice": METRICS["blind"]["choice"]}, "ceiling": {"grounding": 1.0}}
    lines = {line.split("  ")[0]: line.split()[2:] for line in closing_table(partly).splitlines() if line}
    assert lines["best blind"] == ["-0.500", "-0.500"]
    assert lines["ceiling (oracle)"] == ["+1.000", "+1.000"]


def test_the_table_of_a_file_is_that_of_the_run(verdicts):
    """With one video there are no intervals."""
    rows = verdicts(lambda video, task: 0.5, videos=1)
    blind = BlindResult(task="choice", name="option 1", validation=0.0, scores={"v0-choice": 0.25})
    metrics = {**METRICS, **compile_metrics({"sft": rows, "marl": rows}, [blind], num_draws=10)}
    text = closing_table(metrics)
    assert closing_table(json.loads(strict_json(metrics))) == text
    assert "[" not in text
    assert re.search(r"^marl +\+0\.500 +\+0\.500 +\+0\.500 +0\.750 +2$", text, re.MULTILINE)
    assert re.search(r"^marl_minus_blind +\+0\.250 +\+0\.250$", text, re.MULTILINE)
