"""What the metric library exports: documented with an example, tested, and light to import."""

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from m1lite import metrics
from m1lite.metrics import functional

HERE = Path(__file__).parent
FUNCTIONS = sorted(name for name in functional.__all__ if inspect.isfunction(getattr(functional, name)))
PUBLIC = {
    **{f"functional.{name}": getattr(functional, name) for name in functional.__all__},
    **{name: getattr(metrics, name) for name in metrics.__all__},
}
CALLED = sorted(name for name, value in PUBLIC.items() if inspect.isfunction(value) or hasattr(value, "update"))


@pytest.mark.parametrize("name", CALLED)
def test_has_an_example_that_prints_what_comes_out(name):
    assert any(example.want for example in doctest.DocTestParser().get_examples(PUBLIC[name].__doc__))


@pytest.mark.parametrize("name", CALLED)
def test_says_what_it_takes_gives_and_refuses(name):
    sections = ["Args:", "Example:"]
    if hasattr(PUBLIC[name], "update"):
        sections += ["``update``", "``compute``"]
    else:
        sections += ["Returns:"]
    assert [section for section in sections if section not in PUBLIC[name].__doc__] == []


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_is_documented_in_its_own_words(name):
    assert len(PUBLIC[name].__doc__.split(".")[0].split()) >= 3
    assert not PUBLIC[name].__doc__.startswith(f"{PUBLIC[name].__name__}(")  # what Python writes where there is none


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_functional_is_tested(name):
    files = (HERE / "functional").glob("test_*.py")
    assert any(f"{name}(" in path.read_text() or f"[{name}" in path.read_text() for path in files)


@pytest.mark.parametrize("name", sorted(name for name, value in PUBLIC.items() if hasattr(value, "update")))
def test_a_class_has_at_most_eight_arguments(name):
    kinds = [parameter.kind for parameter in inspect.signature(PUBLIC[name]).parameters.values()]
    assert len([kind for kind in kinds if kind is not inspect.Parameter.VAR_KEYWORD]) <= 8


def test_the_readme_lists_every_one():
    text = (HERE.parents[1] / "README.md").read_text()
    table, _, _ = text[text.index("| what | functional | class |") :].partition("\n\n")
    classes = {name for name, value in PUBLIC.items() if hasattr(value, "update")}
    assert set(re.findall(r"`(\w+)`", table)) == {*FUNCTIONS, *classes}


def loaded_by(statement, *, after):
    """Modules that a statement adds in a fresh process to what is loaded after another."""
    code = f"import sys\n{after}\nbefore = set(sys.modules)\n{statement}\nprint(*sorted(set(sys.modules) - before))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


def foreign(modules):
    return {name for name in modules if name.split(".")[0] not in {"m1lite", *sys.stdlib_module_names}}


def test_the_classes_load_nothing_that_torchmetrics_does_not():
    """Whatever that is here: with transformers installed torchmetrics 1.9 loads it."""
    statement = "from m1lite.metrics import *\nfrom m1lite.metrics.presets import preset_names\npreset_names()"
    added = loaded_by(statement, after="import torchmetrics")
    assert {f"m1lite.metrics.{file}" for file in ("grounding", "tracking", "trace", "presets.caption")} <= added
    assert foreign(added) == set()


def test_the_functionals_load_torch_only_and_names_load_when_used():
    statement = "import m1lite.metrics.functional, m1lite.metrics\nassert 'TemporalIoU' in dir(m1lite.metrics)"
    added = loaded_by(statement, after="import torch")
    assert foreign(added) == set()
    assert "m1lite.metrics.grounding" not in added


def test_an_unknown_name_is_told_what_exists():
    with pytest.raises(AttributeError, match=r"has no attribute 'Nothing'; there are \['CaptionEvents'"):
        metrics.Nothing  # noqa: B018
