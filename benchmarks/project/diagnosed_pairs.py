"""Does a diagnosis name what made a measured run otherwise? Tried on pairs of published runs of one source.

    python -m perfmodel.benchmarks.project.diagnosed_pairs

Two runs of a source that differ in settings of one cause alone are a question with a known answer: the first as a person
describes it, with the time that the second was measured at. Pairs whose time lies within the interval of the first ask for no
explanation, and are counted apart. At most so many pairs of one source and cause are tried, the first in the order of the
table.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import permutations
from typing import Any, Final

from perfmodel.evidence.measured_rows import MeasuredRun
from perfmodel.exchange.building import leaves
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.questions.diagnosed_runs import diagnosis_priors
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.stack_fit import software_offering
from perfmodel.exchange.tables.published_runs import read_measured_runs
from perfmodel.explanation.measured.diagnosis import diagnosis
from perfmodel.spec.run import Run

PRIORS: Final = diagnosis_priors()
NAMES: Final = {each.key: each.name for each in PRIORS.settings}
MOST_ALIKE: Final = 4  # pairs of one source and cause
IGNORED: Final = ("name", "economics", "stack.name")


def settings(run: Run) -> dict[str, Any]:
    """Every value of a run by its key path, but for words about it."""
    every = leaves(Run, mapping_of(run))
    return {key: value for key, value in every if not key.startswith(IGNORED) and ".published" not in key}


def cause_between(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The one cause that all differences of two runs belong to; empty where there is none, or several."""
    keys = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    causes = {NAMES.get(key, NAMES["stack"] if key.startswith("stack.") else "") for key in keys}
    return causes.pop() if len(causes) == 1 else ""


def pairs() -> Iterator[tuple[str, MeasuredRun, MeasuredRun]]:
    """The cause, the run that is described, and the run that was measured."""
    by_source: dict[str, list[tuple[MeasuredRun, dict[str, Any]]]] = defaultdict(list)
    for row in read_measured_runs(DATA / "published_runs.csv").rows:
        if row.run is not None:
            by_source[row.source].append((row, settings(row.run)))
    for rows in by_source.values():
        tried: Counter[str] = Counter()
        for (described, its), (measured, others) in permutations(rows, 2):
            cause = cause_between(its, others)
            tried[cause] += 1
            if cause and tried[cause] <= MOST_ALIKE:
                yield cause, described, measured


def place_of(cause: str, described: MeasuredRun, measured: MeasuredRun) -> int | None:
    """Which place the true cause takes, from 1; None where the time lies within the interval."""
    run = described.run
    if run is None:
        return None
    stacks = software_offering(run, run.layout(run.stages[0]))
    found = diagnosis(run, place=0, measured_s=measured.iteration_time_s, priors=PRIORS, stacks=stacks)
    names = [each.name for each in found.causes]
    return None if found.is_expected else names.index(cause) + 1 if cause in names else len(names) + 1


def main() -> None:
    """Print how often the true cause comes first, and among the first three, by cause."""
    places: dict[str, list[int | None]] = defaultdict(list)
    for cause, described, measured in pairs():
        places[cause].append(place_of(cause, described, measured))
    for cause, several in [*places.items(), ("all", [each for some in places.values() for each in some])]:
        asked = [each for each in several if each is not None]
        first, near = (sum(each <= last for each in asked) for last in (1, 3))
        print(
            f"{cause}: {len(several) - len(asked)} within the interval; of {len(asked)} others {first} first, {near} in three"
        )


if __name__ == "__main__":
    main()
