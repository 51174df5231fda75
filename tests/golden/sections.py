"""All sections that can be replayed. Each family of metrics has its own file; a section stands in one or more."""

from __future__ import annotations

from tests.golden import (
    replays_caption,
    replays_choice,
    replays_grounded_qa,
    replays_spatial,
    replays_temporal,
    replays_text,
    replays_tracking,
)
from tests.golden.cells import Section


def _merged() -> dict[str, Section]:
    """Join the sections of all families; a name such as "datasets" is used by several."""
    joined: dict[str, Section] = {}
    families = (
        replays_temporal,
        replays_tracking,
        replays_grounded_qa,
        replays_spatial,
        replays_choice,
        replays_caption,
        replays_text,
    )
    for family in families:
        for name, section in family.SECTIONS.items():
            held = joined.get(name, Section(fields={}, inputs=()))
            joined[name] = Section(
                fields={**held.fields, **section.fields},
                inputs=sorted({*held.inputs, *section.inputs}),
                exclusions=(*held.exclusions, *section.exclusions),
            )
    return joined


SECTIONS = _merged()
