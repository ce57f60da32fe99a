"""Trains the reference model of a run on seeded data, saves what it has learnt, and goes on with it when it is started again.

    torchrun --nproc-per-node 2 -m perfmodel.benchmarks.measure.steps.train RUN --iterations 100 --checkpoint FOLDER --every 10
    python -m perfmodel.benchmarks.measure.steps.train RUN --set data_parallel=1 --iterations 100 --checkpoint FOLDER

Started again after the last iteration it has nothing to do. A run that was killed loses what came after its last checkpoint,
and repeats it with the same losses. A checkpoint of which something is missing is named, and the one before it is used.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # as AdamW would at its first step, in each rank: ranks of a CPU are forked after this

from perfmodel.benchmarks.measure.steps.ranks import stage_of
from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.run_files import read_candidates
from perfmodel.model.groups import make_groups
from perfmodel.model.training.checkpoint import latest_whole, load, save
from perfmodel.model.training.launch import started
from perfmodel.model.training.trainer import Trainer
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import Run


def train(run: Run, layout: Layout, device: torch.device, chosen: argparse.Namespace) -> None:
    """All iterations that the last checkpoint does not hold."""
    groups = make_groups(device, run.model, layout)
    trainer = Trainer(run.model, layout, groups, seed=chosen.seed)
    last, cut = latest_whole(chosen.checkpoint)
    for sentence in cut:
        _say(trainer, f"warning: {sentence}")
    if last:
        load(trainer, last)
        _say(trainer, f"goes on from {last}")
    while trainer.iteration < chosen.iterations:
        start = time.perf_counter()
        loss = trainer.mean_loss(trainer.step(trainer.micro_batches()))
        rate = float(layout.tokens_per_iteration) / (time.perf_counter() - start)
        _say(trainer, f"iteration {trainer.iteration}  loss {loss:.6f}  {rate:,.0f} tokens/s")
        if trainer.iteration % chosen.every == 0 or trainer.iteration == chosen.iterations:
            save(trainer, chosen.checkpoint)


def _say(trainer: Trainer, sentence: str) -> None:
    if trainer.groups.world.rank == 0:
        print(sentence, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a preset run, or a YAML, TOML or JSON run file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--stage", type=int, default=1, help="which stage of the run, from 1")
    parser.add_argument("--iterations", type=int, required=True, help="of the whole run, those of its checkpoints among them")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--every", type=int, default=100, help="iterations from one checkpoint to the next")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and of the data")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def _checked(chosen: argparse.Namespace) -> argparse.Namespace:
    for name in ("iterations", "every"):
        if getattr(chosen, name) < 1:
            raise InputError(f"{getattr(chosen, name)} must be at least 1", key=f"--{name}")
    return chosen


def _code(chosen: argparse.Namespace) -> int:
    try:
        run = read_candidates(_checked(chosen).run, chosen.overrides)[0].run
        layout = stage_of(run, chosen.stage)
        with started(chosen.device) as device:
            train(run, layout, device, chosen)
    except PerfmodelError as error:
        print(f"perfmodel: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def main() -> None:
    """Train; one sentence when it cannot."""
    code = _code(_arguments())
    if code:  # outside of the except clause, whose traceback would keep process groups alive until Python itself has ended
        sys.exit(code)


if __name__ == "__main__":
    main()
