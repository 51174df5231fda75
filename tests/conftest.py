"""What every test gets: the random state as it was before, and GPU tests only where there is a GPU."""

import importlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch


def pytest_configure(config):
    # A shell's background job ignores Ctrl-C, and so would every program that a test starts and interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def random_state():
    """Leave the global generators as they were, whatever a test draws."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


@pytest.fixture
def one_thread():
    """Sums in another order would differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items):
    """Skip what the machine cannot run; ``M1LITE_REQUIRE_GPU=1`` says that there must be a GPU."""
    if not torch.cuda.is_available() and os.environ.get("M1LITE_REQUIRE_GPU") != "1":
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    native = [item for item in items if item.get_closest_marker("ffmpeg") or "[torchcodec" in item.name]
    if native and importlib.import_module("m1lite.video.backends").find_backend().name != "torchcodec":
        for item in native:
            item.add_marker(pytest.mark.skip(reason="needs FFmpeg's shared libraries"))


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A synthetic world of nine short videos on disk, with two questions per task and training video."""
    from m1lite.data.worlds import SceneSpec, WorldSpec, build_world

    scenes = SceneSpec(min_seconds=20, max_seconds=26, frame_rates=(4,), max_objects=5)
    spec = WorldSpec(num_train=4, num_val=2, num_test=3, train_per_task=2, scenes=scenes)
    return build_world(spec, tmp_path_factory.mktemp("worlds"))


@pytest.fixture(scope="session")
def world_toolbox():
    """The classical tools on decoded pixels."""
    from m1lite.toolbox import Toolbox
    from m1lite.toolbox.classical import CLASSICAL_TOOLS
    from m1lite.video.cache import FrameCache

    return Toolbox(CLASSICAL_TOOLS, FrameCache(100_000_000))


@pytest.fixture(scope="session")
def world_agents():
    """The four agents of the synthetic world, with their own tools and one word-level chat."""
    from m1lite.agents.agent import Agent
    from m1lite.agents.chat import Chat
    from m1lite.agents.compact import CompactSpelling
    from m1lite.modules.tiny import tiny_tokenizer
    from m1lite.toolbox.classical import CLASSICAL_TOOLS

    tools = {
        "ada": ("grounding_tool", "video_retrieval", "global_sampling", "time_step_retrieval"),
        "bea": ("rough_browser", "spatial_tool", "image_retrieval", "time_step_retrieval"),
        "cyd": ("grounding_tool", "fine_browser", "image_retrieval", "global_sampling"),
        "dov": ("rough_browser", "spatial_tool", "video_retrieval", "fine_browser"),
    }
    by_name = {tool.name: tool for tool in CLASSICAL_TOOLS}
    chat, spelling = Chat(tiny_tokenizer()), CompactSpelling(CLASSICAL_TOOLS)
    return [
        Agent(name=name, spelling=spelling, chat=chat, tools=[by_name[tool] for tool in names])
        for name, names in tools.items()
    ]


LENGTH_REWARD = '''
def length(sample, episode, trajectory):
    """Differ between episodes of any team, so that there is something to learn from in every step."""
    return float(sum(len(turn.reply_ids) for turn in trajectory.turns) % 7)
'''


@pytest.fixture(scope="session")
def start_program():
    """Give a function that starts a program of this checkout in a folder, whose modules it finds too."""

    def start(module, *arguments, cwd):
        paths = os.pathsep.join([str(Path(__file__).parents[1]), str(cwd)])
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def small_run(start_program, tmp_path_factory):
    """The folder of a whole small run with transformers engines and five training steps, made by the program itself.

    Beside it lie its videos, its reward and what it printed.
    """
    place = tmp_path_factory.mktemp("small")
    (place / "length_reward.py").write_text(LENGTH_REWARD)
    reward = "{_target_: m1lite.rewards.compose.WeightedTerm, term: {_target_: hydra.utils.get_method, path: %s}}"
    settings = [
        "debug=smoke engine=hf sft.cold_start.schedule.seconds=2 collaboration.episodes=3",
        "trainer.max_steps=5 trainer.val_check_interval=2",
        "world.num_train=6 world.num_val=2 world.num_test=2 evaluation.controls=false evaluation.num_draws=100",
        f"callbacks.checkpoint.every_n_steps=3 cache_dir={place / 'cache'} hydra.run.dir={place / 'run'}",
    ]
    length = "+rewards.terms.length=" + reward % "length_reward.length"
    process = start_program("m1lite.train", *" ".join(settings).split(), length, cwd=place)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout + stderr
    (place / "printed.txt").write_text(stdout)
    return place / "run"


@pytest.fixture
def program(monkeypatch, capfd, tmp_path):
    """Give a function that runs a program of the package in this process and in an empty folder.

    It returns the exit code and what was printed to stdout and to stderr.
    """
    monkeypatch.chdir(tmp_path)

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        capfd.readouterr()
        try:
            importlib.import_module(module).main()
            code = 0
        except SystemExit as ended:
            code = ended.code
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def vision_bases(tmp_path_factory):
    """Family to the directory of a tiny vision-language base with random weights."""
    from m1lite.modules.tiny_vision import save_tiny_vision_base

    folder = tmp_path_factory.mktemp("vision")
    for seed, family in enumerate(("qwen2_5_vl", "qwen3_vl")):
        save_tiny_vision_base(folder / family, family, seed=seed)
    return {family: folder / family for family in ("qwen2_5_vl", "qwen3_vl")}


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A video of 8 s at 2 frames a second, 72 x 96 pixels, each frame of other random blocks."""
    from m1lite.video.writer import write_video

    coarse = torch.randint(0, 256, (16, 3, 6, 8), generator=torch.Generator().manual_seed(1)).float()
    frames = torch.nn.functional.interpolate(coarse, scale_factor=12).to(torch.uint8)
    path = tmp_path_factory.mktemp("clips") / "blocks.mp4"
    write_video(path, frames, fps=2)
    return str(path)
