"""Is paid what was agreed on?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from perfmodel.economics.cost import dollars, paid_gpu_hours
from perfmodel.exchange.presets import economics_preset

TERMS = replace(economics_preset("typical"), dollars_per_gpu_hour=2.0)
RAMP = {"gpu_hours": 24.0 * (100 * 1 + 200 * 3), "gpus": 200, "calendar_days": 4.0}


def test_without_a_price_there_are_no_dollars() -> None:
    """No price is made up."""
    assert dollars(**RAMP, terms=economics_preset("typical")) is None


def test_on_demand_pays_what_is_used() -> None:
    """Price times GPU-hours."""
    assert dollars(**RAMP, terms=TERMS) == 2.0 * 24 * 700


def test_reserved_pays_the_largest_stage_all_the_time() -> None:
    """At least the days that were reserved."""
    reserved = replace(TERMS, billing="reserved")
    assert dollars(**RAMP, terms=reserved) == 2.0 * 24 * 200 * 4
    assert dollars(**RAMP, terms=replace(reserved, reserved_days=90.0)) == 2.0 * 24 * 200 * 90
    assert dollars(**RAMP, terms=replace(reserved, reserved_days=3.0)) == 2.0 * 24 * 200 * 4


def test_reserved_is_never_cheaper_at_one_price() -> None:
    """It pays for GPUs that an earlier stage leaves idle."""
    assert paid_gpu_hours(**RAMP, terms=replace(TERMS, billing="reserved")) > paid_gpu_hours(**RAMP, terms=TERMS)


def test_a_million_layouts_are_paid_at_once() -> None:
    """Arrays broadcast."""
    gpus = np.array([8.0, 16.0])
    reserved = replace(TERMS, billing="reserved", reserved_days=10.0)
    days = np.array([[5.0], [20.0]])
    paid = dollars(gpu_hours=24 * gpus * days, gpus=gpus, calendar_days=days, terms=reserved)
    assert paid is not None
    assert np.array_equal(paid, [[3840, 7680], [7680, 15360]])
