"""Are terms that cannot be refused in a sentence?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.presets import economics_preset, preset_names
from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.economics import NO_OFFER

TYPICAL = economics_preset("typical")
RUN: dict[str, Any] = {
    "model": "nemotron-4-15b",
    "cluster": "dgx-h100",
    "stack": "megatron-core",
    "sequence_length": 4096,
    "stages": [{"data_parallel": 8, "global_batch_size": 32}],
}


@pytest.mark.parametrize(
    ("changes", "key", "sentence"),
    [
        ({"dollars_per_gpu_hour": 0.0}, "dollars_per_gpu_hour", "0.0 must be greater than 0"),
        ({"dollars_per_gpu_hour": -2.5}, "dollars_per_gpu_hour", "must be greater than 0"),
        ({"failures_per_gpu_hour": -1e-5}, "failures_per_gpu_hour", "must be at least 0"),
        ({"power_usage_effectiveness": 0.9}, "power_usage_effectiveness", "0.9 must be at least 1"),
        ({"carbon_kg_per_kwh": 445.0}, "carbon_kg_per_kwh", "must be at most 10"),  # grams
        ({"busy_power_share": 1.5}, "busy_power_share", "must be at most 1"),
        ({"idle_power_share": 0.9}, "idle_power_share", "0.9 is more than the 0.76 of busy_power_share"),
        ({"checkpoint_bytes_per_parameter": 0.0}, "checkpoint_bytes_per_parameter", "must be greater than 0"),
        ({"checkpoint_write_bytes_per_s_per_gpu": 0.0}, "checkpoint_write_bytes_per_s_per_gpu", "must be at least 1"),
        ({"checkpoint_stall_share": 1.1}, "checkpoint_stall_share", "must be at most 1"),
        ({"checkpoint_interval_s": 0.0}, "checkpoint_interval_s", "must be greater than 0"),
        ({"start_up_s": float("inf")}, "start_up_s", "is not finite"),
        ({"billing": "spot"}, "billing", "'spot' is not one of them; known: on_demand, reserved"),
        ({"reserved_days": 90.0}, "reserved_days", "90 days are reserved, but billing is on_demand"),
        ({"billing": "reserved", "reserved_days": -1.0}, "reserved_days", "must be greater than 0"),
        ({"spread": {"pue": 0.1}}, "spread.pue", "no number beside it"),
        ({"spread": {"storage_read_bytes_per_s": 0.1}}, "spread.storage_read_bytes_per_s", "itself is not given"),
    ],
)
def test_terms_that_cannot_be_are_refused(changes: dict[str, Any], key: str, sentence: str) -> None:
    """With the key of the wrong one."""
    with pytest.raises(InputError) as caught:
        replace(TYPICAL, **changes)
    assert caught.value.key == key
    assert sentence in str(caught.value)


def test_terms_with_a_price_are_offers() -> None:
    """The typical terms have none: a price is the user's, or somebody's offer of a day."""
    assert economics_preset("typical").dollars_per_gpu_hour is None
    for name in preset_names("economics"):
        terms = economics_preset(name)
        assert (terms.dollars_per_gpu_hour is None) == (terms.offer == NO_OFFER)


def test_a_run_has_no_terms_unless_they_are_given() -> None:
    """And is the same run with them: what was published of it still stands beside it."""
    assert read_candidates("nemotron-4-15b")[0].run.economics is None
    run = read_candidates("nemotron-4-15b", ["economics.dollars_per_gpu_hour=2.5"])[0].run
    assert run.economics == replace(TYPICAL, dollars_per_gpu_hour=2.5)
    assert run.stages[0].published.days == 0.8


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("typical", TYPICAL),
        ({"dollars_per_gpu_hour": "$2.5"}, replace(TYPICAL, dollars_per_gpu_hour=2.5)),
        ({"extends": "typical", "carbon_kg_per_kwh": "56g/kWh"}, replace(TYPICAL, carbon_kg_per_kwh=0.056)),
        ({"detect_s": "5min"}, replace(TYPICAL, detect_s=300.0)),
    ],
)
def test_a_run_file_gives_what_differs_from_the_typical_terms(given: Any, expected: Any) -> None:
    """Nothing, a preset, or a mapping, with `extends` or without."""
    assert read_candidates(RUN | {"economics": given})[0].run.economics == expected


def test_a_run_that_has_terms_keeps_them_where_others_are_changed() -> None:
    """Also when they are a spec, with spreads of their own."""
    own = replace(TYPICAL, spread={}, detect_s=1.0)
    run = replace(read_candidates(RUN)[0].run, economics=own)
    changed = read_candidates(run, ["economics.dollars_per_gpu_hour=2", "economics.failures_per_gpu_hour=x2"])[0].run
    twice = 2 * own.failures_per_gpu_hour
    assert changed.economics == replace(own, dollars_per_gpu_hour=2.0, failures_per_gpu_hour=twice)


def test_terms_may_be_candidates() -> None:
    """A list of prices is one run for each."""
    candidates = read_candidates(RUN, ["economics.dollars_per_gpu_hour=[2, 3]"])
    assert [each.run.economics.dollars_per_gpu_hour for each in candidates if each.run.economics] == [2, 3]
