"""Where the YAML files are, and what is wrong with a configuration, said before anything starts.

``entry`` wraps the main function of a program: it checks the command line with Hydra's own composition and then hands
over to Hydra. Values are checked where they are used; here are only names that must exist and keys that cannot work.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")
PACKAGE = Path(__file__).resolve().parent
REFUSED = {
    "trainer.gradient_clip_val": (None, "marl.max_grad_norm"),
    "trainer.gradient_clip_algorithm": (None, "marl.max_grad_norm"),
    "trainer.accumulate_grad_batches": (1, "marl.micro_batch_tokens"),
}
"""Keys that Lightning refuses under manual optimisation: the value that is harmless, and the key to use instead."""


class ConfigError(ValueError):
    """A configuration that cannot run: names the key, its value, what exists and the remedy."""


def conf_dir(package: Path = PACKAGE) -> Path:
    """Find the YAML files: inside the installed package, or beside it in a checkout.

    Raises:
        ConfigError: if they are in neither place.
    """
    places = [package / "conf", package.parent / "conf"]
    for place in places:
        if (place / "train.yaml").is_file():
            return place
    raise ConfigError(f"No train.yaml in {places[0]} or {places[1]}; install m1lite again, or run it from a checkout.")


def listed(**parts: T) -> list[T]:
    """Return the values of a mapping: YAML names every part, so that one can be overridden or removed by name.

    Example:
        >>> listed(first=1, second=2)
        [1, 2]
    """
    return list(parts.values())


def entry(
    task: Callable[[DictConfig], T], config_name: str = "train", *, texts: Sequence[str] = ()
) -> Callable[[], T | None]:
    """Make a program's main function out of one that takes a composed configuration.

    A wrong command line or configuration ends with its message on stderr and exit code 2, before Hydra makes a folder.
    A run that is continued (``resume=``) writes into its own folder and takes keys of its own configuration.

    Args:
        task: the program.
        config_name: the YAML that it starts from.
        texts: keys whose value is taken as it stands, whatever signs it holds.
    """

    def main() -> T | None:
        arguments = sys.argv[1:] = [_quoted(argument, texts) for argument in sys.argv[1:]]
        try:
            folder = conf_dir()
            # With any other flag Hydra prints something or takes another folder: that is Hydra's alone.
            if all(not argument.startswith("-") or argument in ("-m", "--multirun") for argument in arguments):
                overrides = [argument for argument in arguments if not argument.startswith("-")]
                flags = [argument for argument in arguments if argument.startswith("-")]
                sys.argv[1:] = [*flags, *_checked(overrides, config_name, folder)]
        except ConfigError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
        return hydra.main(version_base="1.3", config_path=str(folder), config_name=config_name)(task)()

    return main


def _checked(overrides: Sequence[str], config_name: str, folder: Path) -> list[str]:
    """Check a command line and give the one for Hydra, which knows nothing of the run that is continued."""
    single = first_of_sweeps(overrides)
    values = {override.split("=", 1)[0]: override.split("=", 1)[-1] for override in single}
    run = values.get("resume", "null")
    if run == "null":
        check(compose(single, config_name=config_name, folder=folder))
        return list(overrides)
    kept = [override for override in overrides if override.startswith(("resume=", "hydra"))]
    config = compose([override for override in single if override in kept], config_name=config_name, folder=folder)
    check(resumed(config, single))
    place = [] if "hydra.run.dir" in values else [f"hydra.run.dir='{Path(run).resolve()}'", "hydra.output_subdir=null"]
    return [*kept, *place, *(f"++{override.lstrip('+')}" for override in overrides if override not in kept)]


def _quoted(argument: str, texts: Sequence[str]) -> str:
    """Quote the value of a text, so that Hydra reads no list, choice or sweep in its signs."""
    key, sign, value = argument.partition("=")
    if not sign or key not in texts or value[:1] + value[-1:] in ("''", '""'):
        return argument
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"{key}='{escaped}'"


def compose(overrides: Sequence[str], *, config_name: str = "train", folder: Path | None = None) -> DictConfig:
    """Compose a configuration as Hydra does for a command line.

    Args:
        overrides: such as ``["seed=1", "engine=hf"]``, without sweeps.
        config_name: the YAML to start from.
        folder: with the YAML files; ``None`` takes :func:`conf_dir`.

    Raises:
        ConfigError: if an override is not of the form ``key=value``, or names what does not exist.
    """
    folder = conf_dir() if folder is None else folder
    for override in overrides:
        key, _, value = override.partition("=")
        if value == "null" and key in _groups(folder):  # Hydra's own words for it name neither key nor remedy
            raise ConfigError(f"`{override}`: a group is left out with `~{key}`.")
    try:
        return _compose(overrides, config_name, folder)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, overrides, config_name, folder)) from error


def run_config(run: str | Path) -> DictConfig:
    """Read the configuration of an earlier run; its paths follow where the run's folder was moved.

    Args:
        run: the folder of a run.

    Raises:
        ConfigError: if the folder holds no run.
    """
    file = Path(run) / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{run} holds no config.yaml; name the folder of a run, under outputs/.")
    values: Any = OmegaConf.to_container(OmegaConf.load(file))
    before, now = str(values["output_dir"]), str(Path(run).resolve())
    return OmegaConf.create(_moved(values, before, now))


def find_run(run: str | None, root: str | Path = "outputs") -> Path:
    """Give the folder of a run: the one that is named, or the newest under ``root`` that came to its end.

    Raises:
        ConfigError: if there is none.
    """
    if run is not None:
        run_config(run)
        return Path(run)
    ends = [path for path in Path(root).glob("**/metrics.json") if (path.parent / "config.yaml").is_file()]
    if not ends:
        raise ConfigError(
            f"No finished run under {Path(root).resolve()}; train one, or name its folder with `run=...`."
        )
    return max(ends, key=lambda path: path.stat().st_mtime).parent


def _moved(node: Any, before: str, now: str) -> Any:
    if isinstance(node, dict):
        return {key: _moved(value, before, now) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value, before, now) for value in node]
    if isinstance(node, str) and (node == before or node.startswith(before + "/")):
        return now + node[len(before) :]
    return node


def resumed(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Give the configuration of the run that ``resume`` names, changed by the command line's values.

    Args:
        config: composed; returned as it is where ``resume`` is null.
        overrides: the command line, without sweeps.

    Raises:
        ConfigError: if the folder holds no run, or the command line names an unknown key or another group.
    """
    if config.get("resume") is None:
        return config
    try:
        found = run_config(config.resume)
    except ConfigError as error:
        raise ConfigError(f"`resume={config.resume}`: {error}") from None
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.get_key_element().lstrip("+~")
        if key == "resume" or key.split(".")[0] == "hydra":
            continue
        if key in REFUSED and override.value() not in (None, REFUSED[key][0]):
            raise ConfigError(_refused(key))
        node, name = _beside(found, key)
        if isinstance(node.get(name), DictConfig) or key in ("experiment", "debug"):
            raise ConfigError(f"`{override.input_line}` cannot change a resumed run; change single values only.")
        if name not in node:
            raise ConfigError(_no_key(key, name, node))
        OmegaConf.update(found, key, override.value())
    return found


