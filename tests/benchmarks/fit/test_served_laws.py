"""Do the fits of engines' own kernels find again what made their tables, and write it where it stands?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfmodel.benchmarks.fit.regression import Fit
from perfmodel.benchmarks.fit.served import __main__ as command
from perfmodel.benchmarks.fit.served import experts, law_text, state_steps
from perfmodel.benchmarks.fit.served.tables import EXPERTS, STEPS, ExpertTable, ServedTables
from perfmodel.benchmarks.fit.tables import NAMES, Package
from perfmodel.errors import InputError
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.questions.serving.served_models import serving_profile, serving_setup
from perfmodel.light_dataclass import replace
from perfmodel.timing.serving.products import product_time_s

GPU = "h100-sxm-80gb"
TRUTH = {
    "fixed_s": 9e-6,
    "efficiency": 0.8,
    "computing": 0.5,
    "overlap_power": 2.0,
    "inner_half": 200.0,
    "choice_s": 1e-9,
}
TABLE = ExpertTable(family="vllm", version="0.24.0", kernel="fused", precision="bf16", number="bfloat16")


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServedTables:
    """A package whose parquet tables are in a folder of the test, installed or not."""
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(Package, "__init__", lambda self: setattr(self, "root", tmp_path))
    return ServedTables()


def shapes() -> pd.DataFrame:
    """Shapes of fused experts on one and on several GPUs, without their times."""
    sizes = [(4096, 14336, 2, 8), (7168, 2048, 8, 256), (3072, 1536, 8, 256), (4096, 1024, 10, 512), (6144, 2048, 8, 64)]
    layouts = [(1, 1), (4, 1), (1, 8), (2, 4)]
    tokens = (1, 4, 16, 64, 256, 1024, 4096, 16384)
    rows = [(number, *size, *layout) for size in sizes for layout in layouts for number in tokens]
    return pd.DataFrame(rows, columns=["tokens", "hidden", "inner", "chosen", "experts", "tensor", "spread"])


def timed(rows: pd.DataFrame) -> pd.DataFrame:
    """The shapes with the times that TRUTH gives them."""
    setup = experts.experts_setup(GPU, "vllm", "bf16")
    products, around_s = experts.fused_experts(setup, rows)
    seconds, _ = product_time_s(products, experts.with_law(setup, TRUTH))
    return rows.assign(seconds=np.sum(seconds, axis=0) + around_s)


def found_law() -> Fit:
    """The fit of the made-up table."""
    return experts.fit_experts(experts.experts_setup(GPU, "vllm", "bf16"), timed(shapes()))


def test_the_law_that_made_a_table_is_found_again() -> None:
    """All its numbers, and shapes that were left out are met."""
    fit = found_law()
    assert fit.found == pytest.approx(TRUTH, rel=0.02)
    assert fit.held_out_error()["p90"] < 0.01


def test_rows_of_several_layouts_are_timed_as_each_alone() -> None:
    """Whatever layout stands beside a row, and in whatever order."""
    rows = shapes().sample(frac=1.0, random_state=3).reset_index(drop=True)
    together = timed(rows).seconds
    alone = [timed(rows[place : place + 1].reset_index(drop=True)).seconds[0] for place in range(0, len(rows), 7)]
    assert together[::7].to_numpy() == pytest.approx(np.array(alone))


def test_balanced_routing_wakes_as_many_experts_as_there_are_copies() -> None:
    """Four tokens of eight experts each meet 4 of the 32 that one of 8 GPUs has, 4,096 tokens all, 128 rows each."""
    rows = shapes()
    rows = rows[(rows.experts == 256) & (rows.spread == 8) & (rows.hidden == 7168) & rows.tokens.isin((4, 4096))]
    products, _ = experts.fused_experts(experts.experts_setup(GPU, "vllm", "bf16"), rows.reset_index(drop=True))
    assert np.asarray(products.batch)[0] == pytest.approx([4.0, 32.0])
    assert np.asarray(products.rows)[0] == pytest.approx([1.0, 128.0])


def test_a_shape_is_held_out_whole() -> None:
    """All numbers of tokens, and layouts with the same share of an expert, are in one fold; folds differ."""
    rows = shapes()
    fold = experts.folds(rows)
    per_shape = pd.Series(fold).groupby([rows.hidden, rows.inner / rows.tensor, rows.experts]).nunique()
    assert set(per_shape) == {1}
    assert set(fold) == set(range(experts.FOLDS))


def test_shapes_that_nobody_serves_are_left_out() -> None:
    """Narrow models, slivers of experts, numbers of tokens between powers of two."""
    served = pd.DataFrame([(64, 4096, 1024, 8, 64, 1, 1)], columns=list(shapes().columns))
    others = [{"hidden": 512}, {"inner": 64}, {"spread": 64}, {"tokens": 96}, {"tokens": 32768}]
    rows = pd.concat([served, *(served.assign(**other) for other in others)], ignore_index=True)
    assert len(experts.chosen_rows(rows)) == 1


def test_a_table_is_read_by_engine_kernel_format_and_routing(tables: ServedTables) -> None:
    """The median of a shape that was timed twice; milliseconds become seconds."""
    row: dict[str, Any] = {
        "kernel_source": "fused",
        "moe_dtype": "bfloat16",
        "distribution": "balanced",
        "latency": 0.01,
    }
    row |= dict(zip(("num_tokens", "hidden_size", "inter_size", "topk", "num_experts"), (1, 4096, 1024, 2, 8), strict=True))
    row |= {"moe_tp_size": 2, "moe_ep_size": 1}
    other = [{"kernel_source": "loop"}, {"moe_dtype": "fp8"}, {"distribution": "power_law_1.2"}]
    for version in ("0.19.0", "0.24.0"):
        path = tables.root / NAMES[GPU] / "moe" / "vllm" / version / "moe_perf.parquet"
        path.parent.mkdir(parents=True)
        pd.DataFrame([row, row | {"latency": 0.03}, *(row | each for each in other)]).to_parquet(path)
    read = tables.experts(GPU, TABLE)
    assert list(read.columns) == [*shapes().columns, "seconds"]
    assert read.seconds.tolist() == pytest.approx([2e-5])
    with pytest.raises(InputError, match=r"no moe table of vllm 0\.25"):
        tables.experts(GPU, ExpertTable(family="vllm", version="0.25", kernel="fused", precision="bf16", number="bfloat16"))
    with pytest.raises(InputError, match="no balanced rows of dense"):
        tables.experts(GPU, ExpertTable(family="vllm", version="0.24.0", kernel="dense", precision="bf16", number="bfloat16"))


def test_experts_dealt_out_count_only_where_a_table_divides_their_tokens(tables: ServedTables) -> None:
    """Of a table whose rows hold more than one GPU's tokens, those of one GPU are left."""
    sizes = {"num_tokens": 8, "hidden_size": 4096, "inter_size": 1024, "topk": 2, "num_experts": 8, "moe_tp_size": 2}
    row = {"kernel_source": "fused", "moe_dtype": "bfloat16", "distribution": "balanced", "latency": 0.01} | sizes
    path = tables.root / NAMES[GPU] / "moe" / "vllm" / TABLE.version / "moe_perf.parquet"
    path.parent.mkdir(parents=True)
    pd.DataFrame([row | {"moe_ep_size": spread} for spread in (1, 2, 8)]).to_parquet(path)
    assert tables.experts(GPU, TABLE).spread.tolist() == [1, 2, 8]
    assert tables.experts(GPU, replace(TABLE, dealt_out=False)).spread.tolist() == [1]


