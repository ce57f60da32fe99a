"""Fits what all experts of a layer take in one kernel of an engine, from the package's tables of fused experts.

A row holds the two products of every expert, and what runs around them: choosing, moving tokens there and back, the function
between them. The latter is what a forecast counts of it (count/serving/forward_pass.py), and only the products are fitted.
Their law is that of the forecast, too (timing/serving/products.py, product_time_s).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few
from perfmodel.count.operators import MemoryBound
from perfmodel.count.roles import EXPERT_PRODUCTS, Role
from perfmodel.count.serving.forward_pass import ForwardPass, ServedOperator, ServedProduct, forward_operators
from perfmodel.exchange.questions.serving.served_models import engine_preset, serving_setup
from perfmodel.light_dataclass import replace
from perfmodel.spec.models.layer_parts import described
from perfmodel.spec.serving.profile import OF_FAMILY, ServedKernel
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.kernel_times import stacked
from perfmodel.timing.serving.forward_pass import operator_time_s
from perfmodel.timing.serving.products import SIZES, product_time_s

MODEL: Final = "mixtral-8x7b"  # gated experts and nothing beside them; the sizes are those of rows
AROUND: Final = (Role.PERMUTE, Role.EXPERT_ACTIVATION)
MOST_TOKENS: Final = 16384  # of a pass; more are rarely read at once
TOKENS: Final = tuple(2**power for power in range(15))  # tables have some between, which would weigh those twice
LEAST_HIDDEN, LEAST_INNER, MOST_SPREAD_OVER = 2048, 96, 8  # of models that are served inside a node
MODEL_SIZES: Final = ["hidden", "inner", "chosen", "experts"]
FOLDS: Final = 5  # of the shapes, each of which is held out once
FREE: Final = {
    "fixed_s": Free(start=1e-5, low=1e-6, high=1e-4),
    "efficiency": Free(start=0.8, low=0.1, high=1.0),
    "computing": Free(start=0.4, low=0.05, high=1.2),
    "overlap_power": Free(start=1.5, low=1.0, high=20.0),
    "inner_half": Free(start=100.0, low=0.0, high=1500.0),
    "choice_s": Free(start=1e-9, low=0.0, high=1e-7),
}


def chosen_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of shapes that are served, at powers of two of tokens."""
    served = (rows.hidden >= LEAST_HIDDEN) & (rows.inner / rows.tensor >= LEAST_INNER) & (rows.spread <= MOST_SPREAD_OVER)
    return rows[served & rows.tokens.isin(TOKENS)].reset_index(drop=True)


