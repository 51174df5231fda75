"""Imports point downwards, heavy packages stay in their one place, and what must be light is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "m1lite"
# A part imports itself and the parts before it.
RANKS = [
    ["records"],
    ["video", "engines", "metrics", "rl"],
    ["toolbox", "agents", "data"],
    ["collaboration", "rewards", "modules"],
    [
        "callbacks",
        "assembly",
        "engine_viewer",
        "base_training",
        "cold_start",
        "native_start",
        "trace_start",
        "console",
        "evaluation",
        "ledger",
        "baselines",
        "report",
        "stages",
    ],
    ["launch", "configuration", "chain", "build", "run_grounder", "train", "evaluate", "ask", "serve"],
]
ORDER = [part for rank in RANKS for part in rank]
PROGRAMS = {"toolbox/serve.py"}
"""Above all parts, wherever they stand."""
ENTRIES = {"configuration.py", "build.py", "train.py", "evaluate.py", "ask.py"} | PROGRAMS
ONLY_IN = {
    "vllm": {"engines/vllm.py", "engines/_vllm_compat.py", "engines/_vllm_media.py"},
    "hydra": ENTRIES,
    "mcp": {"toolbox/mcp_package.py"},
    "jsonschema": {"toolbox/mcp_package.py"},
    "torchcodec": {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("video/*.py")},
}
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports(source: str, file: str) -> set[str]:
    """Give the dotted names that the source of ``file`` imports anywhere, also inside functions and type checks."""
    here = ("m1lite", *Path(file).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(here[: len(here) - node.level + 1]) if node.level else []
            base += [node.module] if node.module else []
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def faults(source: str, file: str) -> list[str]:
    """Name every import of ``file`` that breaks the order or takes a package from outside its place."""
    part = Path(file).stem if file in PROGRAMS else Path(file).parts[0].removesuffix(".py")
    rank = -1 if part == "__init__" else ORDER.index(part)
    found = []
    for name in sorted(imports(source, file)):
        top, *rest = name.split(".")
        if top == "m1lite" and rest and rest[0] in ORDER and ORDER.index(rest[0]) > rank:
            found.append(f"{file} imports {name}")
        if file not in ONLY_IN.get(top, {file}):
            found.append(f"{file} imports {name}, which belongs in {sorted(ONLY_IN[top])}")
    return found


@pytest.mark.parametrize("file", FILES)
def test_imports_point_downwards(file):
    assert faults((PACKAGE / file).read_text(), file) == []


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("from m1lite.rewards.compose import compose", "collaboration/loop.py"),
        ("from ..rewards import compose", "collaboration/loop.py"),
        ("def f():\n    import m1lite.stages", "records.py"),
        ("from m1lite import rl", "__init__.py"),
        ("from vllm import LLM", "engines/base.py"),
        ("import hydra.utils", "modules/marl.py"),
    ],
)
def test_a_planted_fault_is_found(source, file):
    assert len(faults(source, file)) == 1


def loaded_by(statement: str, *, after: str = "pass") -> set[str]:
    """Give the top-level names of the packages that a statement loads in a fresh process."""
    code = f"import sys\n{after}\nbefore = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - before))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in printed.split()} - set(sys.stdlib_module_names)


def test_the_package_itself_loads_nothing_else():
    assert loaded_by("import m1lite") == {"m1lite"}


def test_metric_functions_load_torch_only():
    functional = ["m1lite.metrics.functional"]
    functional += [f"m1lite.metrics.functional.{path.stem}" for path in PACKAGE.glob("metrics/functional/[a-z]*.py")]
    assert loaded_by(f"import {', '.join(functional)}", after="import torch") == {"m1lite"}
