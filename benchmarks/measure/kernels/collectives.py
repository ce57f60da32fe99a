"""Measures collectives between processes (gloo on CPUs, NCCL on GPUs) as records.

    torchrun --nproc-per-node 8 -m perfmodel.benchmarks.measure.kernels.collectives --output records.jsonl
    python -m perfmodel.benchmarks.measure.kernels.collectives --ranks 2 --device cpu --output records.jsonl

Groups are the first 2, 4, ... ranks, and over several nodes also one rank of each. The time of a repeat is that of the rank
that was fastest, because the last one to arrive waits for nobody; what the others wait for it is measured apart (rank_times).
Between CPUs it is the mean over the repeats of ranks that work, write what they send, and call, as in a step: threads have to
wake up, which takes as long as a message does and differs from call to call, and a step pays for all of it. Messages as large
as all parameters are sent in place, as the optimizer does. On a CPU some memory-bound operators are measured too, on all cores
at once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

from perfmodel.benchmarks.measure.core_distance import distance_text, is_near, near_s
from perfmodel.benchmarks.measure.kernels.core_exchange import core_exchange
from perfmodel.benchmarks.measure.kernels.kernels import check_device, show_progress
from perfmodel.benchmarks.measure.kernels.kernels import take as take_kernel
from perfmodel.benchmarks.measure.kernels.plan import busy_points, collective_points, plan_of
from perfmodel.benchmarks.measure.kernels.points import Point
from perfmodel.benchmarks.measure.kernels.rank_times import KIND, rank_time_points, take_rank_times
from perfmodel.benchmarks.measure.kernels.record_file import measure
from perfmodel.benchmarks.measure.kernels.tensors import cache_bytes, random
from perfmodel.benchmarks.measure.kernels.timing import Timing, on_cpu, on_gpu, summary
from perfmodel.benchmarks.measure.machine import Nvml, provenance, state_text, warnings
from perfmodel.benchmarks.measure.neighbours import OTHERS, Moments, NeighbourMeter
from perfmodel.benchmarks.measure.processes import restarted_to_measure, start
from perfmodel.benchmarks.measure.steps.memory_peak import allocated_bytes
from perfmodel.errors import InputError, PerfmodelError
from perfmodel.model.cores import on_all_cores
from perfmodel.model.groups import Group
from perfmodel.model.supported import DTYPES
from perfmodel.model.training.launch import BACKENDS, started
from perfmodel.spec.phases import FORWARD

MODULE: Final = "perfmodel.benchmarks.measure.kernels.collectives"
PRECISION: Final = {"cpu": "fp32", "cuda": "bf16"}  # of what is sent: a reduction takes as long in either
WARM_UP: Final = 3
REPEATS: Final = 25
NOISY_REPEATS: Final = 150  # of short messages between CPUs
SHORT: Final = 8 * 2**20
OF_ALL_PARAMETERS: Final = 16 * 2**20  # bytes of a message between CPUs: activations of a layer are less
LAUNCH_S: Final = 2e-4  # more than the host needs to launch a collective of NCCL
TRIES: Final = 3  # of a point beside which others used the cores, or whose cores were moved apart
LOOK: Final = "look"  # said instead of a point: how far apart are the cores now
EVERY_S: Final = 1.0
PATIENCE_S: Final = 120.0  # of a measurement with cores that are apart, in all
NAME: Final = "benchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The ranks of a group, and how many nodes they lie on."""

    members: tuple[int, ...]
    nodes: int

    @property
    def size(self) -> tuple[int, int]:
        """How many ranks, and on how many nodes."""
        return len(self.members), self.nodes