def read_in_time(setup: ServingSetup, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of models all of whose rows take as long as memory needs to read the experts that balanced tokens meet.

    Of the others the timed tokens met fewer: a router that chooses groups of experts first sent them to half of the groups.
    """
    products, _ = fused_experts(setup, rows)
    least_s = np.sum(products.read_bytes, axis=0) / setup.cluster.gpu.memory_bandwidth_bytes_per_s
    too_fast = rows.assign(too_fast=least_s > rows.seconds).groupby(MODEL_SIZES).too_fast.transform("any")
    return rows[~too_fast].reset_index(drop=True)


def folds(rows: pd.DataFrame) -> Floats:
    """Which fold each row is in: all of one hidden size, inner size a GPU and number of experts are in the same."""
    shape = [rows.hidden, rows.inner / rows.tensor, rows.experts]
    return np.asarray(rows.groupby(shape).ngroup().to_numpy() % FOLDS)


def fused_experts(setup: ServingSetup, rows: pd.DataFrame) -> tuple[ServedProduct, Floats]:
    """The products of all rows, the first of each expert above the second, and the seconds of what runs around both.

    `setup` says the GPU, the format and the engine, whose numbers for small kernels these are.
    """
    products: list[ServedProduct] = []
    around_s = np.zeros(len(rows))
    for _, alike in rows.groupby(["tensor", "spread"]):
        layout = _layout(setup, alike)
        tokens = alike.tokens.to_numpy(dtype=float)
        operators = forward_operators(layout, ForwardPass(sequences=tokens))
        served = [each for each in operators if isinstance(each, ServedProduct) and each.role in EXPERT_PRODUCTS]
        products += [_balanced(each, layout, tokens) for each in served]
        around_s[alike.index] = sum(operator_time_s(each, layout) for each in operators if _is_around(each))
    order = np.concatenate([alike.index for _, alike in rows.groupby(["tensor", "spread"])])
    first, second = (_joined(products[half::2], order) for half in (0, 1))
    return stacked([first, second], SIZES), around_s


def _layout(setup: ServingSetup, rows: pd.DataFrame) -> ServingSetup:
    """The server whose experts have the sizes of rows of one layout."""
    model, spread = setup.model, int(rows.spread.iloc[0])
    gpus = int(rows.tensor.iloc[0]) * spread
    sizes = {name: rows[name].to_numpy(dtype=float) for name in ("hidden", "inner", "chosen", "experts")}
    mixture = replace(
        described(model.mixture, "mixture"),
        experts=sizes["experts"],
        experts_per_token=sizes["chosen"],
        ffn_hidden_size=sizes["inner"],
    )
    model = replace(model, hidden_size=sizes["hidden"], mixture=mixture)
    return replace(setup, model=model, tensor_parallel=gpus, attention_replicas=gpus, expert_parallel=spread)


def _is_around(operator: ServedOperator) -> bool:
    if not isinstance(operator, MemoryBound):
        return False
    return operator.role in AROUND or operator.kernel == "route"


def _balanced(product: ServedProduct, setup: ServingSetup, tokens: Floats) -> ServedProduct:
    """The product with balanced routing, as tables have it, not random: n copies of tokens meet min(n, E) of E experts."""
    mixture = described(setup.model.mixture, "mixture")
    copies = np.maximum(tokens * mixture.experts_per_token / setup.expert_parallel, 1.0)
    met = np.minimum(copies, mixture.experts / setup.expert_parallel)
    return replace(product, repeats=1.0, batch=met, rows=copies / met)


def _joined(products: list[ServedProduct], order: Floats) -> ServedProduct:
    """One product with the numbers of several, back in the order of the rows they came from."""

    def numbers(name: str) -> Floats:
        each = [np.broadcast_to(np.asarray(getattr(product, name), float), np.shape(product.rows)) for product in products]
        return np.asarray(np.concatenate(each)[np.argsort(order)])

    sizes: dict[str, Any] = {name: numbers(name) for name in SIZES}
    return replace(products[0], **sizes)


def experts_setup(gpu: str, engine: str, precision: str) -> ServingSetup:
    """The server that rows of a table are counted on; sizes and layout are theirs, and no rank of experts is the busiest."""
    even = replace(engine_preset(engine), expert_scatter=None)
    return serving_setup(MODEL, gpu=gpu, engine=even, precision=precision)


def with_law(setup: ServingSetup, values: Mapping[str, Any]) -> ServingSetup:
    """The server whose experts have these numbers."""
    law = f"{setup.engine.family}{OF_FAMILY}{setup.weights.law}"
    return replace(setup, profile=replace(setup.profile, expert_products={law: ServedKernel(**values)}))


def fit_experts(setup: ServingSetup, rows: pd.DataFrame) -> Fit:
    """The law of one kernel, from chosen rows; errors are those of shapes that were left out."""
    products, around_s = fused_experts(setup, rows)

    def equation(values: Mapping[str, Any]) -> Floats:
        seconds, _ = product_time_s(products, with_law(setup, values))
        return np.asarray(np.sum(seconds, axis=0) + around_s)

    return fit_of_few(equation, FREE, rows.seconds.to_numpy(dtype=float), folds(rows))
