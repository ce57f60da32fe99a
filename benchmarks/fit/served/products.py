"""Fits products of weights with few rows, as an engine's own kernels have them, from the package's gemm tables.

The law is that of the forecast (timing/serving/products.py, product_time_s): a start, reading, a chain over the inner size.
What arithmetic takes of many rows is that of any engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few
from perfmodel.benchmarks.fit.served.tables import ProductTable
from perfmodel.count.serving.forward_pass import ServedProduct
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.light_dataclass import replace
from perfmodel.spec.serving.profile import OF_FAMILY, ServedKernel
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.products import product_time_s

MODEL: Final = "llama-3.1-8b"  # only the formats of its weights count
MOST_ROWS: Final = 64
LEAST, MOST = 256, 40960  # columns and inner sizes
FOLDS: Final = 5
FREE: Final = {
    "fixed_s": Free(start=5e-6, low=1e-6, high=1e-4),
    "efficiency": Free(start=0.8, low=0.2, high=1.0),
    "inner_s": Free(start=5e-10, low=1e-12, high=1e-8),
    "inner_power": Free(start=1.6, low=1.0, high=10.0),
}


def chosen_rows(rows: pd.DataFrame, least_numbers: float = 0.0) -> pd.DataFrame:
    """Few rows of sizes of models that are served: m, n (columns), k (inner size), seconds; of n*k >= least_numbers."""
    served = rows.n.between(LEAST, MOST) & rows.k.between(LEAST, MOST) & (rows.n * rows.k >= least_numbers)
    return rows[served & (rows.m <= MOST_ROWS)].reset_index(drop=True)


def products_setup(gpu: str, table: ProductTable) -> ServingSetup:
    """The server whose products a table has, which has their cast with them."""
    setup = serving_setup(MODEL, gpu=gpu, engine=table.family, precision=table.precision)
    return replace(setup, engine=replace(setup.engine, cast_s=0.0))


def with_law(setup: ServingSetup, values: Mapping[str, Any]) -> ServingSetup:
    """The server whose products have these numbers."""
    own = ServedKernel(computing=any_engines(setup).computing, **values)
    law = f"{setup.engine.family}{OF_FAMILY}{setup.weights.law}"
    return replace(setup, profile=replace(setup.profile, small_products={setup.weights.law: own, law: own}))


def any_engines(setup: ServingSetup) -> ServedKernel:
    """The law of the format where an engine has none of its own."""
    return setup.profile.small_products[setup.weights.law]


def fit_products(setup: ServingSetup, rows: pd.DataFrame) -> Fit:
    """The law of one table, from chosen rows; all rows of every fifth shape are held out once."""
    rows_of, columns, inner = (rows[column].to_numpy(dtype=float) for column in ("m", "n", "k"))
    product = ServedProduct(
        name="product",
        repeats=1,
        rows=rows_of,
        columns=columns,
        inner=inner,
        precision=setup.circuits,
        weight_bytes=setup.weights.bytes,
        law=setup.weights.law,
        beside=False,
    )

    def equation(values: Mapping[str, Any]) -> Floats:
        return np.asarray(product_time_s(product, with_law(setup, values))[0])

    folds = rows.groupby(["n", "k"]).ngroup().to_numpy() % FOLDS
    return fit_of_few(equation, FREE, rows.seconds.to_numpy(dtype=float), folds)
