"""Is the table of axes the only place that names them, and sound?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import perfmodel
from perfmodel.errors import InputError
from perfmodel.exchange.presets import stack_preset
from perfmodel.spec.axes import AXES, BETWEEN_REPLICAS, FILLING, REPLICA_AXES, REPORTED, TENSOR, Axis, axis_named, in_groups
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import OF_A_STAGE, Run
from tests.layouts import RAMP_STAGE

PACKAGE = Path(perfmodel.__file__).parent
ROOMS = [path for path in PACKAGE.iterdir() if path.is_dir() and not path.is_symlink()]
FILE_FORMATS = {"published_runs.py"}  # a table of people has the columns that it has
NAMES = {name for axis in AXES for name in (axis.name, axis.label, axis.exposed_part)}


def test_every_axis_has_names_of_its_own() -> None:
    """Nothing is called like another."""
    for names in ([axis.name for axis in AXES], [axis.short for axis in AXES], [axis.label for axis in AXES]):
        assert len(set(names)) == len(AXES)
    assert {axis_named(axis.name) for axis in AXES} == set(AXES) == set(REPORTED)


def test_every_axis_has_a_degree() -> None:
    """A field of the layout, of one rank unless somebody asks for more, and of the run or its stages."""
    of_layout, of_run = ({entry.name for entry in fields(spec)} for spec in (Layout, Run))
    for axis in AXES:
        assert axis.name in of_layout
        assert axis.name in of_run or axis.name in OF_A_STAGE
        three: dict[str, Any] = {axis.name: 3}
        assert replace(RAMP_STAGE, **three).degree(axis) == 3
    assert RAMP_STAGE.gpus == RAMP_STAGE.ranks_of(REPLICA_AXES) * RAMP_STAGE.degree(FILLING)


def test_settings_of_an_axis_are_there() -> None:
    """Those of the layout, and those of the stack."""
    stack = stack_preset("megatron-core")
    for axis in AXES:
        for path in axis.settings:
            owner, _, inside = path.partition(".")
            assert hasattr(RAMP_STAGE, path) if owner != "stack" else attrgetter(inside)(stack) is not None


def test_an_axis_communicates_somewhere() -> None:
    """In the layers, between the stages or between the replicas."""
    with pytest.raises(InputError, match="anywhere is nowhere in an iteration; known: between"):
        replace(TENSOR, communicates="anywhere")


def test_ranks_of_one_group_are_neighbours() -> None:
    """Ranks that far apart, and no others between them, make a group."""
    inner, middle, outer = (replace(TENSOR, name=name) for name in ("inner", "middle", "outer"))
    joining = replace(outer, communicates=BETWEEN_REPLICAS, joins=("inner",))
    assert in_groups(middle, inner, joining) == (middle, inner, joining)
    with pytest.raises(InputError, match="outer joins inner, with middle between them"):
        in_groups(inner, middle, joining)
    with pytest.raises(InputError, match="outer joins inner, which is no axis"):
        in_groups(middle, joining)


def literals() -> Iterator[tuple[str, int, set[str]]]:
    """File, line and names of axes, of every tuple, list, set and mapping that is written out."""
    for path in (path for room in ROOMS for path in room.rglob("*.py") if path.name not in FILE_FORMATS):
        file = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if entries := node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", []):
                values = {str(entry.value) for entry in entries if isinstance(entry, ast.Constant)}
                yield file, getattr(node, "lineno", 0), values & NAMES


def test_no_other_list_names_the_axes() -> None:
    """What speaks of several axes derives from their table: a list of its own would not know the next one."""
    assert [(path, line, names) for path, line, names in literals() if len(names) > 1] == []


def test_an_unknown_axis_gets_a_hint() -> None:
    """One sentence."""
    with pytest.raises(InputError, match="did you mean tensor_parallel"):
        axis_named("tensor_paralel")
    assert isinstance(axis_named("data_parallel"), Axis)
