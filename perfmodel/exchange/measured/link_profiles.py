"""From outputs of nccl-tests on a cluster to verdicts on its links, and to a cluster file whose links are as measured.

The file extends the cluster that the tests ran on, and stands where a cluster does: `cluster: cluster.yaml`, `--cluster`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.building import build
from perfmodel.exchange.chip_names import may_mean
from perfmodel.exchange.measured.nccl_calls import RanksBeside, link_tests, rows_at
from perfmodel.exchange.presets import expand_part, seen_from
from perfmodel.exchange.questions.diagnosed_runs import diagnosis_priors
from perfmodel.exchange.syntax.documents import yaml_text
from perfmodel.exchange.translation.conversion import nested
from perfmodel.explanation.measured.link_fit import LinkFit, link_fit
from perfmodel.explanation.measured.link_tests import LinkTest, LinkVerdict, link_verdict
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.machines.hardware import Cluster

DIGITS: Final = 4
MEASURED: Final = ", links as measured"
HEADER: Final = (
    "# Links as nccl-tests measured them: what differs from the cluster that is extended. For run files: cluster: THIS FILE,\n"
    "# and for --cluster. Written by perfmodel calibrate --from-nccl-tests\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCalibration:
    """What tests say of the links of a cluster: a verdict on each, and the links that they ask for."""

    name: str  # of the cluster as it was typed
    cluster: Cluster
    verdicts: tuple[LinkVerdict, ...]
    fit: LinkFit
    warnings: tuple[str, ...]


def link_calibration(paths: Sequence[Path], name: str, beside: RanksBeside) -> LinkCalibration:
    """The tests in some outputs of nccl-tests, on the cluster called `name`. Errors: InputError."""
    try:
        cluster = build(Cluster, expand_part(Cluster, "clusters", name))
    except PerfmodelError as error:
        raise error.under("--cluster") from None
    priors = diagnosis_priors()
    tests = [test for path in paths for test in link_tests(path, cluster, beside)]
    if all(test.call.group.ranks <= 1 for test in tests):
        raise InputError(f"{paths[0]}: one GPU alone sends nothing; run nccl-tests on several")
    tests = [test for test in tests if test.call.group.ranks > 1]
    return LinkCalibration(
        name=name,
        cluster=cluster,
        verdicts=tuple(link_verdict(test, cluster, priors.links, law_error=float(priors.link_error.value)) for test in tests),
        fit=link_fit(tests, cluster, least_spread=float(priors.link_repeat.value)),
        warnings=tuple(_other_gpus(paths, cluster)),
    )


def _other_gpus(paths: Sequence[Path], cluster: Cluster) -> list[str]:
    """A sentence where tests ran on other GPUs than the cluster has."""
    gpus = dict.fromkeys(row.gpu for path in paths for row in rows_at(path) if row.gpu != "unknown")
    others = [gpu for gpu in gpus if not may_mean(gpu, cluster.gpu.name)]
    return [f"the tests ran on {gpu}, {cluster.name} has {cluster.gpu.name}" for gpu in others]


def cluster_file_text(found: LinkCalibration, *, files: Sequence[str], folder: Path, day: str, version: str) -> str:
    """The text of a cluster file in `folder`; `files` are the names of the outputs, `day` and `version` those of the fit."""
    tests = "; ".join(dict.fromkeys(_test_words(each.test) for each in found.verdicts))
    source = f"nccl-tests ({tests}) in {', '.join(files)}, fitted by perfmodel {version} on {day}"
    numbers: dict[str, Any] = {}
    for each in found.fit.factors:
        for path in each.paths:
            value = _rounded(float(attrgetter(path)(found.cluster)) * each.factor)
            numbers[path] = {"value": value, "spread": _rounded(each.spread), "source": source}
    name = f"{found.cluster.name.removesuffix(MEASURED)}{MEASURED}"
    document = {"extends": found.name, "name": name, **nested(numbers)}
    return HEADER + yaml_text(seen_from(folder, Cluster, document))


def name_in_words(test: LinkTest) -> str:
    """A test in words: all-reduce over 16 nodes (128 GPUs)."""
    kind = {"point_to_point": "send-receive"}.get(test.call.kind, test.call.kind.replace("_", "-"))
    ranks = int(test.call.group.ranks)
    return f"{kind} over {test.nodes} nodes ({ranks:,} GPUs)" if test.nodes > 1 else f"{kind} over {ranks} GPUs of a node"


def _test_words(test: LinkTest) -> str:
    sizes = sorted({float(test.payload_bytes[0]), float(test.payload_bytes[-1])})
    return f"{name_in_words(test)}, {' to '.join(size_text(each) for each in sizes)}"


def size_text(size: float) -> str:
    """A message size as nccl-tests take it.

    >>> size_text(8), size_text(2**20), size_text(1.5 * 2**30)
    ('8 B', '1 MiB', '1.5 GiB')
    """
    for scale, unit in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if size >= scale:
            return f"{size / scale:.4g} {unit}"
    return f"{size:.4g} B"


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