def groups_of(world: int, per_node: int) -> list[Ranks]:
    """The first 2, 4, .. ranks, all of them, and where there are more nodes and GPUs than one, one rank of 2, 4, .. nodes.

    >>> [(group.members, group.nodes) for group in groups_of(4, 2)]
    [((0, 1), 1), ((0, 1, 2, 3), 2), ((0, 2), 2)]
    """
    found = [Ranks(members=tuple(range(size)), nodes=-(-size // per_node)) for size in _doublings(world)]
    if 1 < per_node < world:
        nodes = world // per_node
        found += [Ranks(members=tuple(range(0, size * per_node, per_node)), nodes=size) for size in _doublings(nodes)]
    return found


def _doublings(most: int) -> list[int]:
    return sorted({2**power for power in range(1, most.bit_length()) if 2**power <= most} | ({most} if most > 1 else set()))


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a collective: what this rank sends in it, and the call."""

    sent: torch.Tensor
    run: Callable[[], object]


def call_of(operator: str, group: Group, *, payload_bytes: int, precision: str, device: str, in_place: bool = False) -> Call:
    """One call of `operator`, whose full tensor takes `payload_bytes`, as the reference model makes it.

    `in_place` as its optimizer does, where that is another call.
    """
    numbers = max(payload_bytes // DTYPES[precision].itemsize // group.ranks, 1) * group.ranks
    full = random(numbers, precision=precision, device=device)
    shard, received = group.share(full), torch.empty_like(full if operator == "all_to_all" else full[:0])
    if operator == "all_reduce":
        full.zero_()  # sums of sums would overflow
    calls: dict[str, Callable[[], object]] = {
        "all_reduce": lambda: group.all_reduce(full, NAME, FORWARD),
        "all_gather": lambda: group.all_gather(shard, NAME, FORWARD),
        "reduce_scatter": lambda: group.reduce_scatter(full, NAME, FORWARD),
        "all_to_all": lambda: dist.all_to_all_single(received, full, group=group.process_group),
        "point_to_point": lambda: _there_and_back(full, group),
    }
    if in_place:
        calls["all_gather"] = lambda: group.all_gather_in_place(full, NAME, FORWARD)
        calls["reduce_scatter"] = lambda: group.reduce_scatter_in_place(full, NAME, FORWARD)
    return Call(shard if operator == "all_gather" else full, calls[operator])


def _there_and_back(message: torch.Tensor, group: Group) -> None:
    """Two messages, one after the other: a sender alone may be done before anything has arrived."""
    peer = dist.get_global_rank(group.process_group, 1 - group.rank)
    first, second = (dist.send, dist.recv) if group.rank == 0 else (dist.recv, dist.send)
    first(message, peer, group=group.process_group)
    second(message, peer, group=group.process_group)


def repeats_for(payload_bytes: float, device: str, *, smallest: bool = False) -> int:
    """How often a message of this size is sent; to see that it works, no more often for being short."""
    return NOISY_REPEATS if device == "cpu" and payload_bytes < SHORT and not smallest else REPEATS


def take(point: Point, group: Group, device: str, *, smallest: bool = False) -> Timing:
    """The time of one point, the same on all ranks of the group."""
    operator, payload = point.labels["operator"], point.sizes["payload_bytes"]
    made = partial(call_of, operator, group, payload_bytes=int(payload), precision=point.labels["precision"], device=device)
    call = made(in_place=device == "cpu" and payload >= OF_ALL_PARAMETERS)
    repeats = repeats_for(payload, device, smallest=smallest)
    own = [_one_s(call, group, device, smallest=smallest) for _ in range(WARM_UP + repeats)][WARM_UP:]
    everywhere: list[Any] = [None] * group.ranks
    dist.all_gather_object(everywhere, own, group=group.process_group)
    if operator == "point_to_point":
        return summary([max(times) / 2 for times in zip(*everywhere, strict=True)])
    found = {"allocated_bytes": float(allocated_bytes(made().run, device))}
    timing = summary(times := [min(ranks) for ranks in zip(*everywhere, strict=True)])
    return replace(timing, seconds=statistics.fmean(times) if device == "cpu" else timing.seconds, found=found)


def _one_s(call: Call, group: Group, device: str, *, smallest: bool) -> float:
    """On CPUs after some work, as in a step: the library's threads are asleep, and its buffers no longer in the cache.

    What is sent has just been written.
    """
    if device == "cpu":
        _work(smallest=smallest).add_(1)
        call.sent.mul_(1)
        return on_cpu(call.run)[0]
    dist.barrier(group=group.process_group)
    torch.cuda.synchronize()
    return on_gpu(call.run, ahead_s=LAUNCH_S)[0]


@cache
def _work(*, smallest: bool) -> torch.Tensor:
    """What is worked on between two calls: more than the caches hold."""
    return torch.zeros(cache_bytes("cpu", smallest=smallest) // 4)


def measured(device: str, path: Path, *, smallest: bool) -> int:
    """Measure on all ranks what the file of rank 0 does not hold yet; how many points those were."""
    world, rank = dist.get_world_size(), dist.get_rank()
    by_size: dict[tuple[int, int], Group] = {}
    for ranks in groups_of(world, int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))):
        with on_all_cores():  # gloo's threads start with the group
            process_group = dist.new_group(list(ranks.members))
        place = ranks.members.index(rank) if rank in ranks.members else -1
        by_size.setdefault(ranks.size, Group(len(ranks.members), place, process_group))
    points = collective_points(
        plan_of(device, smallest=smallest), list(by_size), backend=BACKENDS[device], precision=PRECISION[device]
    )
    if device == "cpu":  # cores share a memory, GPUs do not
        points += [*busy_points(plan_of(device, smallest=smallest)), *rank_time_points(world)]
    together = LedRanks(by_size, device, smallest=smallest)
    return together.lead(points, path) if rank == 0 else together.follow()


class LedRanks:
    """All ranks of a measurement: rank 0 keeps the file and says which point is next, the others follow.

    A point beside which others used the cores is measured again, some times; the time with the fewest of them is kept. So
    is one whose cores were farther apart than before, once they are near again, or patience has ended.
    """

    def __init__(self, groups: dict[tuple[int, int], Group], device: str, *, smallest: bool) -> None:
        self.groups, self.device, self.smallest = groups, device, smallest
        self.everybody = next(group for (ranks, _), group in groups.items() if ranks == dist.get_world_size())
        self.meter, self.marks = NeighbourMeter(_of_all_ranks), dict[str, str]()
        self.exchange, self.patience_s = core_exchange(device), 0.0 if smallest else PATIENCE_S
        self.looks: list[dict[str, str]] = []  # how far apart the cores were, again and again

    def lead(self, points: Sequence[Point], path: Path) -> int:
        """Measure what the file does not hold yet; how many points those were."""
        sensor = Nvml.open()
        born = provenance(self.device, f"torchrun -m {MODULE} --device {self.device}")
        before = sensor.readings()

        def born_now() -> dict[str, str]:
            return born | state_text(sensor.readings()) | self.marks

        number = measure(points, path, self._surest, provenance=born_now, on_progress=show_progress)
        dist.broadcast_object_list([None])
        others = self.meter.sentences(self.device, ()) if self.device == "cpu" else []
        for sentence in (*warnings(before, sensor.readings()), *others):
            print(f"collectives: {sentence}", file=sys.stderr)
        return number

    def follow(self) -> int:
        """Measure what rank 0 says; how many points those were."""
        number = 0
        while True:
            said: list[Any] = [None]
            dist.broadcast_object_list(said)
            if said[0] is None:
                return number
            if said[0] == LOOK:
                self._look()
                continue
            self._take(said[0])
            number += 1

    def _surest(self, point: Point) -> Timing:
        """The time of a point and its marks, of rank 0, which is in every group that it measures."""
        found: list[tuple[dict[str, str], Timing]] = []
        while not found or (self._doubts(found[-1][0]) and len(found) < TRIES):
            if found:
                self._wait_until_near()
            dist.broadcast_object_list([point])
            timing = self._take(point)
            if timing is None:
                raise PerfmodelError("rank 0 is in no group")
            found.append((dict(self.marks), timing))
        self.marks, timing = min(found, key=lambda each: self._doubts(each[0]))
        return timing

    def _doubts(self, marks: dict[str, str]) -> float:
        """How much of the cores others used, and whether the cores were apart; to see that it works that is all the same."""
        apart = not self.smallest and not is_near(marks, near_s(self.looks))
        return float(marks.get(OTHERS, 0.0)) + apart

    def _wait_until_near(self) -> None:
        """Where the cores are apart: until they are not, as long as there is patience."""
        while self.patience_s > 0 and not is_near(self._look_together(), near_s(self.looks)):
            time.sleep(EVERY_S)
            self.patience_s -= EVERY_S

    def _look_together(self) -> dict[str, str]:
        dist.broadcast_object_list([LOOK])
        return self._look()

    def _look(self) -> dict[str, str]:
        """How far apart the cores are now, which all ranks find out together."""
        self.looks.append(distance_text([self.exchange.distance_s()] if self.exchange else []))
        return self.looks[-1]

    def _take(self, point: Point) -> Timing | None:
        """The time of a point on this rank, None where it is in no group of it; marks say who else used the cores."""
        timing = self._timed(point)
        self.marks = self.meter.mark() | self._look() if self.device == "cpu" else {}
        return timing

    def _timed(self, point: Point) -> Timing | None:
        if point.kind == "memory_bound":
            dist.barrier()
            return take_kernel(point, self.device, smallest=self.smallest)
        if point.kind == KIND:
            return take_rank_times(point, self.everybody, smallest=self.smallest)
        group = self.groups[int(point.sizes["ranks"]), int(point.sizes["nodes"])]
        timing = take(point, group, self.device, smallest=self.smallest) if group.rank >= 0 else None
        dist.barrier()
        return timing


def _of_all_ranks(own: Moments) -> list[Moments]:
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, own)
    return everywhere


def main() -> None:
    """Measure on the ranks that torchrun started, or start them; one sentence when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smallest", action="store_true", help="two small sizes: seconds, to see that it works")
    parser.add_argument("--ranks", type=int, default=0, metavar="N", help="start so many processes on this machine")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")
    chosen = parser.parse_args()
    try:
        check_device(chosen.device)
        if "RANK" not in os.environ:
            _start(chosen)
            return
        restarted_to_measure(MODULE)
        with started(chosen.device):
            number = measured(chosen.device, chosen.output, smallest=chosen.smallest)
            if dist.get_rank() == 0:
                print(f"wrote {number} records to {chosen.output}", file=sys.stderr)
    except PerfmodelError as error:
        print(f"perfmodel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"collectives: stopped; the same command goes on with {chosen.output}", file=sys.stderr)
        sys.exit(130)


def _start(chosen: argparse.Namespace) -> None:
    """Start this command again as one process for each rank of this machine."""
    ranks = chosen.ranks or (torch.cuda.device_count() if chosen.device == "cuda" else os.cpu_count() or 1)
    if ranks < 2:
        raise InputError("collectives need two ranks at least; --ranks 2 starts so many", key="--ranks")
    options = ["--device", chosen.device, "--output", str(chosen.output), *(["--smallest"] if chosen.smallest else [])]
    start([MODULE, *options], ranks)


if __name__ == "__main__":
    main()
