"""Among many products, is each shape timed once, and to the bit as it is timed alone?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.count.operators import Matmul
from perfmodel.exchange.presets import gpu_preset
from perfmodel.spec.phases import WEIGHT_GRADIENT
from perfmodel.timing import kernels
from perfmodel.timing.kernels import WORTH_SORTING, _distinct, matmul_time_s, plain_matmul_time_s

H100 = gpu_preset("h100-sxm-80gb")
SIZES = (512, 1536, 4096, 12288)


def many_products(number: int, **changes: Any) -> Matmul:
    """Products of a few shapes, most of them repeated."""
    draw = np.random.default_rng(9)
    rows, columns, inner = (draw.choice(SIZES, number) for _ in range(3))
    shape: dict[str, Any] = {"rows": rows, "columns": columns, "inner": inner, "precision": "bf16"}
    return Matmul(name="many", **{**shape, **changes})


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize("number", [WORTH_SORTING - 1, WORTH_SORTING, 1000])
def test_repeated_shapes_take_what_each_takes_alone(number: int, precision: str) -> None:
    """Below the number from which equal shapes are looked for, at it, and far above."""
    products = many_products(number, precision=precision)
    known = H100.matmul(precision)
    together = np.asarray(plain_matmul_time_s(products, known, gpu=H100, compute_scale=0.8))
    assert together.shape == (number,)
    for index in range(0, number, max(number // 80, 1)):
        sizes: dict[str, Any] = {name: int(getattr(products, name)[index]) for name in ("rows", "columns", "inner")}
        one = Matmul(name="one", precision=precision, **sizes)
        assert together[index] == plain_matmul_time_s(one, known, gpu=H100, compute_scale=0.8)


def test_axes_of_repeated_shapes_broadcast() -> None:
    """Rows down, columns across, several products at once behind: a time for each combination."""
    rows, columns = np.repeat(SIZES, 40)[:, None, None], np.array([1024, 1024, 8192])[:, None]
    products = many_products(1, rows=rows, columns=columns, inner=4096, batch=np.array([1, 8]))
    together = np.asarray(matmul_time_s(products, gpu=H100, compute_scale=1.0))
    assert together.shape == (160, 3, 2)
    for index in ((0, 0, 0), (50, 1, 1), (159, 2, 0)):
        one = many_products(1, rows=rows[index[0], 0, 0], columns=columns[index[1], 0], inner=4096, batch=(1, 8)[index[2]])
        assert together[index] == matmul_time_s(one, gpu=H100, compute_scale=1.0)


def test_each_shape_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand products of at most 64 shapes are 64 products."""
    timed: list[int] = []
    equation = kernels._product_time_s

    def counting(product: Matmul, *others: Any, **options: Any) -> Any:
        timed.append(np.broadcast(product.rows, product.columns, product.inner).size)
        return equation(product, *others, **options)

    monkeypatch.setattr(kernels, "_product_time_s", counting)
    plain_matmul_time_s(many_products(1000), H100.matmul("bf16"), gpu=H100, compute_scale=1.0)
    assert timed == [len(SIZES) ** 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"compute_scale": np.linspace(0.7, 1.0, 1000)},
        {"weight_gradient_bytes": np.tile([2.0, 4.0], 500)},
    ],
)
def test_what_differs_beside_the_shape_is_not_lost(changes: dict[str, Any]) -> None:
    """Clocks of each product its own, and gradients of two widths that products add to."""
    scales = changes.pop("compute_scale", np.ones(1000))
    products = many_products(1000, phase=WEIGHT_GRADIENT, accumulates=True, **changes)
    together = np.asarray(matmul_time_s(products, gpu=H100, compute_scale=scales if np.ptp(scales) else 1.0))
    for index in range(0, 1000, 37):
        sizes: dict[str, Any] = {name: int(getattr(products, name)[index]) for name in ("rows", "columns", "inner")}
        width = float(np.broadcast_to(products.weight_gradient_bytes, 1000)[index])
        one = many_products(1, phase=WEIGHT_GRADIENT, accumulates=True, weight_gradient_bytes=width, **sizes)
        assert together[index] == matmul_time_s(one, gpu=H100, compute_scale=float(scales[index]))


@given(
    columns=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.floats(0.0, 1.0).map(round)), min_size=1, max_size=40)
)
def test_distinct_combinations_put_back_are_the_whole(columns: list[tuple[int, int, int]]) -> None:
    """Each combination is there once, and every element finds its own."""
    whole = [np.asarray(each) for each in zip(*columns, strict=True)]
    distinct, places = _distinct(whole)
    assert len(set(zip(*(each.tolist() for each in distinct), strict=True))) == len(distinct[0]) == len(set(columns))
    for each, some in zip(whole, distinct, strict=True):
        assert np.array_equal(some[places], each)
