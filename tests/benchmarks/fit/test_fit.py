"""Do fits find the numbers that the times were made with, say how sure they are of them, and give the shipped ones again?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.benchmarks.fit import memory_bound
from perfmodel.benchmarks.fit.attention import kernels as attention
from perfmodel.benchmarks.fit.collectives import fit_kind, link_profile, node_rows
from perfmodel.benchmarks.fit.matmul import products
from perfmodel.benchmarks.fit.network import network_profile
from perfmodel.benchmarks.fit.profile import source_entry, write_profile
from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit, fit_of_few, held_out, spread_of_sums
from perfmodel.benchmarks.fit.tables import AIC_SOURCE, RECORDS_SOURCE, Package
from perfmodel.count.operators import Collective, FusedAttention, Matmul
from perfmodel.errors import MachineError
from perfmodel.exchange.presets import cluster_preset, gpu_preset, read_preset, settings
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.phases import FORWARD
from perfmodel.timing.attention import plain_attention_time_s
from perfmodel.timing.collectives import node_collective_time_s
from perfmodel.timing.kernels import plain_matmul_time_s

MOVED_BYTES = np.geomspace(1e6, 1e9, 60)
TRUE = {"start_s": 2.5e-5, "rate": 3e12}
FREE = {"start_s": Free(start=1e-5, low=1e-7, high=1e-3), "rate": Free(start=1e12, low=1e10, high=1e13)}
GROUPS = np.arange(60) // 3
H100 = "h100-sxm-80gb"


def line(values: Mapping[str, float]) -> Floats:
    """A start and a transfer."""
    return np.asarray(values["start_s"] + MOVED_BYTES / values["rate"])


def constant(rows: int, deviation: float, seed: int = 0) -> tuple[Callable[[Mapping[str, float]], Floats], Floats]:
    """`rows` times of 2 s, each off by its own error, and their equation t = c."""
    errors = np.random.default_rng(seed).normal(0.0, deviation, rows)
    return lambda values: np.full(rows, values["c"]), 2.0 * np.exp(errors)


def spread_of_constant(rows: int, deviation: float) -> float:
    """What a fit of `rows` times, four fifths of them seen, leaves open of their constant."""
    equation, seconds = constant(rows, deviation)
    return fit(equation, {"c": Free(start=1.0, low=0.1, high=10.0)}, seconds, np.arange(rows)).spread["c"]


@pytest.mark.parametrize("method", [fit, fit_of_few])
def test_a_fit_finds_the_numbers_that_the_times_were_made_with(method: Callable[..., Fit]) -> None:
    """And is right about the rows that it did not see, with nothing left open."""
    found = method(line, FREE, line(TRUE), GROUPS)
    assert found.found == pytest.approx(TRUE, rel=1e-3)
    assert found.held_out_error()["p90"] < 1e-3
    assert found.spread == {}


def test_one_wild_row_hardly_moves_a_fit() -> None:
    """Large errors count in proportion, not squared: ten times one time in sixty would move a mean by 4 %."""
    seconds = line(TRUE)
    seconds[np.flatnonzero(~held_out(GROUPS))[-1]] *= 10.0
    assert fit(line, FREE, seconds, GROUPS).found["rate"] == pytest.approx(TRUE["rate"], rel=0.02)


def test_coefficients_stay_between_their_bounds() -> None:
    """Even where the times ask for more."""
    free = FREE | {"rate": Free(start=1e12, low=5e11, high=2e12)}
    assert fit_of_few(line, free, line(TRUE), GROUPS).found["rate"] == pytest.approx(2e12, rel=1e-3)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(0, 100))
def test_no_group_stands_on_both_sides_of_the_split(numbers: list[int], seed: int) -> None:
    """Rows of one shape are all fitted, or all held out."""
    groups = np.asarray(numbers)
    out = held_out(groups, seed)
    assert not set(groups[out]) & set(groups[~out])


def test_one_group_in_five_is_held_out() -> None:
    """Of many, and always the same ones."""
    groups = np.arange(10_000)
    assert held_out(groups).mean() == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(held_out(groups), held_out(groups))


def test_rows_that_are_held_out_do_not_move_the_coefficients() -> None:
    """Only the rows that were fitted do."""
    seconds = line(TRUE)
    wrong = np.where(held_out(GROUPS), 3.0 * seconds, seconds)
    spoilt = fit(line, FREE, wrong, GROUPS)
    assert spoilt.found == fit(line, FREE, seconds, GROUPS).found
    assert spoilt.held_out_error()["median"] == pytest.approx(2.0 / 3.0, rel=0.01)


def test_every_group_is_predicted_without_itself() -> None:
    """Leave one group out: what is measured of a group does not touch its own prediction."""
    seconds = line(TRUE) * (1.0 + 0.01 * np.sin(np.arange(60)))
    before = fit_of_few(line, FREE, seconds, GROUPS)
    here = GROUPS == 7
    after = fit_of_few(line, FREE, np.where(here, 2.0 * seconds, seconds), GROUPS)
    assert before.out.all()
    assert np.array_equal(before.predicted_s[here], after.predicted_s[here])
    assert not np.array_equal(before.predicted_s[~here], after.predicted_s[~here])


def test_the_held_out_error_is_of_held_out_rows_only() -> None:
    """Median and 90th percentile, of all or of some."""
    predicted = np.array([1.1, 1.2, 1.3, 9.0])
    out = np.array([True, True, True, False])
    made = Fit(found={}, spread={}, predicted_s=predicted, measured_s=np.ones(4), out=out, cost=0.0)
    assert made.held_out_error() == {"rows": 3, "median": 0.2, "p90": 0.28}
    assert made.held_out_error(np.array([True, False, False, True])) == {"rows": 1, "median": 0.1, "p90": 0.1}


def test_the_spread_of_a_mean_is_its_standard_error() -> None:
    """1.645 * deviation / sqrt(rows), for errors that are small against the damping."""
    assert spread_of_constant(1000, 0.004) == pytest.approx(1.645 * 0.004 / np.sqrt(800.0), rel=0.1)


def test_the_spread_shrinks_with_more_rows() -> None:
    """As their square root: a sixteenth of the rows, four times the spread."""
    few, many = (spread_of_constant(rows, 0.01) for rows in (1000, 16_000))
    assert few / many == pytest.approx(4.0, rel=0.1)


def test_rows_that_err_together_leave_more_open() -> None:
    """Every row four times says no more than once: the spread is twice that of rows that are taken as independent."""
    _, once = constant(50, 0.005)
    grouped, apart = (
        fit_of_few(
            lambda values: np.full(200, values["c"]), {"c": Free(start=1.0, low=0.1, high=10.0)}, np.repeat(once, 4), groups
        )
        for groups in (np.arange(200) // 4, np.arange(200))
    )
    assert grouped.found == apart.found
    assert grouped.spread["c"] == pytest.approx(2.0 * apart.spread["c"], rel=0.06)  # two digits are kept


@pytest.mark.parametrize("number", [1, 4, 16])
def test_independent_errors_average_out_in_a_sum(number: int) -> None:
    """90 % of sums of n are off by less than 1.645 * deviation / sqrt(n)."""
    errors = np.random.default_rng(1).normal(0.0, 0.05, 20_000)
    assert spread_of_sums(errors, number) == pytest.approx(1.645 * 0.05 / np.sqrt(number), rel=0.06)


def test_equal_errors_do_not_average_out() -> None:
    """What all kernels share stays."""
    assert spread_of_sums(np.full(10, 0.03), 100) == pytest.approx(0.03)


def products_of(efficiency: float) -> pd.DataFrame:
    """A table of products timed by the H100's law with another efficiency."""
    gpu = gpu_preset(H100)
    sides = np.array([256, 1024, 2048, 4096, 8192])
    m, n, k = (axis.ravel() for axis in np.meshgrid(np.array([512, 1025, 2048, 4097, 16384]), sides, sides))
    known = gpu.matmul("bf16")
    values = {name: getattr(known, name) for name in type(known).__dataclass_fields__} | {"efficiency": efficiency}
    call = Matmul(name="gemm", rows=m, columns=n, inner=k, precision="bf16")
    seconds = plain_matmul_time_s(call, type(known)(**values), gpu=gpu, compute_scale=1.0)
    table = pd.DataFrame({"m": m, "n": n, "k": k, "seconds": seconds})
    return table.assign(library="one", kernel="", precision="bf16")


