"""Real training steps of one stage of a run on this machine's ranks, as one record: times, operators, memory, communication.

    torchrun --nproc-per-node 2 -m perfmodel.benchmarks.measure.steps.training_step RUN --output record.json
    python -m perfmodel.benchmarks.measure.steps.training_step RUN --set data_parallel=1 --output record.json

`perfmodel measure` starts it for all ranks of a machine. Steps are timed first, as they are; then some are run with marks
around their operators; then one each for the memory and for the calls that torch.distributed sees.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import torch
import torch._dynamo  # as AdamW would at its first step, in each rank: ranks of a CPU are forked after this
import torch.distributed as dist

from perfmodel.benchmarks.measure.core_distance import distance_text, moved
from perfmodel.benchmarks.measure.kernels.core_exchange import core_exchange
from perfmodel.benchmarks.measure.machine import Nvml, provenance, warnings
from perfmodel.benchmarks.measure.neighbours import OTHERS, CoreTimes, CoreUse, core_use, others_on_gpus
from perfmodel.benchmarks.measure.steps.marked_steps import MarkedStep, StepProfile, step_profile
from perfmodel.benchmarks.measure.steps.memory_peak import step_memory_bytes
from perfmodel.benchmarks.measure.steps.profiled_step import write_profile
from perfmodel.benchmarks.measure.steps.ranks import KINDS, stage_of
from perfmodel.count.flops import model_flop_per_token
from perfmodel.errors import PerfmodelError
from perfmodel.evidence.steps.step_records import CollectiveCount, MeasuredMemory, StepRecord
from perfmodel.exchange.output import write_text
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.model.counting import CollectiveCounter
from perfmodel.model.groups import Groups, make_groups
from perfmodel.model.operators import Recorder, recording
from perfmodel.model.parts.router import Routing
from perfmodel.model.training.launch import started
from perfmodel.model.training.trainer import Trainer
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import Run

WARM_UP: Final = 2
SECONDS: Final = 10.0  # timed steps: as many as take so long,
FEWEST: Final = 7  # but not fewer,
MOST: Final = 50  # and no more
FEWEST_MARKED: Final = 5  # steps with marks: as many as take as long as the timed ones,
MOST_MARKED: Final = 25  # as the times of messages spread
OFTEN_PER_S: Final = 30.0  # losing a core; on a quiet machine it is a few times a second
WIDE: Final = 0.10  # a spread of which nothing can be concluded to within the error that is asked for


def seconds_of(step: Callable[[], object], groups: Groups) -> float:
    """Time of one call, from a moment at which all ranks are ready."""
    if groups.world.ranks > 1:
        dist.barrier()
    _finish(groups)
    start = time.perf_counter()
    step()
    _finish(groups)
    return time.perf_counter() - start


def gathered(value: Any, groups: Groups) -> list[Any]:
    """What each rank has to say."""
    if groups.world.ranks == 1:
        return [value]
    everywhere: list[Any] = [None] * groups.world.ranks
    dist.all_gather_object(everywhere, value)
    return everywhere


def _finish(groups: Groups) -> None:
    if groups.device.type == "cuda":
        torch.cuda.synchronize()


class StepMeasurement:
    """The steps of one rank, and what they showed."""

    def __init__(self, run: Run, layout: Layout, groups: Groups) -> None:
        self.run, self.layout, self.groups = run, layout, groups
        self.trainer = Trainer(run.model, layout, groups, routing=Routing(balanced=True), tuning=run.fine_tuning)
        self.batch = self.trainer.micro_batches()
        self.losses: list[float] = []
        self.taken_away_per_s = 0.0  # how often the core of a rank went to somebody else
        self.cores = CoreUse()  # what others used of them at most, while steps were timed or marked
        self.exchange = core_exchange(groups.device.type)
        self.distances_s: list[float] = []  # of the cores of several ranks, before and after both

    def step(self) -> None:
        """One iteration; its loss is kept."""
        self.losses.append(float(self.trainer.step(self.batch)))

    def timed_s(self, seconds: float = SECONDS) -> list[float]:
        """Times [s] of steps as they are, the slowest rank's."""
        warm = [seconds_of(self.step, self.groups) for _ in range(WARM_UP)][-1]
        number = min(max(round(seconds / self._slowest([warm])[0]), FEWEST), MOST)
        self._look()
        before, begun = times_taken_away(), CoreTimes.now()
        own = [seconds_of(self.step, self.groups) for _ in range(number)]
        self.cores = core_use(self.of_all_ranks((begun, CoreTimes.now())))
        self.taken_away_per_s = max(self.of_all_ranks((times_taken_away() - before) / sum(own)))
        self._look()
        return self._slowest(own)

    def _look(self) -> None:
        """How far the cores of the ranks are from each other now."""
        if self.exchange:
            self.distances_s.append(self.exchange.distance_s())

    def _slowest(self, times: list[float]) -> list[float]:
        return [max(each) for each in zip(*self.of_all_ranks(times), strict=True)]

    def of_all_ranks(self, value: Any) -> list[Any]:
        """What each rank has to say."""
        return gathered(value, self.groups)

    def profiled(self, number: int) -> StepProfile:
        """So many steps with marks around their operators."""
        steps, begun = [], CoreTimes.now()
        for _ in range(number):
            recorder = Recorder(self.groups.device)

            def marked(recorder: Recorder = recorder) -> None:
                with recording(recorder):
                    self.step()

            seconds_of(marked, self.groups)
            every = self.of_all_ranks((recorder.executions_s(), recorder.messages))
            messages = {label: across for _, of_rank in every for label, across in of_rank.items()}
            stages = self.groups.pipeline_parallel.ranks
            steps.append(MarkedStep(ranks=[seconds for seconds, _ in every], messages=messages, stages=stages))
        self.cores = max(self.cores, core_use(self.of_all_ranks((begun, CoreTimes.now()))), key=lambda use: use.others)
        self._look()
        return step_profile(steps)

    def of_all_stages(self, value: Any) -> list[Any]:
        """What the first rank of each pipeline stage has to say."""
        everywhere = self.of_all_ranks(value)
        return everywhere[:: len(everywhere) // self.groups.pipeline_parallel.ranks]

    def collectives(self) -> list[CollectiveCount]:
        """What torch sees of one step."""
        with CollectiveCounter() as counter:
            self.step()
        return [
            CollectiveCount(kind=kind, ranks=ranks, calls=calls, payload_bytes=payload, pipeline_stage=stage)
            for stage, (seen, payloads) in enumerate(self.of_all_stages((counter.calls, counter.payload_bytes)), start=1)
            for (kind, ranks), calls, payload in ((key, calls, payloads[key]) for key, calls in sorted(seen.items()))
        ]

    def all_losses(self) -> list[float]:
        """Losses of all iterations, which the last pipeline stage has."""
        losses: list[float] = self.of_all_stages(self.losses)[-1]
        return losses

    def memory(self) -> MeasuredMemory:
        """Memory of the rank that needs most."""
        begun, peak = step_memory_bytes(self.trainer, self.step)
        optimizer = self.trainer.optimizer
        held = (optimizer.parameter_bytes, optimizer.gradient_bytes, optimizer.state_bytes)
        stage = self.groups.pipeline_parallel.rank + 1
        most = max(self.of_all_ranks((sum(held) + peak, *held, begun, peak - begun, stage)))
        names = [entry.name for entry in fields(MeasuredMemory) if entry.name != "peak_bytes"]
        return MeasuredMemory(peak_bytes=most[0], **dict(zip(names, most[1:], strict=True)))


def measured(
    run: Run, layout: Layout, groups: Groups, *, seconds: float, command: str, profile: Path | None = None
) -> StepRecord:
    """The record of one stage; every rank takes part. `profile` is where a trace of one more step of rank 0 goes."""
    sensor = Nvml.open()
    before = sensor.readings()
    work = StepMeasurement(run, layout, groups)
    times = work.timed_s(seconds)
    after = sensor.readings()
    others = others_on_gpus(sensor.computing(), groups.world.ranks)
    low, middle, high = statistics.quantiles(times, n=4)
    marked = work.profiled(min(max(round(seconds / middle), FEWEST_MARKED), MOST_MARKED))
    if profile is not None:
        write_profile(work.step, groups.device, profile if groups.world.rank == 0 else None)
    tokens = int(layout.tokens_per_iteration)
    flop = float(model_flop_per_token(run.model, layout.sequence_length)) * tokens / middle / float(layout.gpus)
    spread = (high - low) / middle
    return StepRecord(
        name=run.name,
        settings=settings_of(run, layout),
        gpus=int(layout.gpus),
        tokens_per_iteration=tokens,
        iteration_time_s=middle,
        spread=spread,
        repeats=len(times),
        tokens_per_s=tokens / middle,
        model_flop_per_s=flop,
        mfu=flop / float(run.cluster.gpu.peak(layout.precision)),
        profiled_iteration_time_s=marked.iteration_time_s,
        between_s=marked.between_s,
        exposed_communication_s=marked.exposed_communication_s,
        rank_waiting_s=marked.rank_waiting_s,
        operators=marked.operators,
        collectives=work.collectives(),
        memory=work.memory(),
        losses=work.all_losses(),
        power_w=_power_w(after),
        warnings=[
            *warnings(before, after),
            *doubts(spread, work.taken_away_per_s if is_alone(groups) else 0.0),
            *who_else(groups, work.cores, others),
            *moved(work.distances_s),
        ],
        provenance=provenance(groups.device.type, command)
        | {OTHERS: f"{work.cores.others:.2f}"}
        | distance_text(work.distances_s),
        pipeline_stages=marked.pipeline_stages,
    )


def _power_w(readings: Sequence[Any]) -> float | None:
    powers = [each.power_w for each in readings if each.power_w is not None]
    return statistics.fmean(powers) if powers else None


def is_alone(groups: Groups) -> bool:
    """Whether nobody of this measurement needs the core of the thread that computes; with several ranks gloo's threads do."""
    return groups.device.type == "cpu" and groups.world.ranks == 1


def who_else(groups: Groups, cores: CoreUse, on_gpus: list[str]) -> list[str]:
    """Who else used what was measured: GPUs, or the cores where these are."""
    if groups.device.type == "cuda":
        return on_gpus
    return [sentence] if (sentence := cores.text()) else []


def doubts(spread: float, taken_away_per_s: float) -> list[str]:
    """What to doubt of times with such a spread, of a rank whose core went to others so often."""
    sentences = []
    if spread > WIDE:
        sentences.append(
            f"the middle half of the steps spreads over {spread:.0%} of their median: too wide to conclude from; measure again"
        )
    if taken_away_per_s > OFTEN_PER_S:
        sentences.append(
            f"the core of a rank went to other processes {taken_away_per_s:.0f} times a second: these are times of a machine "
            "that does something else too"
        )
    return sentences


def times_taken_away() -> int:
    """How often this thread had to leave its core to another one."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def settings_of(run: Run, layout: Layout) -> dict[str, Any]:
    """Model and layout as plain values."""
    return {
        "model": _plain(mapping_of(run.model)),
        "layout": _plain(mapping_of(layout)),
        "cluster": run.cluster.name,
        "stack": run.stack.name,
    }


def _plain(value: Any) -> Any:
    """Mappings and lists of numbers as JSON takes them."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value.item() if hasattr(value, "item") else value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a preset run, or a YAML, TOML or JSON run file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--stage", type=int, default=1, help="which stage of the run, from 1")
    parser.add_argument("--device", choices=KINDS, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to time steps")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="a trace of one more step, as torch.profiler sees it")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")
    return parser.parse_args()


def _code(chosen: argparse.Namespace) -> int:
    """Measure and write, whole or not at all. No process group outlives this call: gloo's threads would abort the exit."""
    try:
        run = read_candidates(chosen.run, chosen.overrides)[0].run
        layout = stage_of(run, chosen.stage)
        command = f"perfmodel measure {chosen.run} {' '.join(f'--set {each}' for each in chosen.overrides)}".strip()
        with started(chosen.device) as device:
            groups = make_groups(device, run.model, layout)
            found = measured(run, layout, groups, seconds=chosen.seconds, command=command, profile=chosen.profile)
        if groups.world.rank == 0:
            write_text(chosen.output, json.dumps(found.document(), indent=1) + "\n")
    except PerfmodelError as error:
        print(f"perfmodel: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def main() -> None:
    """Measure as the arguments say; exit with one sentence where that is not possible."""
    sys.exit(_code(_arguments()))


if __name__ == "__main__":
    main()
