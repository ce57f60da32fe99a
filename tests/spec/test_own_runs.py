"""Which group of own runs speaks for a prediction, of one layout and of arrays of them?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.spec.evidence.own_runs import NOTHING, OwnShift, applied_shift, setting_word
from perfmodel.spec.evidence.run_evidence import RunEvidence
from perfmodel.spec.setup import SUBJECT, Setup
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

MODEL = model_preset("nemotron-4-15b")
FILE = OwnShift(runs=5, kin="of other software or GPUs", shift=0.01, remaining=0.95)
SOFTWARE = replace(FILE, software=stack_preset("megatron-core").name, gpu=cluster_preset("dgx-h100").gpu.name, shift=0.02)


def group_of(setup: Setup, *, number: int | None = None, shift: float) -> OwnShift:
    """The group of a setup's configuration, or of its model: of the first `number` of its settings."""
    words = tuple(setting_word(name, value) for name, value in setup.settings.items())
    return replace(SOFTWARE, settings=words[:number], shift=shift, remaining=0.5)


def setup(*shifts: OwnShift, preset: str = "dgx-h100", **changes: Any) -> Setup:
    """A ramp stage of Nemotron-4 15B, changed, on a cluster with own runs."""
    cluster = replace(cluster_preset(preset), evidence=RunEvidence(name="mine", own_shifts=shifts))
    return setup_of(MODEL, replace(RAMP_STAGE, **changes), cluster=cluster)


CONFIGURATION = group_of(setup(), shift=0.04)
OF_MODEL = group_of(setup(), number=len(SUBJECT), shift=0.03)
EVERY = (FILE, SOFTWARE, OF_MODEL, CONFIGURATION)


def test_the_narrowest_group_speaks() -> None:
    """For the configuration its own, for another layout its model, for another model its software, for another GPU the file."""
    assert setup(*EVERY).own_shift.group == CONFIGURATION
    assert setup(*EVERY, micro_batch_size=2, global_batch_size=4096).own_shift.group == OF_MODEL
    other = replace(setup(*EVERY), model=replace(MODEL, ffn_hidden_size=8192))
    assert other.own_shift.group == SOFTWARE
    assert setup(*EVERY, preset="dgx-h200").own_shift.group == FILE
    assert setup().own_shift is NOTHING
    assert setup(OF_MODEL, preset="dgx-h200").own_shift.shift == 0.0


def test_replicas_and_the_batch_are_no_other_configuration() -> None:
    """Nor are numbers of the cluster."""
    grown = setup(*EVERY, data_parallel=64, global_batch_size=512)
    faster = replace(grown, cluster=replace(grown.cluster, network_scale=0.5))
    assert grown.own_shift.group == faster.own_shift.group == CONFIGURATION


def test_each_of_many_layouts_has_its_own_shift() -> None:
    """As one by one: micro-batches on one axis, tensor parallelism on another."""
    micro, tensor = np.array([1, 2]), np.array([[4], [8], [2]])
    found = setup(*EVERY, micro_batch_size=micro, tensor_parallel=tensor, global_batch_size=4096).own_shift
    one_by_one = [
        [
            float(setup(*EVERY, micro_batch_size=int(size), tensor_parallel=int(ranks), global_batch_size=4096).own_shift.shift)
            for size in micro
        ]
        for ranks in tensor[:, 0]
    ]
    assert found.shift.tolist() == one_by_one  # type: ignore[union-attr]
    assert {shift for row in one_by_one for shift in row} == {OF_MODEL.shift, CONFIGURATION.shift}
    assert found.group is None


def test_the_same_layout_is_known_however_it_is_given() -> None:
    """All layers of a stage run again, counted or not; sequence parallelism of one rank is none."""
    whole = setup(recompute="full", tensor_parallel=1)
    shift = group_of(whole, shift=0.07)
    given: dict[str, Any] = {"recompute": "full", "tensor_parallel": 1, "sequence_parallel": False}
    assert setup(shift, **given, recompute_layers=int(MODEL.layers)).own_shift.group == shift
    found = setup(shift, **given, recompute_layers=np.array([1, MODEL.layers, 100])).own_shift.shift
    assert found.tolist() == [0.0, 0.07, 0.07]  # type: ignore[union-attr]
    assert setup(shift, recompute="full", tensor_parallel=2).own_shift.shift == 0.0
    assert setup(shift, tensor_parallel=1).own_shift.shift == 0.0


def test_a_factor_is_the_exponential_of_a_shift() -> None:
    """Of a group, and of what applies."""
    assert CONFIGURATION.factor == pytest.approx(np.exp(0.04))
    applied = applied_shift([FILE], software="any", gpu="any", settings={})
    assert applied.factor == pytest.approx(np.exp(0.01))


def test_shifts_beyond_all_reason_are_refused() -> None:
    """And weights of more than 1."""
    with pytest.raises(InputError, match="must be at most 20"):
        replace(FILE, shift=21.0)
