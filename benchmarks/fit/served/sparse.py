"""Fits what latent attention with an indexer takes beside the rest, from SGLang's tables of sparse attention in the package.

Scores of keys, their choice and attention of prompts over chosen ones were timed alone; what else an indexer runs is the time
of a whole attention module less that of one that takes over another layer's choice, less the products, scores and choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few
from perfmodel.benchmarks.fit.served.tables import ServedTables
from perfmodel.count.operators import MemoryBound
from perfmodel.count.roles import INDEX_PRODUCTS
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.count.serving.sparse import KeyChoice, SparseAttention
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.light_dataclass import replace
from perfmodel.spec.models.layer_parts import Indexer, described
from perfmodel.spec.serving.profile import INDEX_LAW, KeyChoiceKernel, SparseKernel, StreamedKernel
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import (
    key_choice_time_s,
    operator_time_s,
    small_kernel_time_s,
    sparse_attention_time_s,
)

MODEL: Final = "glm-5"
PRECISION: Final = "fp8_block"
BLOCK_HEADS: Final = 64  # DeepSeek-V3.2's 128 heads take twice as long as GLM-5's 64, and 8 as long as those
LEAST_ROWS, MOST_ROWS = 512, 16384  # of prompts whose attention is fitted
FEW_QUERIES: Final = 16
MOST_SEQUENCES, MOST_CONTEXT = 256, 32768
QUERIES_AND_BEFORE: Final = ["queries", "before"]
FOLDS: Final = 5
CACHES: Final = {"16bit": "bf16", "8bit": "fp8"}
FREE_CHOICE: Final = {
    "computing": Free(start=0.4, low=0.05, high=1.0),
    "score_s": Free(start=1e-11, low=1e-13, high=1e-9),
    "choose_s": Free(start=8e-6, low=1e-7, high=1e-4),
}
FREE_SPARSE: Final = {"key_s": Free(start=2e-10, low=1e-12, high=1e-8)}
FREE_INDEX: Final = {"fixed_s": Free(start=5e-6, low=1e-8, high=5e-5), "efficiency": Free(start=0.3, low=0.02, high=1.2)}


def sparse_setup(gpu: str, cache: str = "bf16") -> ServingSetup:
    """GLM-5 on 8 GPUs, as the modules of the tables have it."""
    return serving_setup(MODEL, gpu=gpu, engine="sglang", precision=PRECISION, kv_precision=cache, tensor_parallel=8)


def indexer_of(setup: ServingSetup) -> Indexer:
    """The indexer of the model. Errors: InputError where it has none."""
    return described(described(setup.model.latent, "latent").indexer, "indexer")


def fit_choice(gpu: str, tables: ServedTables) -> Fit:
    """Scores of prompts, and the choice of prompts and of a few queries; every fifth length held out once.

    Scores of a few queries are left out: the table has them from a kernel for prompts.
    """
    setup, rows = sparse_setup(gpu), tables.choices(gpu)
    indexer = indexer_of(setup)
    rows = rows[(rows.before <= MOST_CONTEXT) & (rows.before + rows["queries"] > indexer.tokens)]
    prompts = rows[(rows["queries"] >= LEAST_ROWS) & (rows["queries"] <= MOST_ROWS)]
    chosen = pd.concat([prompts, rows[rows["queries"] <= FEW_QUERIES]])
    scoring, choosing = _choice(prompts, indexer), replace(_choice(chosen, indexer), heads=0.0)

    def equation(values: Mapping[str, Any]) -> Floats:
        no_choice = dict(values) | {"score_s": 0.0, "choose_s": 0.0}
        pairs = ((scoring, no_choice), (choosing, values))
        return np.concatenate([key_choice_time_s(each, _with_choice(setup, law)) for each, law in pairs])

    seconds = np.concatenate([prompts.scored_s.to_numpy(dtype=float), chosen.seconds.to_numpy(dtype=float)])
    lengths = pd.concat([prompts, chosen]).groupby(QUERIES_AND_BEFORE).ngroup().to_numpy()
    return fit_of_few(equation, FREE_CHOICE, seconds, lengths % FOLDS)


def _choice(rows: pd.DataFrame, indexer: Indexer) -> KeyChoice:
    queries, before = (rows[name].to_numpy(dtype=float) for name in QUERIES_AND_BEFORE)
    return KeyChoice(
        name="choice",
        repeats=1,
        queries=queries,
        keys=before + 0.5 * (queries + 1.0),
        heads=indexer.heads,
        head_size=indexer.head_size,
        read_bytes=0.0,
        few=False,
    )


def _with_choice(setup: ServingSetup, law: Mapping[str, Any]) -> ServingSetup:
    return replace(setup, profile=replace(setup.profile, key_choice={INDEX_LAW: KeyChoiceKernel(**law)}))


def fit_sparse(gpu: str, tables: ServedTables, law: str) -> Fit:
    """Attention of prompts over chosen keys with one format of the cache; every other length held out once."""
    setup, rows = sparse_setup(gpu, CACHES[law]), tables.sparse_prompts(gpu, law)
    rows = rows[(rows["rows"] >= LEAST_ROWS) & (rows["rows"] <= MOST_ROWS)].reset_index(drop=True)
    attention = SparseAttention(
        name="core",
        repeats=1,
        rows=rows["rows"].to_numpy(dtype=float),
        keys=indexer_of(setup).tokens,
        heads=rows["heads"].to_numpy(dtype=float),
        head_size=1,
        value_size=1,
        key_bytes=1,
        law=law,
    )

    def equation(values: Mapping[str, Any]) -> Floats:
        profile = replace(setup.profile, sparse_attention={law: SparseKernel(block_heads=BLOCK_HEADS, **values)})
        return np.asarray(sparse_attention_time_s(attention, replace(setup, profile=profile)))

    return fit_of_few(equation, FREE_SPARSE, rows.seconds.to_numpy(dtype=float), rows.groupby("rows").ngroup().to_numpy() % 2)


def fit_index(gpu: str, tables: ServedTables, choice: Mapping[str, float]) -> Fit:
    """What else an indexer runs of single queries, its `choice` known; each number of sequences held out once."""
    setup, rows = _with_choice(sparse_setup(gpu), choice), tables.indexers(gpu)
    rows = rows[(rows.sequences <= MOST_SEQUENCES) & (rows.before <= MOST_CONTEXT)].reset_index(drop=True)
    tokens = ForwardPass(sequences=rows.sequences.to_numpy(dtype=float), context=rows.before.to_numpy(dtype=float) + 1.0)
    *others, kernel = _of_one_indexer(setup, tokens)
    around = sum(operator_time_s(each, setup) for each in others)

    def equation(values: Mapping[str, Any]) -> Floats:
        profile = replace(setup.profile, small_kernels={"index": StreamedKernel(**values)})
        return np.asarray(around + small_kernel_time_s(kernel, replace(setup, profile=profile)))

    return fit_of_few(equation, FREE_INDEX, rows.seconds.to_numpy(dtype=float), rows.groupby("sequences").ngroup().to_numpy())


def _of_one_indexer(setup: ServingSetup, tokens: ForwardPass) -> Iterator[Any]:
    """The products, scores and choice of the indexer of one layer; last the chain of kernels between them."""
    operators = forward_operators(setup, tokens)
    products = [each for each in operators if isinstance(each, ServedProduct) and each.role in INDEX_PRODUCTS]
    yield from products[: len(products) // len(setup.model.kinds)]
    yield next(each for each in operators if isinstance(each, KeyChoice))
    yield next(each for each in operators if isinstance(each, MemoryBound) and each.kernel == "index")
