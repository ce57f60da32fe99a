"""Real passes of a served model on this machine's ranks, as one record: prefill and decode, their operators and messages.

    torchrun --nproc-per-node 2 -m perfmodel.benchmarks.measure.steps.served_passes RUN --sequences 4 --output record.json
    python -m perfmodel.benchmarks.measure.steps.served_passes RUN --input-tokens 512 --output-tokens 32 --output record.json

`perfmodel measure --infer` starts it for all ranks of a machine. All prompts are read in one pass, then tokens follow, the
likeliest each time: rounds are timed first, as they are; then some are run with marks around their operators, and one for the
calls that torch.distributed sees. Tokens meet experts that are drawn at random, as a forecast assumes: what a router without
training says of a few tokens is no load.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from perfmodel.benchmarks.measure.core_distance import distance_text, moved
from perfmodel.benchmarks.measure.kernels.core_exchange import core_exchange
from perfmodel.benchmarks.measure.machine import Nvml, provenance, warnings
from perfmodel.benchmarks.measure.neighbours import OTHERS, CoreTimes, core_use, others_on_gpus
from perfmodel.benchmarks.measure.steps.marked_steps import MarkedStep, StepProfile, step_profile
from perfmodel.benchmarks.measure.steps.ranks import KINDS, ServedLoad, stage_of
from perfmodel.benchmarks.measure.steps.training_step import (
    SECONDS,
    doubts,
    gathered,
    is_alone,
    seconds_of,
    settings_of,
    times_taken_away,
    who_else,
)
from perfmodel.errors import PerfmodelError
from perfmodel.evidence.steps.pass_records import InferRecord, PassRecord
from perfmodel.evidence.steps.step_records import CollectiveCount
from perfmodel.exchange.output import write_text
from perfmodel.exchange.questions.serving.served_models import served
from perfmodel.exchange.run_files import read_candidates
from perfmodel.model.counting import CollectiveCounter
from perfmodel.model.generation.generator import Generator
from perfmodel.model.groups import Groups, make_groups
from perfmodel.model.operators import Recorder, recording
from perfmodel.model.parts.router import Routing
from perfmodel.model.training.data import batch
from perfmodel.model.training.launch import started
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import Run

FEWEST: Final = 7  # prefill passes,
FEWEST_OF_LONG: Final = 3  # of those that alone take the time that was asked for,
MOST: Final = 200  # and no more rounds
PROFILED: Final = 5
SEED: Final = 3


class PassMeasurement:
    """The passes of one rank."""

    def __init__(self, run: Run, layout: Layout, groups: Groups, load: ServedLoad) -> None:
        self.groups, self.load = groups, load
        model = served(run.model)
        self.generator = Generator(model, layout, groups, routing=Routing(drawn=True))
        self.generator.make_room(load.sequences, load.input_tokens + load.output_tokens)
        sizes = {"sequences": load.sequences, "length": load.input_tokens, "vocabulary": int(model.vocab_size)}
        self.prompts = batch(seed=SEED, iteration=0, **sizes)[0].to(groups.device)
        self.last = self.prompts[:, -1]
        self.taken_away_per_s = 0.0
        self.exchange = core_exchange(groups.device.type)
        self.distances_s: list[float] = []  # of the cores of several ranks, before, between and behind timed and marked rounds

    def prefill(self) -> None:
        """Read all prompts anew."""
        self.last = self.generator.likeliest(self.generator.prefill(self.prompts))

    def decode(self) -> None:
        """One more token of every sequence."""
        self.last = self.generator.likeliest(self.generator.decode(self.last))

    def round_of(self, timed: Callable[[Callable[[], None]], None]) -> None:
        """All passes of one batch of requests, each as `timed` runs it."""
        self.generator.forget(0)
        timed(self.prefill)
        for _ in range(self.load.output_tokens - 1):
            timed(self.decode)

    def times_s(self, seconds: float) -> tuple[list[float], list[float]]:
        """Times [s] of prefill and of decode passes, the slowest rank's."""
        rounds = [self._timed_round()]  # warms up
        number = max(round(seconds / sum(rounds[0])), FEWEST_OF_LONG if rounds[0][0] > seconds / FEWEST else FEWEST)
        self._look()
        before = times_taken_away()
        rounds = [self._timed_round() for _ in range(min(number, MOST))]
        taken = (times_taken_away() - before) / sum(map(sum, rounds))
        self.taken_away_per_s = max(gathered(taken, self.groups))
        self._look()
        return [each[0] for each in rounds], [each for of_round in rounds for each in of_round[1:]]

    def _look(self) -> None:
        """How far the cores of the ranks are from each other now."""
        if self.exchange:
            self.distances_s.append(self.exchange.distance_s())

    def _timed_round(self) -> list[float]:
        own: list[float] = []
        self.round_of(lambda work: own.append(seconds_of(work, self.groups)))
        return [max(each) for each in zip(*gathered(own, self.groups), strict=True)]

    def profiled(self) -> tuple[StepProfile, StepProfile]:
        """Passes with marks around their operators."""
        found: list[MarkedStep] = []
        for _ in range(PROFILED):
            self.round_of(lambda work: found.append(self._marked(work)))
        self._look()
        each = self.load.output_tokens
        prefill = found[::each]
        return step_profile(prefill), step_profile([step for place, step in enumerate(found) if place % each])

    def _marked(self, work: Callable[[], None]) -> MarkedStep:
        recorder = Recorder(self.groups.device)

        def marked() -> None:
            with recording(recorder):
                work()

        seconds_of(marked, self.groups)
        every = gathered((recorder.executions_s(), recorder.messages), self.groups)
        messages = {label: across for _, of_rank in every for label, across in of_rank.items()}
        return MarkedStep(ranks=[seconds for seconds, _ in every], messages=messages, stages=1)

    def collectives(self) -> list[list[CollectiveCount]]:
        """What torch sees of a prefill and of a decode pass."""
        found: list[list[CollectiveCount]] = []

        def counted(work: Callable[[], None]) -> None:
            with CollectiveCounter() as seen:
                work()
            entries = [(*key, calls, seen.payload_bytes[key]) for key, calls in sorted(seen.calls.items())]
            found.append([CollectiveCount(kind=k, ranks=r, calls=calls, payload_bytes=b) for k, r, calls, b in entries])

        self.round_of(counted)
        return found[:2]


