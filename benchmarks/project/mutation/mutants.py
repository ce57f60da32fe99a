"""Do the tests of counts and times notice when an equation is wrong? A seeded sample of mutants, one after the other.

python -m perfmodel.benchmarks.project.mutation.mutants [--number N] [--seed S] [--only PART] [--at-import] [--list]

Each mutant is one small change of one file of count/ or timing/ in a copy of the tree: of an expression (mutations.py) or, with
--at-import, of a constant, a default or a table (import_time.py). Tests run against it (warm_tests.py)
until one fails: first the files that import the very module, then the others of its room, then the other room. Exit code 1
where fewer than 90 % are noticed. Mutants that change nothing that any number depends on are listed in equivalent_mutants.yaml,
each with the reason, and not counted.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import yaml

from perfmodel.benchmarks.project.mutation.import_time import import_mutations
from perfmodel.benchmarks.project.mutation.mutations import Mutation, mutations
from perfmodel.benchmarks.project.mutation.warm_tests import SECONDS, WarmTests

ROOT: Final = Path(__file__).resolve().parents[3]  # perfmodel/benchmarks is a link
ROOMS: Final = ("count", "timing")
COPIED: Final = ("perfmodel", "model", "benchmarks", "tests", "pyproject.toml")
EQUIVALENT: Final = Path(__file__).with_name("equivalent_mutants.yaml")
NUMBER: Final = 40
BAR: Final = 0.9


def every_mutant(only: str = "", *, at_import: bool = False) -> list[Mutation]:
    """All mutants of both rooms, but for those that are known to be equivalent."""
    made = import_mutations if at_import else mutations
    known, found = equivalent(), []
    for room in ROOMS:
        for path in sorted((ROOT / "perfmodel" / room).rglob("*.py")):
            module = path.relative_to(ROOT / "perfmodel").as_posix()
            found += [each for each in made(module, path.read_text(encoding="utf-8")) if each.key not in known]
    return [each for each in found if only in each.module]


def equivalent() -> Mapping[str, str]:
    """The mutants that no test can notice, with the reason of each."""
    known: Mapping[str, str] = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) or {}
    return known


def sample(every: Sequence[Mutation], number: int, seed: int) -> list[Mutation]:
    """Some of all mutants, the same ones for the same seed and source."""
    return random.Random(seed).sample(every, min(number, len(every)))  # noqa: S311 - a sample, not a secret


def copied_tree(source: Path, tree: Path) -> Path:
    """A copy of a tree with what a run of its tests has left: compiled files, as all files keep their times, and seconds."""
    tree.mkdir(parents=True)
    for name in (*COPIED, *((SECONDS,) if (source / SECONDS).exists() else ())):
        if (source / name).is_dir():
            shutil.copytree(source / name, tree / name, symlinks=True)
        else:
            shutil.copy2(source / name, tree / name)
    return tree


def is_noticed(mutant: Mutation, tree: Path, tests: WarmTests) -> bool:
    """Whether some test of count/ or timing/ fails; the file is as it was afterwards."""
    path = tree / "perfmodel" / mutant.module
    source = path.read_text(encoding="utf-8")
    path.write_text(mutant.applied(source), encoding="utf-8")
    try:
        return any(tests.fail(each) for each in tests_of(mutant.module, tree) if each)
    finally:
        path.write_text(source, encoding="utf-8")


def tests_of(module: str, tree: Path) -> list[list[str]]:
    """Tests of a module in the order in which they may notice a change: files that import it; the others, of its room first."""
    own, name = module.partition("/")[0], "perfmodel." + module.removesuffix(".py").replace("/", ".")
    rooms = sorted(ROOMS, key=lambda room: room != own)
    files = [path for room in rooms for path in sorted((tree / "tests" / room).rglob("test_*.py"))]
    near = [path for path in files if f"{name} import" in path.read_text(encoding="utf-8")]
    return [[str(path.relative_to(tree)) for path in some] for some in (near, [path for path in files if path not in near])]


def main() -> int:
    """Print each mutant with what the tests made of it; exit code 1 below the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=NUMBER, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the name of a module, as in count/memory")
    parser.add_argument("--at-import", action="store_true", help="change constants, defaults and tables")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="print the sample, run nothing")
    asked = parser.parse_args()
    chosen = sample(every_mutant(asked.only, at_import=asked.at_import), asked.number, asked.seed)
    if asked.list:
        print("\n".join(map(str, chosen)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return reported(chosen, Path(folder), asked.jobs)


def reported(chosen: Sequence[Mutation], folder: Path, jobs: int) -> int:
    """Try each mutant and say what became of it; 1 where too few were noticed, or where tests fail of the tree as it is."""
    sound = copied_tree(ROOT, folder / "sound")
    with WarmTests(sound, compiles=True) as tests:
        if tests.fail([f"tests/{room}" for room in ROOMS]):
            print("the tests fail without any change", file=sys.stderr)
            return 1
    with ExitStack() as stack:
        workers: SimpleQueue[tuple[Path, WarmTests]] = SimpleQueue()
        for job in range(jobs):
            tree = copied_tree(sound, folder / str(job))
            workers.put((tree, stack.enter_context(WarmTests(tree))))
        with ThreadPoolExecutor(jobs) as pool:
            noticed = sum(pool.map(lambda mutant: tried(mutant, workers), chosen))
    share = noticed / len(chosen)
    print(f"{noticed} of {len(chosen)} mutants noticed, {share:.0%}; the bar is {BAR:.0%}")
    return int(share < BAR)


def tried(mutant: Mutation, workers: SimpleQueue[tuple[Path, WarmTests]]) -> bool:
    """Whether a mutant is noticed, in the first tree that is free; it is printed."""
    tree, tests = workers.get()
    start = time.perf_counter()
    try:
        found = is_noticed(mutant, tree, tests)
    finally:
        workers.put((tree, tests))
    print(f"{'noticed ' if found else 'SURVIVED'} {time.perf_counter() - start:5.0f} s  {mutant}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
