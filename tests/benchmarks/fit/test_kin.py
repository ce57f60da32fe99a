"""Do tables of chips of one kind tell at which clocks the short products of each one's law ran?"""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from perfmodel.benchmarks.fit.matmul import kin
from perfmodel.exchange.presets import gpu_preset, read_preset

FIRST = gpu_preset("b200")
OTHER = replace(FIRST, name="other")
LASTING = (8192, 8192, 8192)


def table(factor: float, odd: float = 1.0) -> pd.DataFrame:
    """A chip whose products take `factor` as long as the first one's; in one of three libraries `odd` times that."""
    rows = [
        {"m": m, "n": n, "k": k, "library": library, "kernel": "", "precision": precision, "seconds": seconds * factor * one}
        for (m, n, k), seconds in ((LASTING, 4e-3), ((16384, 8192, 8192), 8e-3), ((512, 512, 512), 1e-5))
        for library, one in (("a", 1.0), ("b", 1.0), ("c", odd))
        for precision in ("bf16", "fp8", "nvfp4")
    ]
    return pd.DataFrame(rows)


def test_only_products_that_last_on_every_chip_are_compared() -> None:
    """And none of 4 bits, whose circuits differ between the chips."""
    lasting = kin.lasting_products({"first": table(1.0), "other": table(0.2)})
    assert set(lasting.index.get_level_values("m")) == {16384}  # 0.8 ms of the other product
    assert set(lasting.index.get_level_values("precision")) == {"bf16", "fp8"}
    assert list(lasting) == ["first", "other"]


def test_one_library_that_ran_on_a_bad_day_decides_nothing() -> None:
    """The median over libraries and formats; the chip that stands first is the measure."""
    lasting = kin.lasting_products({"first": table(1.0), "other": table(0.8, odd=1.7)})
    assert kin.limited_times(lasting) == pytest.approx({"first": 1.0, "other": 0.8})


@pytest.mark.parametrize("limited", [1.0, 0.8])
@pytest.mark.parametrize("burst", [1.0, 1.1**3])
def test_burst_clocks_are_what_a_law_gives_beyond_what_a_limit_leaves(limited: float, burst: float) -> None:
    """One of four laws is `burst` times as fast as its tables say: burst^(3/4) above the mean, others burst^(1/4) below."""
    lasting = kin.lasting_products({"first": table(1.0), "other": table(limited)})
    plain = replace(
        FIRST.matmul("fp8"),
        efficiency=0.6,
        fixed_s=0.0,
        k_half=0.0,
        memory_efficiency=1.0,
        overlap_power=50.0,
        split_traffic=0.0,
    )
    slower = replace(plain, efficiency=plain.efficiency / limited)
    faster = replace(slower, efficiency=slower.efficiency * burst, slowdown=0.5)
    laws = {("first", "bf16"): plain, ("first", "fp8"): plain, ("other", "bf16"): slower, ("other", "fp8"): faster}
    found = kin.burst_clocks(laws, {"first": FIRST, "other": OTHER}, lasting)
    assert found == pytest.approx(dict.fromkeys(laws, burst**-0.25) | {("other", "fp8"): burst**0.75}, rel=0.01)


def test_a_new_law_is_held_against_what_its_kin_have_now() -> None:
    """One of eight laws that becomes a fifth slower falls by 7/8 of that, and the chip's other one rises by an eighth of it."""
    laws = {each: replace(gpu_preset("gb200").matmul(each), fixed_s=0.0, memory_efficiency=1.0) for each in kin.FORMATS}
    slower = laws | {"fp8": replace(laws["fp8"], efficiency=0.8 * laws["fp8"].efficiency)}
    before, after = (kin.burst_clocks_among_kin("gb200", each, lambda _: table(1.0)) for each in (laws, slower))
    moved = {each: after[each] / before[each] for each in kin.FORMATS}
    assert moved == pytest.approx({"bf16": 0.8**-0.125, "fp8": 0.8**0.875}, rel=0.01)


@pytest.mark.parametrize("name", [*kin.KIN, "h100-sxm-80gb", "h200-sxm-141gb", "a100-sxm-80gb"])
def test_profiles_hold_burst_clocks_where_kin_were_compared(name: str) -> None:
    """Each with its spread and its source; formats that are carried over inherit them."""
    gpu, (_, sources) = gpu_preset(name), read_preset("kernels", name)
    for precision, known in gpu.kernels.matmul.items():
        compared = name in kin.KIN and precision in kin.FORMATS
        assert (known.burst_clocks != 1.0) is compared
        assert ("burst_clocks" in known.spread) is compared
        assert sources.get(f"matmul.{precision}.burst_clocks") == (kin.BURST_SOURCE if compared else None)
    if name in kin.KIN:
        assert gpu.matmul("mxfp8").burst_clocks == gpu.matmul("fp8").burst_clocks


def test_burst_clocks_of_kin_have_no_say_in_their_mean() -> None:
    """Their geometric mean is 1, but for the medians over shapes: they say what laws differ by, not how fast the chips are."""
    logs = [math.log(float(gpu_preset(name).matmul(each).burst_clocks)) for name in kin.KIN for each in kin.FORMATS]
    assert sum(logs) / len(logs) == pytest.approx(0.0, abs=2e-3)