def measured(run: Run, layout: Layout, groups: Groups, load: ServedLoad, *, seconds: float, command: str) -> InferRecord:
    """The record of one load; every rank takes part."""
    torch.manual_seed(SEED)  # of the experts that tokens meet
    sensor = Nvml.open()
    before = sensor.readings()
    work = PassMeasurement(run, layout, groups, load)
    begun = CoreTimes.now()
    times = work.times_s(seconds)
    after, on_gpus = sensor.readings(), others_on_gpus(sensor.computing(), groups.world.ranks)
    profiles = work.profiled()
    cores = core_use(gathered((begun, CoreTimes.now()), groups))
    calls = work.collectives()
    prefill, decode = (_pass_record(*each) for each in zip(times, profiles, calls, strict=True))
    taken = work.taken_away_per_s if is_alone(groups) else 0.0
    return InferRecord(
        name=run.name,
        settings=settings_of(run, layout),
        gpus=int(layout.tensor_parallel),
        sequences=load.sequences,
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        prefill=prefill,
        decode=decode,
        weight_bytes=max(gathered(work.generator.weight_bytes, groups)),
        cache_bytes=max(gathered(work.generator.cache_bytes, groups)),
        warnings=[
            *warnings(before, after),
            *doubts(max(prefill.spread, decode.spread), taken),
            *who_else(groups, cores, on_gpus),
            *moved(work.distances_s),
        ],
        provenance=provenance(groups.device.type, command) | {OTHERS: f"{cores.others:.2f}"} | distance_text(work.distances_s),
    )


def _pass_record(times: list[float], profile: StepProfile, calls: list[CollectiveCount]) -> PassRecord:
    low, middle, high = statistics.quantiles(times, n=4)
    return PassRecord(
        seconds=middle,
        spread=(high - low) / middle,
        repeats=len(times),
        profiled_s=profile.iteration_time_s,
        between_s=profile.between_s,
        operators=profile.operators,
        collectives=calls,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a preset run, or a YAML, TOML or JSON run file: its model, its precision")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--sequences", type=int, default=1, help="prompts that are read together and decode together")
    parser.add_argument("--input-tokens", type=int, required=True, help="of each prompt")
    parser.add_argument("--output-tokens", type=int, required=True, help="that come back of each")
    parser.add_argument("--device", choices=KINDS, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to time passes")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")
    return parser.parse_args()


def _code(chosen: argparse.Namespace) -> int:
    """Measure and write, whole or not at all. No process group outlives this call: gloo's threads would abort the exit."""
    load = ServedLoad(sequences=chosen.sequences, input_tokens=chosen.input_tokens, output_tokens=chosen.output_tokens)
    try:
        run = read_candidates(chosen.run, chosen.overrides)[0].run
        layout = stage_of(run, 1)
        command = f"perfmodel measure {chosen.run} --infer {load.options}"
        with started(chosen.device) as device:
            groups = make_groups(device, run.model, layout)
            found = measured(run, layout, groups, load, seconds=chosen.seconds, command=command)
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
