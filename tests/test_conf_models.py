"""The YAML of the tools on models: every choice instantiates without a model, and single tools can be changed."""

import re
import shlex
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from m1lite.configuration import ConfigError, check, compose, conf_dir
from m1lite.toolbox import json_schema

CHOICES = sorted(f"backends/{file.parent.name}={file.stem}" for file in (conf_dir() / "backends").glob("*/*.yaml"))
EIGHT = [
    *("global_sampling", "video_retrieval", "image_retrieval", "time_step_retrieval", "rough_browser", "fine_browser"),
    *("grounding_tool", "spatial_tool"),
]


@pytest.fixture
def build(tmp_path):
    def made(*overrides):
        config = compose(["toolbox=models", f"output_dir={tmp_path}", f"cache_dir={tmp_path}", *overrides])
        check(config)
        return instantiate(config.toolbox)

    return made


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_makes_the_tools_and_no_model(build, tmp_path, choice):
    group, name = choice.split("=")
    model = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml")).get("model", "")
    missing = [f"{group.replace('/', '.')}.model=/missing"] if model and "${" not in model else []
    toolbox = build(choice, *missing)  # loading it would be an error
    assert list(toolbox.names)[:8] == EIGHT
    assert all(json_schema(toolbox[tool])["function"]["description"] for tool in toolbox.names)
    assert list(tmp_path.iterdir()) == []


def backend(toolbox, name, *path):
    found = toolbox[name].function.__self__
    for part in path:
        found = getattr(found, part)
    return found


def test_tools_share_models_and_the_index(build):
    toolbox = build("backends.viewer.model=/seer", "backends.encoder.model=/encoder")
    assert backend(toolbox, "rough_browser", "_viewer", "_source") is backend(
        toolbox, "get_caption", "_captioner", "_viewer", "_source"
    )
    assert backend(toolbox, "video_retrieval", "_relevance", "_model", "_source") is backend(
        toolbox, "seek_video_frames", "_relevance", "_model", "_source"
    )
    assert backend(toolbox, "get_caption", "_captioner", "_index") is backend(
        toolbox, "grounding_tool", "_grounder", "_relevance", "_index"
    )


def test_a_tool_can_be_left_out_and_agents_that_name_it_are_told(build):
    with pytest.raises(ConfigError, match=r"team\.agents\.bea\.tools` names 'spatial_tool', which does not exist"):
        build("~toolbox.tools.spatial_tool")
    tools = "[rough_browser,image_retrieval]"
    toolbox = build("~toolbox.tools.spatial_tool", f"team.agents.bea.tools={tools}", f"team.agents.dov.tools={tools}")
    assert "spatial_tool" not in toolbox.names


def test_one_tool_gets_a_backend_of_its_own(build):
    endpoint = "{_target_: m1lite.toolbox.backends.viewers.TransformersViewer, model: /other}"
    toolbox = build(f"toolbox.tools.fine_browser.family.viewer={endpoint}".replace(": ", ":"))
    assert "'/other'" in repr(backend(toolbox, "fine_browser", "_viewer"))
    assert "Qwen" in repr(backend(toolbox, "rough_browser", "_viewer"))
    by_words = build("backends/relevance=captions", "backends/grounder=relevance")
    assert backend(by_words, "grounding_tool", "_grounder", "_relevance", "_scorer").__class__.__name__ == "BM25"


def test_one_policy_bounds_videos_and_subtitles(build):
    toolbox = build("toolbox.frames.opener.policy.roots=[/videos]")
    assert backend(toolbox, "transcribe_speech", "_speech", "_subtitles", "_policy").roots == ["/videos"]


def test_the_table_of_tools_is_complete(build):
    text = (Path(__file__).parents[1] / "docs" / "toolbox.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    first = [row[0].strip(" `") for row in rows]
    needs = {file.parent.name for file in (conf_dir() / "backends").glob("*/*.yaml")}
    assert sorted(first) == sorted([*needs, *build().names])
    for need in needs:
        choices = rows[first.index(need)][1]
        assert {file.stem for file in (conf_dir() / "backends" / need).glob("*.yaml")} <= set(
            re.findall("`([^`]+)`", choices)
        )
    for line in re.findall("^python -m m1lite.train (.*)$", text, flags=re.MULTILINE):
        check(compose([*shlex.split(line), "output_dir=/tmp/unused"]))
