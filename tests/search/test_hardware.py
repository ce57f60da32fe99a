"""Do plans for several clusters stand side by side, each as its own plan gives it?"""

from __future__ import annotations

from typing import Any

import pytest

import perfmodel as pm
from perfmodel.report.text.plans.hardware import hardware_report
from perfmodel.report.text.terminal import as_text

pytestmark = pytest.mark.usefixtures("known_searches")

FEW: dict[str, Any] = {"gpus": 16, "global_batch_size": 64, "choose": {"recompute": "none", "context_parallel": 1}}


def test_each_cluster_has_the_plan_that_it_has_alone() -> None:
    """The same layout and time, in the order that was asked for."""
    found = pm.plan_hardware("llama-3.1-8b", ["dgx-h100", "dgx-b200"], **FEW)
    alone = pm.plan("llama-3.1-8b", cluster="dgx-b200", **FEW)
    rows = found.rows()
    assert [row["cluster"] for row in rows] == ["dgx-h100", "dgx-b200"]
    assert alone.best is not None
    assert rows[1]["iteration_time_s"] == alone.best.iteration_time_s
    assert rows[1]["tensor_parallel"] == alone.best.chain.layouts[-1].settings["tensor_parallel"]
    assert (found.fastest, found.cheapest) == ("dgx-b200", None)


def test_the_cheapest_has_the_least_dollars_for_as_many_tokens() -> None:
    """GPUs * price / rate: with a price each, the slower one may win."""
    found = pm.plan_hardware("llama-3.1-8b", ["dgx-h100", "dgx-b200"], price="1,100", **FEW)
    dear, cheap = found.rows()[1], found.rows()[0]
    assert (found.fastest, found.cheapest) == ("dgx-b200", "dgx-h100")
    hours = 1e9 / cheap["tokens_per_s"] / 3600
    assert cheap["dollars_per_billion_tokens"] == pytest.approx(16 * hours * 1.0, rel=1e-12)
    assert dear["dollars_per_gpu_hour"] == 100


def test_one_that_cannot_do_it_is_listed_with_the_reason() -> None:
    """An A100 has no FP8; where none can, that is the answer."""
    ask: dict[str, Any] = {**FEW, "choose": {**FEW["choose"], "precision": "fp8"}}
    found = pm.plan_hardware("llama-3.1-8b", ["dgx-a100", "dgx-h100"], **ask)
    assert found.unanswered == ("dgx-a100",)
    assert found.as_fast == ()
    assert "has no fp8 rate" in str(found.to_pandas().set_index("cluster").loc["dgx-a100", "refusal"])
    assert "Without an answer" in as_text(hardware_report(found), width=80)
    with pytest.raises(pm.NotSupportedError, match="dgx-a100: precision"):
        pm.plan_hardware("llama-3.1-8b", ["dgx-a100"], **ask)


def test_a_name_that_is_none_is_refused() -> None:
    """A slip is not a cluster without an answer."""
    for several in (["dgx-h100", "dgx-h1000"], "dgx-h100, dgx-h1000"):
        with pytest.raises(pm.InputError, match="'dgx-h1000' is not a preset of clusters"):
            pm.plan_hardware("llama-3.1-8b", several, **FEW)
    with pytest.raises(pm.InputError, match="no cluster is given"):
        pm.plan_hardware("llama-3.1-8b", [], **FEW)


def test_clusters_whose_intervals_meet_may_be_as_fast() -> None:
    """The same GPU on two networks, which 16 GPUs hardly use."""
    found = pm.plan_hardware("llama-3.1-8b", ["dgx-h100", "p5"], **FEW)
    assert len(found.as_fast) == 1
    assert "may be as fast" in as_text(hardware_report(found), width=80)


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit_their_columns(width: int) -> None:
    """With days and dollars, nothing is cut."""
    ask: dict[str, Any] = {**FEW, "tokens": "10B", "price": "on-demand"}
    text = as_text(hardware_report(pm.plan_hardware("llama-3.1-8b", ["p5", "coreweave-h200"], **ask)), width=width)
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= width
    assert text.count("such prices are soon stale") <= 2
