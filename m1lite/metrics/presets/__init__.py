"""Official protocols of benchmarks, one preset object each: reader of answers, metric with its arguments, report.

The classes' own defaults are the sane rules; a preset is for comparing with published numbers.
"""

from importlib import import_module
from typing import Any

from m1lite.metrics.presets.base import Preset

_FAMILIES = ("temporal", "tracking", "grounded_qa", "spatial", "choice", "caption")
"""Files of this folder that hold presets, each in its mapping ``PRESETS``."""

__all__ = ["Preset", "find_preset", "preset_names"]


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(_load())


def find_preset(name: str) -> Preset[Any]:
    """Return the preset of a name.

    Raises:
        ValueError: if there is none of that name; the message lists those that exist.
    """
    presets = _load()
    if name not in presets:
        raise ValueError(f"There is no preset {name!r}; there are {sorted(presets)}.")
    return presets[name]


def _load() -> dict[str, Preset[Any]]:
    families = (import_module(f"{__name__}.{family}") for family in _FAMILIES)
    return {preset.name: preset for family in families for preset in family.PRESETS}