def test_products_made_by_their_law_are_fitted_to_a_thousandth() -> None:
    """With no error on held-out shapes, and none left in the sum of a layer's products."""
    found = products.fit_products(products_of(0.75), gpu_preset(H100), "bf16")
    errors = found.errors()
    assert errors["large"]["p90"] < 5e-3
    assert errors["slices"]["p90"] < 5e-3
    coefficients = found.coefficients()
    assert coefficients["efficiency"] == pytest.approx(0.75, rel=0.01)
    assert coefficients["spread"]["efficiency"] < 5e-3
    assert coefficients["tiles"][0]["rate"] == 1.0


def attention_of(lengths: tuple[int, ...], sequences: int) -> pd.DataFrame:
    """A serving library's table of causal attention, timed by the H100's forward law."""
    gpu = gpu_preset(H100)
    shapes = product((16, 32, 64), (1, 4), (64, 128), lengths)
    rows = pd.DataFrame(
        [(heads, heads // share, size, length) for heads, share, size, length in shapes],
        columns=["heads", "kv_heads", "head_size", "sequence_length"],
    )
    length = rows.sequence_length.to_numpy(dtype=float)
    call = FusedAttention(
        name="core",
        phase=FORWARD,
        sequences=float(sequences),
        heads=rows.heads.to_numpy(dtype=float),
        kv_heads=rows.kv_heads.to_numpy(dtype=float),
        head_size=rows.head_size.to_numpy(dtype=float),
        query_length=length,
        key_length=length,
        causal=True,
        precision="bf16",
    )
    seconds = plain_attention_time_s(call, gpu.kernels.attention_forward, gpu=gpu, compute_scale=1.0)
    return rows.assign(sequences=sequences, seconds=seconds, library="sglang-1", direction="forward", mask="causal")


def test_attention_made_by_its_law_is_fitted_again() -> None:
    """Head size by head size, with no error on groups of heads that were held out."""
    table = attention_of((512, 1024, 2048, 4096, 8192, 16384), sequences=8)
    found = attention.fit_serving(table, H100, gpu_preset(H100))
    assert found.fit is not None
    assert found.fit.held_out_error()["p90"] < 0.01
    known = gpu_preset(H100).kernels.attention_forward
    assert found.coefficients["efficiency"] == pytest.approx(known.efficiency, rel=0.02)
    assert found.coefficients["by_head_size"]["64"] == pytest.approx(known.by_head_size["64"], rel=0.02)


def test_a_twin_is_as_much_faster_as_its_tables_say() -> None:
    """The median ratio of the same long kernels; the law carried over is that of the twin, at that ratio."""
    table = attention_of((8192, 16384), sequences=8)
    assert attention.speed_ratio(table, table.assign(seconds=2.0 * table.seconds), H100) == pytest.approx(2.0)
    twin = attention.AttentionFit(coefficients={"efficiency": 0.5, "growth": 0.1}, fit=None, rows=table)
    assert attention.carried_over(twin, 1.2).coefficients == {"efficiency": 0.6, "growth": 0.1}


def norms_of(rows: int, columns: int, seconds: float) -> pd.DataFrame:
    """One fused norm in both directions."""
    both = [(rows, columns, "fused", direction, seconds) for direction in ("forward", "backward")]
    return pd.DataFrame(both, columns=["rows", "columns", "kernel_class", "direction", "seconds"])


def test_norms_are_fitted_as_a_start_and_a_stream() -> None:
    """4 bytes a number forward, 6 backward; narrow norms, and those that fit in the cache, have no say."""
    gpu = gpu_preset("h200-sxm-141gb")
    shapes = [(rows, columns) for rows in (16384, 32768, 65536) for columns in (2048, 4096, 8192)]
    wide = [norms_of(rows, columns, 0.0) for rows, columns in shapes]
    table = pd.concat(wide, ignore_index=True)
    moved_bytes = table.rows * table["columns"] * table.direction.map({"forward": 4.0, "backward": 6.0})
    table["seconds"] = 5e-6 + moved_bytes / (0.8 * gpu.memory_bandwidth_bytes_per_s)
    absurd = [norms_of(10**6, 128, 1.0), norms_of(16, 4096, 1.0)]
    fits = memory_bound.fit_norms(pd.concat([table, *absurd], ignore_index=True), gpu)
    fused = fits["fused"]
    found = memory_bound.coefficients(fused["forward"], fused["backward"], basis="measured", moved="")
    assert found["fixed_s"] == pytest.approx(5e-6, rel=1e-3)
    assert (found["efficiency"], found["backward_efficiency"]) == pytest.approx((0.8, 0.8), rel=1e-3)
    assert found["spread"]["efficiency"] < 1e-3


def collectives_of(kind: str, ranks: tuple[int, ...]) -> pd.DataFrame:
    """One collective by the law of the H100's links, in one version that is right and two that are 10 % off either way."""
    cluster = cluster_preset("dgx-h100")
    sizes = [2.0**power for power in range(10, 31, 2)]
    rows = pd.DataFrame(
        [(kind, float(n), size) for n in ranks for size in sizes], columns=["operator", "ranks", "payload_bytes"]
    )
    group = ProcessGroup(name="node", ranks=rows.ranks.to_numpy(), stride=1)
    call = Collective(name=kind, kind=kind, payload_bytes=rows.payload_bytes.to_numpy(), group=group)
    seconds = np.asarray(node_collective_time_s(call, cluster=cluster))
    return pd.concat([rows.assign(version=str(off), seconds=seconds * off) for off in (0.9, 1.0, 1.1)], ignore_index=True)


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter", "all_to_all"])
def test_a_collective_made_by_its_law_is_fitted_again(kind: str) -> None:
    """The median version counts; every size is held out once."""
    rows = node_rows(collectives_of(kind, (2, 4, 8)))
    found = fit_kind(rows, kind, cluster_preset("dgx-h100"), switched=False)
    known = getattr(cluster_preset("dgx-h100").links.node.collectives, kind)
    assert len(rows) == 33
    assert found.held_out_error()["p90"] < 0.01
    assert found.found["bandwidth_bytes_per_s"] == pytest.approx(known.bandwidth_bytes_per_s, rel=0.01)
    assert found.found["latency_s"] == pytest.approx(known.latency_s, rel=0.05)


def numbers_of(profile: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a profile by its key path, and how long its lists are; what its sources say plays no part."""
    found = settings({key: value for key, value in profile.items() if key != "sources"})
    return {key: float(value) for key, value in found if isinstance(value, int | float)}


@pytest.mark.slow
def test_the_shipped_collectives_are_what_the_installed_tables_give() -> None:
    """One command writes them, and anyone can run it; pooled with another laboratory are the switch and lone calls alone."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("aiconfigurator_core")
    tables = {H100: Package().collectives(H100)}
    again = link_profile("nvlink-h100", H100, tables, cluster_preset("dgx-h100"))
    measured_here = link_profile("nvlink-h100", H100, tables, cluster_preset("dgx-h100"), RECORDS_SOURCE)
    assert measured_here["sources"]["all_gather"]["table"] == RECORDS_SOURCE.table
    shipped, _ = read_preset("collectives", "nvlink-h100")
    found, known = numbers_of(again), numbers_of(shipped)
    alone = [key for key in known if key != "call_s" and not key.startswith("switch_reduce")]
    assert len(alone) > 30
    assert {key: found[key] for key in alone} == pytest.approx({key: known[key] for key in alone}, rel=0.01)


def test_the_shipped_network_is_what_the_published_points_give() -> None:
    """network_points.yaml holds all of them."""
    shipped, _ = read_preset("collectives", "infiniband")
    assert numbers_of(network_profile()) == pytest.approx(numbers_of(shipped), rel=0.01)


def test_a_source_says_table_rows_date_and_held_out_error() -> None:
    """What `perfmodel show` puts into a sentence."""
    entry = source_entry(AIC_SOURCE, fit_of_few(line, FREE, line(TRUE), GROUPS), what="lines")
    assert set(entry) == {"what", "table", "version", "licence", "rows", "fitted", "held_out"}
    assert entry["rows"] == 60
    assert set(entry["held_out"]["all"]) == {"rows", "median", "p90"}


@given(st.floats(1e-12, 1e15) | st.integers(0, 10**9).map(float))
def test_a_written_number_is_read_again_as_a_number(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    """To four digits, whatever YAML 1.1 or 1.2 makes of an exponent."""
    path = tmp_path_factory.mktemp("profiles") / "profile.yaml"
    write_profile(path, {"number": value, "deeper": {"numbers": [value]}})
    read = read_mapping(path)
    assert isinstance(read["number"], float)
    assert read["number"] == pytest.approx(value, rel=1e-3)
    assert read["deeper"]["numbers"] == [read["number"]]


@pytest.mark.parametrize("value", [9e-06, 1.0, 1e12, 0.0, 17e-6, 5e-9])
def test_the_numbers_of_profiles_are_read_as_they_were(tmp_path: Path, value: float) -> None:
    """Those that PyYAML alone writes as text (9e-06) too."""
    write_profile(tmp_path / "profile.yaml", {"number": value})
    assert read_mapping(tmp_path / "profile.yaml") == {"number": value}


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Words that look like numbers stay words; short and long mappings alike."""
    profile = {
        "name": "Kernels of X",
        "matmul": {"bf16": {"efficiency": 0.825, "most_splits": 8, "tiles": [{"rows": 128, "columns": 256, "rate": 1.0}]}},
        "by_head_size": {"64": 0.768, "128": 1.0},
        "evidence": {"basis": "measured", "sizes": {"rows": " ".join(map(str, range(512, 9000, 256))), "ranks": "8"}},
        "sources": {"matmul.bf16": {"what": "x @ W^T: a table, with # and 'quotes'", "fitted": "2026-01-01", "rows": 7}},
    }
    write_profile(tmp_path / "folder" / "profile.yaml", profile)
    assert read_mapping(tmp_path / "folder" / "profile.yaml") == profile


@pytest.mark.parametrize("fails", ["writing YAML", "renaming"])
def test_a_profile_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """What was there stays, and nothing else is left."""
    path = tmp_path / "profile.yaml"
    path.write_text("old: 1\n")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if fails == "renaming":
        monkeypatch.setattr(Path, "replace", refuse)
    profile: dict[str, object] = {"a": 1.0, "b": object() if fails == "writing YAML" else 2.0}
    with pytest.raises(MachineError if fails == "renaming" else Exception, match=r"no space left|cannot represent"):
        write_profile(path, profile)
    assert [each.name for each in tmp_path.iterdir()] == ["profile.yaml"]
    assert path.read_text() == "old: 1\n"


@pytest.mark.parametrize("name", [H100, "h200-sxm-141gb", "b200", "gb200", "gb300", "b300", "a100-sxm-80gb", "l40s"])
def test_profiles_split_the_sums_that_a_fit_says_are_split(name: str) -> None:
    """Those of gradients in FP8 on Hopper, whose table is of fast accumulation; each with its spread and its source."""
    gpu, (_, sources) = gpu_preset(name), read_preset("kernels", name)
    for precision, known in gpu.kernels.matmul.items():
        split = products.SPLIT_ACCUMULATION.get((gpu.generation, precision))
        assert known.split_accumulator_factor == (split or 1.0)
        assert ("split_accumulator_factor" in known.spread) is (split is not None)
        if split is not None:
            assert sources[f"matmul.{precision}.split_accumulator_factor"] == products.SPLIT_SOURCE
