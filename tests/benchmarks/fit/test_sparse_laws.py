"""Do the fits of an indexer and of sparse attention find again what made their tables?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfmodel.benchmarks.fit.served import law_text, sparse
from perfmodel.benchmarks.fit.served.tables import ServedTables
from perfmodel.count.serving.forward_pass import ForwardPass
from perfmodel.exchange.presets import DATA
from perfmodel.light_dataclass import replace
from perfmodel.spec.serving.profile import StreamedKernel
from perfmodel.timing.serving.forward_pass import operator_time_s, small_kernel_time_s

GPU = "h200-sxm-141gb"
COMPUTING, SCORE_S, CHOOSE_S, KEY_S, INDEX_S, RATE = 0.5, 4e-12, 7e-6, 2.5e-10, 1.5e-5, 0.2
LENGTHS = (1, 8, 512, 1024, 2048, 4096, 8192, 16384, 65536)


class MadeUpTables(ServedTables):
    """Tables of the package as kernels of known laws would fill them."""

    def __init__(self) -> None:
        """Nothing is read."""

    def _rows(self, gpu: str, family: str, file: str, library: str, version: str) -> pd.DataFrame:
        assert (gpu, family, library, version) == (GPU, "sparse_attention", "sglang", "0.5.14")
        made = {
            "glm5_mqa_logits_module": scored,
            "glm5_topk_module": chosen,
            "glm5_dsa_attn_module": attended,
            "dsa_context_module": contexts,
            "dsa_generation_module": modules,
        }
        return made[file]()


def pairs() -> pd.DataFrame:
    """Lengths of queries, and of keys before them."""
    rows = [(1, isl, step) for isl in LENGTHS for step in (0, 512, 4096, 16384)]
    return pd.DataFrame(rows, columns=["batch_size", "isl", "step"])


def scored() -> pd.DataFrame:
    """32 heads of 128 numbers at half the peak of 8 bits."""
    rows, peak = pairs(), float(np.asarray(sparse.sparse_setup(GPU).cluster.gpu.peak("fp8")))
    scores = rows.isl * (rows.step + 0.5 * (rows.isl + 1))
    few = np.where(rows.isl < 512, 3.0, 1.0)  # a kernel for prompts is slow there
    return rows.assign(latency=1e3 * few * 2 * scores * 32 * 128 / (COMPUTING * peak), num_heads=64)


def chosen() -> pd.DataFrame:
    """Of scores that are alike, and that grow: half as long and half longer than the mean."""
    rows = pairs()
    seconds = CHOOSE_S + SCORE_S * rows.isl * (rows.step + 0.5 * (rows.isl + 1))
    seconds = seconds.where(rows.isl + rows.step > 2048, 0.0)
    return pd.concat([rows.assign(latency=1e3 * factor * seconds) for factor in (0.5, 1.5)], ignore_index=True)


def attended() -> pd.DataFrame:
    """2,048 keys a token."""
    return pairs().assign(latency=lambda rows: 1e3 * KEY_S * 2048 * rows.isl, num_heads=64)


def contexts() -> pd.DataFrame:
    """Modules that take over a choice: 1 ms, and half as much again for a cache in 8 bits; others are not read."""
    rows = [(isl, heads, kv) for isl in LENGTHS for heads in (8, 64) for kv in ("bfloat16", "fp8")]
    table = pd.DataFrame(rows, columns=["isl", "num_heads", "kv_cache_dtype"])
    more = np.where(table.kv_cache_dtype == "fp8", 1.5, 1.0)
    table = table.assign(latency=1.0 + 1e3 * more * KEY_S * 2048 * table.isl, batch_size=1, step=0, gemm_type="fp8_block")
    return pd.concat(
        [
            table.assign(kernel_source=f"{name}_indexer_x", latency=table.latency * factor)
            for name, factor in (("skip", 1.0), ("own", 9.0))
        ]
    )


def modules() -> pd.DataFrame:
    """With an indexer, and without one, which takes 40 us."""
    setup = sparse._with_choice(sparse.sparse_setup(GPU), {"computing": COMPUTING, "score_s": SCORE_S, "choose_s": CHOOSE_S})
    setup = replace(
        setup, profile=replace(setup.profile, small_kernels={"index": StreamedKernel(fixed_s=INDEX_S, efficiency=RATE)})
    )
    rows = [(batch, step) for batch in (1, 4, 16, 64, 256) for step in (16, 1024, 4096, 32768)]
    table = pd.DataFrame(rows, columns=["batch_size", "step"]).astype(float)
    tokens = ForwardPass(sequences=table.batch_size.to_numpy(), context=table.step.to_numpy() + 1.0)
    operators = list(sparse._of_one_indexer(setup, tokens))
    assert np.all(np.asarray(small_kernel_time_s(operators[-1], setup)) > INDEX_S)
    own = 1e3 * np.sum([np.broadcast_to(operator_time_s(each, setup), len(table)) for each in operators], axis=0)
    born: dict[str, Any] = {"gemm_type": "fp8_block", "tp_size": 8, "model": "zai-org/GLM-5", "kv_cache_dtype": "fp8"}
    both = (("a_skip_indexer_x", 0.04), ("an_indexer_x", 0.04 + own))
    return pd.concat([table.assign(kernel_source=name, latency=latency, **born) for name, latency in both])


def test_scores_and_choices_are_found_again() -> None:
    """Scores of a few queries, which a kernel for prompts made slow, play no part."""
    fit = sparse.fit_choice(GPU, MadeUpTables())
    assert fit.found == pytest.approx({"computing": COMPUTING, "score_s": SCORE_S, "choose_s": CHOOSE_S}, rel=0.01)
    assert fit.held_out_error()["p90"] < 0.01


@pytest.mark.parametrize(("law", "times"), [("16bit", 1.0), ("8bit", 1.5)])
def test_attention_over_chosen_keys_is_found_again(law: str, times: float) -> None:
    """Of a cache in 8 bits by how much more a whole module takes."""
    assert sparse.fit_sparse(GPU, MadeUpTables(), law).found == pytest.approx({"key_s": times * KEY_S}, rel=1e-3)


def test_what_else_an_indexer_runs_is_found_again() -> None:
    """Its products, scores and choice are known, and so is what both modules have."""
    choice = {"computing": COMPUTING, "score_s": SCORE_S, "choose_s": CHOOSE_S}
    fit = sparse.fit_index(GPU, MadeUpTables(), choice)
    assert fit.found == pytest.approx({"fixed_s": INDEX_S, "efficiency": RATE}, rel=0.01)


def test_one_indexer_is_that_of_one_layer() -> None:
    """Dense layers and those with experts have alike ones: three products, scores with a choice, one chain."""
    operators = list(sparse._of_one_indexer(sparse.sparse_setup(GPU), ForwardPass(sequences=1.0, context=1.0)))
    assert [each.name.rpartition(".")[2] for each in operators] == [
        "index_query",
        "index_key",
        "index_weight",
        "choice",
        "index",
    ]


def test_each_law_takes_its_own_place() -> None:
    """A cache in 8 bits has a law in three sections; nothing else of a file changes."""
    tables = MadeUpTables()
    text = (DATA / "serving" / f"{GPU}.yaml").read_text(encoding="utf-8")
    choice = sparse.fit_choice(GPU, tables)
    laws = [
        law_text.choice_law(choice),
        law_text.index_law(sparse.fit_index(GPU, tables, choice.found)),
        *(law_text.sparse_law(law, sparse.fit_sparse(GPU, tables, law)) for law in sparse.CACHES),
    ]
    for law in laws:
        changed = law_text.replaced(text, law)
        differs = [new for old, new in zip(text.splitlines(), changed.splitlines(), strict=True) if old != new]
        assert len(differs) == len(law.found)
        assert all(name in line for name, line in zip(law.found, differs, strict=True))
