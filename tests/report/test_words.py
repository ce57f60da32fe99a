"""Has everything that a table or a figure may show a word, and only one?"""

from __future__ import annotations

from dataclasses import fields

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.report import words
from perfmodel.search.alternatives import SETTINGS as CHOSEN
from perfmodel.search.layouts.space import NUMERIC_SETTINGS
from perfmodel.spec.axes import AXES
from perfmodel.spec.run import SETTINGS
from perfmodel.timing.breakdown import PARTS


def test_every_part_has_a_label() -> None:
    """Of the iteration and of memory, in their order."""
    assert tuple(words.PARTS) == PARTS
    assert tuple(words.MEMORY) == tuple(part.name for part in fields(MemoryBytes))
    assert len(set(words.LABELS.values())) == len(words.LABELS)


def test_every_setting_has_its_words() -> None:
    """All of a layout, and all that a search chooses."""
    assert {*SETTINGS, *CHOSEN, *NUMERIC_SETTINGS} <= set(words.SETTINGS)
    assert len(set(words.SHORT.values())) == len(words.SHORT)


def test_degrees_are_those_of_the_axes() -> None:
    """And what belongs to one: pieces of a stage, copies of the shards."""
    assert {axis.name: axis.short for axis in AXES} | {"virtual_pipeline": "VP", "data_parallel_replicas": "copies"} == (
        words.SHORT_DEGREES
    )
    assert set(words.SHORT_DEGREES) - set(words.DEGREES) == {"data_parallel"}


def test_captions_name_what_is_counted() -> None:
    """Where there is a unit."""
    assert words.SETTINGS["pipeline_parallel"].caption == "pipeline parallel [stages]"
    assert words.SETTINGS["gpus"].caption == "GPUs"
