"""Is every result checked in one place, and only what cannot be refused?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.prediction import impossible, peak_share, predict
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.run import Run
from perfmodel.variation import points

RUN = "nemotron-4-15b"


def with_cluster_numbers(run: Run, **numbers: float) -> Run:
    """The run with numbers of its cluster that no file may have."""
    return with_numbers(run, {"cluster": with_numbers(run.cluster, numbers)})


def test_a_gpu_that_computes_above_its_peak_is_refused() -> None:
    """Whatever number made it so."""
    _, predicted = predict(api.load(RUN)).stages[0]
    fast = replace(predicted, iteration_time_s=predicted.iteration_time_s / 4, mfu=predicted.mfu * 4, hfu=predicted.hfu * 4)
    assert "compute at 1" in impossible(fast)
    assert "% of their peak rate, which cannot be; check those of cluster.gpu" in impossible(fast)


def test_a_negative_part_is_refused_by_its_name() -> None:
    """A pass that takes less time than its operators."""
    run = api.load(RUN)
    host = with_numbers(run.stack.host, {"unlisted_work": 0.5})
    with pytest.raises(InputError, match="make unlisted_s negative, which cannot be"):
        predict(with_numbers(run, {"stack": with_numbers(run.stack, {"host": host})}))


def test_numbers_that_overflow_are_refused() -> None:
    """In one sentence, with no warning of NumPy."""
    with pytest.raises(InputError, match="no finite iteration time"):
        predict(with_cluster_numbers(api.load(RUN), compute_scale=1e-320))


def test_mfu_above_one_is_no_slip_where_the_convention_counts_what_no_kernel_runs() -> None:
    """Attention in full, of which causal kernels run a half: at a million tokens that is nearly everything.

    FLOPs that run are then at most the half of those counted, and below the peak.
    """
    run = api.load(RUN, {"sequence_length": 2**20, "stages": [{"data_parallel": 1, "global_batch_size": 1}]})
    _, predicted = predict(run).stages[0]
    quicker = replace(predicted, mfu=np.asarray(predicted.mfu) * 2.0, hfu=np.asarray(predicted.hfu) * 2.0)
    assert float(quicker.mfu) > 0.9
    share = float(peak_share(replace(predicted, mfu=1.1, hfu=1.1)))
    assert 0.45 < share / float(predicted.hfu) < 0.6
    assert not impossible(predicted)


def test_points_of_a_sweep_above_the_peak_are_refused_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are predicted."""
    monkeypatch.setattr(points, "peak_share", lambda _: np.array([0.4, 1.2]))
    found = points.outcomes(api.load(RUN), 0, {"cluster.compute_scale": [0.5, 2.0]}, number=2)
    assert [each.refusal for each in found] == ["", points.TOO_FAST]
