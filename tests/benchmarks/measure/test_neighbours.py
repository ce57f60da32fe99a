"""Is a busy neighbour of a measurement noticed, and one's own work not taken for one?"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from perfmodel.benchmarks.measure import neighbours
from perfmodel.benchmarks.measure.machine import Nvml
from perfmodel.benchmarks.measure.neighbours import (
    CoreTimes,
    CoreUse,
    NeighbourMeter,
    busy_seconds,
    core_use,
    others_on_gpus,
    own_cores,
)
from tests.benchmarks.measure.test_machine import fake

SPIN = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"


def rank(worked_s: float | None, own_s: float, cores: set[int], *, passed_s: float = 10.0) -> tuple[CoreTimes, CoreTimes]:
    """Two moments of a rank whose cores worked for so long meanwhile, and it itself for so long."""
    begin = CoreTimes(cores=frozenset(cores), at_s=5.0, busy_s=50.0, own_s=1.0)
    busy_s = None if worked_s is None else 50.0 + worked_s
    return begin, CoreTimes(cores=frozenset(cores), at_s=5.0 + passed_s, busy_s=busy_s, own_s=1.0 + own_s)


def test_ones_own_ranks_are_no_neighbours() -> None:
    """Whether they have a core each or share two; nor are ticks that are rounded off."""
    assert core_use([rank(10.0, 10.0, {0}), rank(10.0, 10.0, {1})]) == CoreUse(others=0.0, cores=2)
    assert core_use([rank(19.9, 10.0, {0, 1}), rank(19.9, 10.0, {0, 1})]) == CoreUse(others=0.0, cores=2)


def test_what_others_work_on_the_cores_of_ranks_is_theirs() -> None:
    """3 of 10 seconds on one core of two."""
    found = core_use([rank(10.0, 7.0, {0}), rank(9.0, 9.0, {1})])
    assert found.others == pytest.approx(0.3)
    assert (found.cores, found.is_shared) == (2, True)


def test_where_nobody_counts_nothing_is_claimed() -> None:
    """Nor of a time of no length."""
    assert not core_use([rank(None, 1.0, {0})]).is_shared
    assert not core_use([rank(9.0, 1.0, {0}, passed_s=0.0)]).is_shared


def test_few_cores_are_not_worth_a_sentence() -> None:
    """A whole one is, with what to do."""
    assert CoreUse(others=0.1, cores=2).text() == ""
    assert CoreUse(others=1.0, cores=2).text().startswith("others used 1.0 of the 2 cores meanwhile")
    assert CoreUse(others=0.4, cores=1).text().startswith("others used 0.4 of the core meanwhile")


def test_a_moment_too_short_for_ticks_says_nothing_of_neighbours() -> None:
    """A tick of 10 ms in 1 ms is no ten cores; a look of a second tells, and stands for the short records after it."""
    looks = [
        [rank(0.01, 0.0, {0}, passed_s=0.001)],
        [rank(0.9, 0.5, {0}, passed_s=1.0), rank(0.9, 0.8, {1}, passed_s=1.0)],
        [rank(0.01, 0.0, {0}, passed_s=0.001)],
        [rank(1.0, 1.0, {0}, passed_s=1.0)],
    ]
    following = iter(looks)
    meter = NeighbourMeter(lambda _: next(following))
    assert [meter.mark() for _ in looks] == [{}, {"others_cores": "0.50"}, {"others_cores": "0.50"}, {}]
    assert meter.sentences("cpu", ())[0].startswith("others used 0.2 of")


@pytest.mark.processes
def test_a_process_beside_this_one_is_noticed() -> None:
    """It spins, this one sleeps: about a core is somebody else's, and records and the end say so."""
    if busy_seconds(own_cores()) is None:
        pytest.skip("this system counts no busy cores")
    with subprocess.Popen([sys.executable, "-c", SPIN]) as other:
        try:
            meter = NeighbourMeter()
            time.sleep(1.0)
            marked, said = meter.mark(), meter.sentences("cpu", ())
        finally:
            other.kill()
    assert float(marked["others_cores"]) > neighbours.FEW
    assert len(said) == 1


def test_other_processes_on_a_gpu_are_named() -> None:
    """One on each is that of the measurement; GPUs that it does not use say nothing of it."""
    assert others_on_gpus([2, 1, 4, 9], 3) == [
        "another process computed on GPU 0 too: it was not measured alone",
        "3 other processes computed on GPU 2 too: it was not measured alone",
    ]
    assert others_on_gpus([], 2) == others_on_gpus([0, 1], 2) == []


def test_nvml_counts_what_computes() -> None:
    """On every GPU; none where it does not say."""
    known = fake(nvmlDeviceGetComputeRunningProcesses=lambda handle: [7, 8][handle:])
    assert Nvml(known).computing() == [2, 1]
    assert Nvml(fake()).computing() == [0, 0]
    assert Nvml().computing() == []