def test_sizes_whose_experts_no_memory_reads_in_time_are_left_out() -> None:
    """Where tokens met half of the experts, all rows of the model go, of other models none."""
    setup, rows = experts.experts_setup(GPU, "vllm", "bf16"), timed(shapes())
    half = rows.hidden == 7168
    met = rows.assign(seconds=rows.seconds.where(~half, rows.seconds / 2))
    assert experts.read_in_time(setup, rows).equals(rows)
    assert experts.read_in_time(setup, met).equals(rows[~half].reset_index(drop=True))


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_half_the_memory_rate_is_found_so(step: str) -> None:
    """Its start too; batches of more sequences than decode play no part."""
    heads = [(16, 32), (16, 64), (2, 4), (4, 16)]
    rows = pd.DataFrame(
        [(number, key, value, 4096) for key, value in heads for number in (1, 8, 64, 512, 4096)],
        columns=["sequences", "key_heads", "value_heads", "width"],
    )
    setup = serving_setup(state_steps.MODEL, gpu=GPU, engine="sglang")
    rate = float(np.asarray(setup.cluster.gpu.memory_bandwidth_bytes_per_s))
    seconds = 4e-6 + state_steps.step_bytes(setup, rows, step) / (0.5 * rate)
    fit = state_steps.fit_step(GPU, rows.assign(seconds=np.where(rows.sequences > 512, 1.0, seconds)), step)
    assert fit.found == pytest.approx({"fixed_s": 4e-6, "efficiency": 0.5}, rel=1e-3)


def test_a_law_takes_the_place_of_the_one_under_its_name() -> None:
    """Its numbers are in the text, and all other lines stay."""
    text = (DATA / "serving" / f"{GPU}.yaml").read_text(encoding="utf-8")
    law = law_text.expert_law(TABLE, "bf16", found_law())
    changed = law_text.replaced(text, law)
    before, after = text.splitlines(), changed.splitlines()
    place = after.index("  vllm-bf16:", after.index("expert_products:"))
    assert after[place + 3].startswith("    fixed_s: {value: 9us, ")
    assert "160 fused experts" in after[place + 2]
    assert before[:place] == after[:place]
    assert before[place + 8 :] == after[place + 8 :]


def test_a_file_without_the_law_is_refused() -> None:
    """Nothing is written elsewhere."""
    law = law_text.expert_law(TABLE, "int8_wo", found_law())
    with pytest.raises(InputError, match="has no vllm-int8_wo under expert_products"):
        law_text.replaced("expert_products:\n  vllm-bf16:\n    fixed_s: 1us\n", law)


def test_every_law_of_an_engine_that_is_shipped_has_its_table() -> None:
    """And no table is fitted that nothing is shipped of."""
    for gpu, tables in EXPERTS.items():
        profile = serving_profile(gpu)
        laws = [table.law(experts.experts_setup(gpu, table.family, table.precision).weights.law) for table in tables]
        assert sorted(laws) == sorted(name for name in profile.expert_products if "-" in name)


@pytest.mark.slow
def test_shipped_laws_are_those_of_the_package(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """To three digits, where the package is installed."""
    pytest.importorskip("aiconfigurator_core")
    tables = ServedTables()
    text = (DATA / "serving" / "a100-sxm-80gb.yaml").read_text(encoding="utf-8")
    for law in command.fitted("a100-sxm-80gb", tables):
        assert law_text.replaced(text, law) == text
    monkeypatch.setattr(sys, "argv", ["served", "a100-sxm-80gb"])
    command.main()
    assert "885 rows" in capsys.readouterr().out
