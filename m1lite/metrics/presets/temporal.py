"""Official protocols: temporal."""

from __future__ import annotations

from typing import Any

from m1lite.metrics.presets.base import Preset

PRESETS: tuple[Preset[Any], ...] = ()
