"""Every YAML file composes, names what exists with arguments that it takes, and the defaults instantiate."""

import inspect
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from m1lite.configuration import check, compose, conf_dir

CHOICES = sorted(
    f"{file.parent.relative_to(conf_dir()).as_posix()}={file.stem}" for file in conf_dir().glob("*/**/*.yaml")
)


COMPANIONS = {
    "team=tiny_seeing": ["toolbox=clips"],
    "toolbox=clips": ["team=tiny_seeing"],
    "rewards=vital": ["team=tiny_seeing", "toolbox=clips"],
    "sft=seeing": ["team=tiny_seeing", "toolbox=clips"],
    "debug=smoke_seeing": ["experiment=synthetic_vital"],
    "rewards=longvt": ["team=tiny_seeing", "toolbox=clips"],
    "rewards=time_r1": ["team=tiny_seeing", "toolbox=clips"],
    "rewards=timesearch_r": ["team=tiny_seeing", "toolbox=clips"],
    "rewards=video_r1": ["team=tiny_seeing", "toolbox=clips"],
    "rewards=videochat_r1": ["team=tiny_seeing", "toolbox=clips"],
    "rewards=videochat_r1_caption": ["team=tiny_seeing", "toolbox=clips"],
}
"""What a choice goes with."""


def composed(*overrides: str) -> DictConfig:
    companions = [other for choice in overrides for other in COMPANIONS.get(choice, [])]
    companions += ["experiment=videochat_r1_5" for choice in overrides if choice.startswith("inference=")]
    companions += ["toolbox=models" for choice in overrides if choice.startswith("backends/")]
    return compose([*overrides, "output_dir=/tmp/unused", "++root=/clips", *companions])


def targets(node):
    """Give every node with a ``_target_`` below a plain container, innermost first."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    for child in children:
        yield from targets(child)
    if isinstance(node, dict) and "_target_" in node:
        yield node


@pytest.mark.parametrize("choice", CHOICES)
def test_every_target_exists_and_takes_its_arguments(choice):
    config = composed(choice)
    check(config)
    nodes = list(targets(OmegaConf.to_container(config, resolve=True)))
    assert nodes
    for node in nodes:
        target = hydra.utils.get_object(node["_target_"])
        arguments = {key: value for key, value in node.items() if not key.startswith("_")}
        bind = inspect.signature(target).bind
        if node.get("_partial_") or any(isinstance(value, dict) for value in arguments.values()):
            bind = inspect.signature(target).bind_partial
        bind(*node.get("_args_", []), **arguments)
        if node["_target_"] in ("hydra.utils.get_object", "hydra.utils.get_method", "hydra.utils.get_class"):
            hydra.utils.get_object(node["path"])


def test_the_defaults_instantiate(tmp_path):
    config = compose(["debug=smoke", f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}"])
    # Without the conversion OmegaConf takes a dataclass that a target returns for one more configuration.
    nodes = {name: node for name, node in config.items() if isinstance(node, DictConfig)}
    parts = {name: hydra.utils.instantiate(node, _convert_="all") for name, node in nodes.items()}
    world, tasks = config.world, len(config.world.tasks)
    assert [len(parts["data"].split(name)) for name in ("val", "test")] == [
        world.num_val * tasks,
        world.num_test * tasks,
    ]
    videos = list((tmp_path / "cache").rglob("*.mp4"))
    assert len(videos) == world.num_train + world.num_val + world.num_test
    tools = {tool for agent in config.team.agents.values() for tool in agent.tools}
    assert tools == set(parts["toolbox"].names)
    assert parts["team"]["bases"]["qwen2"].model.config.model_type == "qwen2"
    assert callable(parts["rl"]["advantage"])
    assert parts["rewards"].keywords["terms"].keys() == {"result", "format", "collaboration"}


KEYS = Path(__file__).with_name("conf_keys.txt")
REWRITE = "python tests/test_conf.py > tests/conf_keys.txt"


def default_keys():
    """Give every key of the configuration that a plain ``python -m m1lite.train`` composes, lists as one key."""

    def keys(node, prefix):
        for name, value in node.items():
            yield from keys(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [f"{prefix}{name}"]

    return sorted(keys(OmegaConf.to_container(compose([]), resolve=False), ""))


def test_the_keys_are_those_of_the_list():
    """So that a configuration that grows shows it in the diff."""
    known, found = KEYS.read_text().splitlines(), default_keys()
    changes = [f"+{key}" for key in found if key not in known] + [f"-{key}" for key in known if key not in found]
    assert not changes, f"The default configuration's keys changed: {' '.join(changes)}. If wanted: {REWRITE}"
    assert known == found, f"{KEYS.name} is not in order; write it anew: {REWRITE}"


def test_an_unknown_task_is_named():
    config = compose(["world.tasks=[grounding,dancing]", "output_dir=/tmp/unused"])
    with pytest.raises(
        hydra.errors.InstantiationException, match=r"'dancing' is not a valid Task.; use grounding, choice, counting"
    ):
        hydra.utils.instantiate(config.world)


def test_a_second_training_leaves_the_tables_of_the_first(tmp_path):
    """The cold start and MARL each have a logger of their own, and a run that is continued has new ones."""
    for training in range(3):
        logger = hydra.utils.instantiate(compose(["logger=csv", f"output_dir={tmp_path}"]).logger)
        logger.log_metrics({"loss": float(training)}, step=training)
        logger.finalize("success")
    tables = sorted(tmp_path.glob("csv/*/metrics.csv"))
    assert [table.read_text().split() for table in tables] == [["loss,step", f"{n}.0,{n}"] for n in range(3)]


if __name__ == "__main__":
    print(*default_keys(), sep="\n")
