"""Does the fit of products with few rows find again what made its table, and is a product of few columns a chain?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfmodel.benchmarks.fit.regression import Fit
from perfmodel.benchmarks.fit.served import law_text, products
from perfmodel.benchmarks.fit.served.tables import NOT_ITS_OWN, PRODUCTS, ProductTable, ServedTables
from perfmodel.count.serving.forward_pass import ServedProduct
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.questions.serving.served_models import serving_profile
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.timing.serving.products import product_time_s

GPU = "h100-sxm-80gb"
TABLE = ProductTable(family="sglang", version="0.5.14", precision="fp8", number="fp8")
TRUTH = {"fixed_s": 4e-6, "efficiency": 0.85, "inner_s": 8e-10, "inner_power": 1.7}


class MadeUpTables(ServedTables):
    """The gemm table of the package, with a shape that was timed twice and formats that were not asked for."""

    def __init__(self) -> None:
        """Nothing is read."""

    def _rows(self, gpu: str, family: str, file: str, library: str, version: str) -> pd.DataFrame:
        assert (gpu, family, file, library, version) == (GPU, "gemm", "gemm", "sglang", "0.5.14")
        rows = [
            (1, 512, 512, 0.004, "fp8"),
            (1, 512, 512, 0.006, "fp8"),
            (1, 512, 512, 9.0, "bfloat16"),
            (2, 512, 512, 0.005, "fp8"),
        ]
        return pd.DataFrame(rows, columns=["m", "n", "k", "latency", "gemm_dtype"])


def timed(values: dict[str, Any], sizes: pd.DataFrame) -> np.ndarray[Any, Any]:
    """What products of some sizes take by a law."""
    setup = products.products_setup(GPU, TABLE)
    product = ServedProduct(
        name="it",
        repeats=1,
        rows=sizes.m.to_numpy(dtype=float),
        columns=sizes.n.to_numpy(dtype=float),
        inner=sizes.k.to_numpy(dtype=float),
        precision=setup.circuits,
        weight_bytes=setup.weights.bytes,
        law=setup.weights.law,
        beside=False,
    )
    return np.asarray(product_time_s(product, products.with_law(setup, values))[0])


def sizes() -> pd.DataFrame:
    """Few rows of wide and narrow products."""
    some = (256, 1024, 4096, 16384, 40960)
    return pd.DataFrame([(m, n, k) for m in (1, 8, 32) for n in some for k in some], columns=["m", "n", "k"])


def found_law() -> Fit:
    """The fit of the made-up times."""
    rows = sizes()
    return products.fit_products(products.products_setup(GPU, TABLE), rows.assign(seconds=timed(TRUTH, rows)))


def test_the_law_that_made_a_table_is_found_again() -> None:
    """All four numbers, and shapes that were left out are met."""
    fit = found_law()
    assert fit.found == pytest.approx(TRUTH, rel=0.03)
    assert fit.held_out_error()["p90"] < 0.01


def test_few_columns_take_as_long_as_the_chain_over_the_inner_size() -> None:
    """However few they are; many take as long as they are read, and neither is ever faster than alone."""
    few = pd.DataFrame([(1, n, 16384) for n in (1, 8, 64)], columns=["m", "n", "k"])
    assert timed(TRUTH, few) == pytest.approx(4e-6 + 16384 * 8e-10, rel=0.02)
    many = pd.DataFrame([(1, 10**6, 4096)], columns=["m", "n", "k"])
    assert timed(TRUTH, many) == pytest.approx(timed(TRUTH | {"inner_s": 0.0}, many), rel=1e-3)
    both = sizes()
    assert np.all(timed(TRUTH, both) >= timed(TRUTH | {"inner_s": 0.0}, both))
    assert np.all(timed(TRUTH, both) <= timed(TRUTH | {"inner_s": 0.0}, both) + 8e-10 * both.k.to_numpy() + 1e-15)


def test_a_table_is_read_by_its_format_in_seconds() -> None:
    """The median of a shape that was timed twice."""
    rows = MadeUpTables().linears(GPU, TABLE)
    assert rows.seconds.tolist() == pytest.approx([5e-6, 5e-6])
    assert rows.m.tolist() == [1, 2]


def test_rows_of_sizes_that_are_not_served_play_no_part() -> None:
    """Nor do many rows, whose arithmetic is that of any engine."""
    rows = pd.DataFrame([(1, 512, 512), (65, 512, 512), (1, 128, 512), (1, 512, 65536)], columns=["m", "n", "k"])
    assert products.chosen_rows(rows).to_numpy().tolist() == [[1, 512, 512]]


def test_matrices_that_a_cache_keeps_between_runs_play_no_part() -> None:
    """Those of a card with 96 MB of cache are read faster than its memory is."""
    rows = pd.DataFrame([(1, 4096, 3906), (1, 4096, 3907)], columns=["m", "n", "k"])
    assert products.chosen_rows(rows, 16e6).to_numpy().tolist() == [[1, 4096, 3907]]
    of_cards = {table.least_bytes for gpu in ("l40s", "rtx-pro-6000-server") for table in PRODUCTS[gpu]}
    assert of_cards == {32e6}
    assert {table.least_bytes for table in PRODUCTS["b200"]} == {0.0}


def test_a_law_says_what_arithmetic_takes_in_any_engine() -> None:
    """With the numbers of the fit, under the family of the engine; no other line of a file changes."""
    text = (DATA / "serving" / f"{GPU}.yaml").read_text(encoding="utf-8")
    law = law_text.product_law(TABLE, products.products_setup(GPU, TABLE), found_law())
    changed = law_text.replaced(text, law)
    differs = [new for old, new in zip(text.splitlines(), changed.splitlines(), strict=True) if old != new]
    assert [line.split(":")[0].strip() for line in differs] == list(TRUTH)
    any_law = serving_profile(GPU).small_products["fp8"]
    assert law.lines[1].startswith(f"    computing: {{value: {float(np.asarray(any_law.computing))}, ")


def test_every_law_of_products_that_is_shipped_has_its_table() -> None:
    """And no table is fitted that nothing is shipped of; those that do not stand for an engine are not."""
    for gpu, tables in PRODUCTS.items():
        profile = serving_profile(gpu)
        laws = [f"{table.family}-{products.products_setup(gpu, table).weights.law}" for table in tables]
        shipped = read_mapping(DATA / "serving" / f"{gpu}.yaml")["small_products"]
        assert sorted(laws) == sorted(name for name in shipped if "-" in name)
        assert all(table.precision not in NOT_ITS_OWN.get(table.family, ()) for table in tables)
        for family in ("trtllm", "sglang", "hf"):
            own = f"{family}-fp8"
            assert profile.product_law("fp8", family) == (own if own in profile.small_products else "fp8")
