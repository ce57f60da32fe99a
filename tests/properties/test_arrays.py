"""Is a prediction over arrays that of each of its entries alone, on every kind of model?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given

from perfmodel.prediction import predict_stage
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from tests.properties.depth import examples
from tests.properties.runs import DrawnRun, runs
from tests.properties.test_hardware import faster_memory, faster_network

BATCHES = np.array([[1], [2], [5]])
SPEEDS = np.array([1.0, 2.5])


@examples(10)
@given(drawn=runs())
def test_arrays_give_bit_for_bit_what_single_calls_give(drawn: DrawnRun) -> None:
    """Batches down, clusters across: every number of a stage, intervals and memory among them."""
    setup = drawn.setup
    batch = setup.layout.global_batch_size

    def faster(times: Numeric) -> Cluster:
        return with_numbers(faster_network(faster_memory(setup.cluster, times), times), {"compute_scale": times})

    together = predict_stage(
        replace(setup, layout=replace(setup.layout, global_batch_size=batch * BATCHES), cluster=faster(SPEEDS))
    ).quantities()
    for row, column in ((0, 0), (2, 1)):
        layout = replace(setup.layout, global_batch_size=int(batch * BATCHES[row, 0]))
        alone = predict_stage(replace(setup, layout=layout, cluster=faster(float(SPEEDS[column])))).quantities()
        for name, value in alone.items():
            assert np.broadcast_to(together[name], (3, 2))[row, column] == value, name
