"""Are values read with their spreads and sources, wherever they stand, and do plain ones read as before?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.presets import source_of
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.sources import run_sources
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.spec.run import Run

RUN = "nemotron-4-15b"
MINE = """
extends: megatron-core
name: mine
host:
  launch_s: {value: 7us, spread: 20%, source: our profiler}
  iteration_s: {value: 4ms, spread: {value: 30%, source: three runs}, source: our logs}
"""


def read(*settings: Any, run: Any = RUN) -> Run:
    """The run with these settings."""
    return read_candidates(run, settings)[0].run


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A setting that takes a stack of one's own."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    return f"stack={path}"


def test_a_value_with_its_parts_is_the_value() -> None:
    """Beside plain ones; the spread goes where specs have it, the sources to their key paths."""
    mapping = {"a": {"value": 1, "spread": 0.5, "source": "x"}, "b": 2, "c": [{"d": {"value": "3GB", "source": "y"}}]}
    assert separated(mapping) == (
        {"a": 1, "b": 2, "c": [{"d": "3GB"}], "spread": {"a": 0.5}},
        {"a": "x", "c[0].d": "y"},
    )


def test_plain_settings_stay_what_they_are() -> None:
    """Tables of spreads and of sources too."""
    plain = {"a": 1, "b": {"c": [1, 2], "spread": {"c": 0.1}}}
    assert separated(plain) == (plain, {})
    assert separated(plain | {"sources": {"b.c": "x", "": "y"}}) == (plain, {"b.c": "x", "": "y"})


def test_spreads_of_both_forms_stand_together() -> None:
    """One in a table, one beside its value."""
    settings, _ = separated({"a": {"value": 1, "spread": 0.5}, "b": 2, "spread": {"b": 0.1}})
    assert settings["spread"] == {"a": 0.5, "b": 0.1}


def test_a_source_beside_settings_is_that_of_those_which_have_none() -> None:
    """And of their spreads; a value's own comes first."""
    _, sources = separated({"part": {"source": "a table", "x": {"value": 1, "source": "a guess"}, "y": 2}})
    assert [source_of(f"part.{name}", sources) for name in ("x", "y", "spread.x", "spread.y")] == [
        *("a guess", "a table"),
        *("a guess", "a table"),
    ]


def test_a_stack_of_ones_own_may_be_written_so(mine: str) -> None:
    """Values, spreads, the rest of what it extends."""
    host, core = read(mine).stack.host, read().stack.host
    assert host.launch_s == pytest.approx(7e-6)
    assert host.iteration_s == pytest.approx(4e-3)
    assert host.spread == {**core.spread, "launch_s": 0.2, "iteration_s": 0.3}
    assert host.unlisted_work == core.unlisted_work


def test_its_sources_are_found(mine: str) -> None:
    """A spread has its own, or that of its number."""
    sources = run_sources(RUN, [mine])
    found = {path: source_of(f"stack.host.{path}", sources) for path in ("launch_s", "spread.launch_s", "spread.iteration_s")}
    assert found == {"launch_s": "our profiler", "spread.launch_s": "our profiler", "spread.iteration_s": "three runs"}


def test_a_value_of_ones_own_never_has_the_source_of_what_it_replaces() -> None:
    """It has none until somebody gives one."""
    run = {"model": RUN, "cluster": "dgx-h100", "stack": {"extends": "megatron-core", "host": {"launch_s": "7us"}}}
    sources = run_sources(run)
    assert source_of("stack.host.launch_s", sources) == ""
    assert source_of("stack.host.iteration_s", sources) == source_of("stack.host.iteration_s", run_sources(RUN))


def test_set_replaces_a_value_and_keeps_its_spread(mine: str) -> None:
    """A number, a factor of it, or a value with its parts."""
    assert read(mine, "stack.host.launch_s=9us").stack.host.launch_s == pytest.approx(9e-6)
    assert read(mine, "stack.host.launch_s=x2").stack.host.launch_s == pytest.approx(14e-6)
    assert read(mine, "stack.host.launch_s=x2").stack.host.spread["launch_s"] == 0.2
    given = read(mine, "stack.host.launch_s={value: 9us, spread: 10%, source: a guess}").stack.host
    assert given.launch_s == pytest.approx(9e-6)
    assert given.spread["launch_s"] == 0.1


def test_a_part_of_a_run_may_be_annotated() -> None:
    """The name of a preset, and the numbers of an inline part, by all who read runs."""
    cluster = {"extends": "dgx-h100", "compute_scale": {"value": 0.8, "spread": "3%", "source": "our clocks"}}
    run = {
        "model": {"value": RUN, "source": "the order"},
        "cluster": cluster,
        "stack": "megatron-core",
        "precision": "bf16",
        "tensor_parallel": {"value": 8, "source": "the launch script"},
        "sequence_length": 4096,
        "stages": [{"data_parallel": {"value": 96, "source": "a guess"}, "global_batch_size": 384}],
    }
    found = read(run=run)
    assert (found.tensor_parallel, found.stages[0].data_parallel, found.cluster.compute_scale) == (8, 96, 0.8)
    assert found.cluster.spread["compute_scale"] == 0.03
    assert source_of("cluster.compute_scale", run_sources(run)) == "our clocks"


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("{value: 7us, spred: 20%}", "stack.host.launch_s.spred: unknown key beside a value; did you mean spread?"),
        ("{value: {a: 1}}", "stack.host.launch_s.value: {'a': 1} where one value is needed"),
        ("{spread: 20%}", "stack.host.launch_s: "),
        ("{value: 7us, spread: 400%}", "stack.host.spread.launch_s: '400%' must be at most 3"),
    ],
)
def test_parts_that_are_none_get_one_sentence(entry: str, sentence: str) -> None:
    """With the path of the key."""
    with pytest.raises(InputError) as caught:
        read(f"stack.host.launch_s={entry}")
    assert str(caught.value).startswith(sentence)