def _beside(config: DictConfig, key: str) -> tuple[DictConfig, str]:
    """Follow a key as far as it exists: the last mapping, and the part of the key to look up in it."""
    node, parts = config, key.split(".")
    for part in parts[:-1]:
        if not isinstance(node.get(part), DictConfig):
            return node, part
        node = node[part]
    return node, parts[-1]


def first_of_sweeps(overrides: Sequence[str]) -> list[str]:
    """Replace every sweep of a multirun (``seed=1,2``) by its first value.

    Raises:
        ConfigError: if an override cannot be read.

    Example:
        >>> first_of_sweeps(["seed=3,4", "engine=hf"])
        ['seed=3', 'engine=hf']
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigError(_unreadable(error)) from error
    return [
        f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
        if override.is_sweep_override()
        else str(override.input_line)
        for override in parsed
    ]


def check(config: DictConfig) -> None:
    """Refuse what could only fail late.

    Raises:
        ConfigError: naming every key, its value, what is allowed and the remedy.
    """
    problems = [*_refused_keys(config), *_unknown_names(config), *_missing_values(config)]
    if problems:
        raise ConfigError("\n".join(problems))


def _refused_keys(config: DictConfig) -> list[str]:
    values = {key: OmegaConf.select(config, key) for key in REFUSED}
    return [_refused(key) for key, value in values.items() if value not in (None, REFUSED[key][0])]


def _refused(key: str) -> str:
    return f"`{key}` cannot be set: every agent has its own optimiser. Leave it out and use `{REFUSED[key][1]}=...`."


def _unknown_names(config: DictConfig) -> list[str]:
    """Check the names by which agents refer to bases and tools."""
    tools = _names(config, "toolbox.tools")
    bases = _names(config, "team.bases")
    problems = []
    for name in _names(config, "team.agents"):
        agent = config.team.agents[name]
        if agent.get("base") not in bases:
            problems.append(_unknown(f"team.agents.{name}.base", agent.get("base"), bases))
        problems += [_unknown(f"team.agents.{name}.tools", tool, tools) for tool in agent.tools if tool not in tools]
    return problems


def _missing_values(config: DictConfig) -> list[str]:
    raw = OmegaConf.to_container(config, resolve=False)
    return [f"`{key}` has no value; give `{key}=...`." for key, value in _leaves(raw, "") if value == "???"]


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield key, node
        return
    for name, value in node.items():
        yield from _leaves(value, f"{key}.{name}" if key else str(name))


def _names(config: DictConfig, key: str) -> list[str]:
    node = OmegaConf.select(config, key)
    return [str(name) for name in node if not str(name).startswith("_")] if node is not None else []


def _unknown(key: str, value: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(value), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"`{key}` names {value!r}, which does not exist; there are {' '.join(sorted(known))}.{hint}"


def _compose(overrides: Sequence[str], config_name: str, folder: Path) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        return hydra.compose(config_name, overrides=list(overrides))


def _explain(error: Exception, overrides: Sequence[str], config_name: str, folder: Path) -> str:
    """Turn Hydra's message into a short one that lists what exists."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return _unknown(group, choice, error.options or [])
    text = str(error)
    if found := re.match(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1], overrides, config_name, folder)
    return text.strip().splitlines()[0]


def _unreadable(error: OverrideParseException) -> str:
    return f"`{error.override}` cannot be read; write key=value, such as seed=1 or engine=hf."


def _unknown_key(key: str, overrides: Sequence[str], config_name: str, folder: Path) -> str:
    """List the keys beside an unknown one, as they are with the groups that were chosen."""
    if key in REFUSED:
        return _refused(key)
    chosen = [override for override in overrides if override.split("=")[0] in _groups(folder)]
    node, name = _beside(_compose(chosen, config_name, folder), key)
    return _no_key(key, name, node)


def _no_key(key: str, name: str, node: DictConfig) -> str:
    parent = node._get_full_key(None)
    known = [str(name) for name in node if not str(name).startswith("_")]
    where = f"in `{parent}`" if parent else "at the top"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else f" A new key is written +{key}=..."
    return f"Unknown key `{key}`; {where} there are {' '.join(sorted(known))}.{hint}"


def _groups(folder: Path) -> list[str]:
    return sorted(place.relative_to(folder).as_posix() for place in folder.rglob("*") if place.is_dir())
