"""Which version of what does this project develop with, and under which licence? The pins of CI, from what is installed here.

python -m perfmodel.benchmarks.project.dependencies > constraints.txt

Every distribution that the extras of pyproject.toml bring is listed, with those that others need. A wheel asks for ranges:
only who develops is held to these. Build numbers (+cpu) are left out: they name a place, not a version.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Final

OWN: Final = "perfmodel"
EXTRAS: Final = ("dev", "docs", "fit", "report", "torch")
HEAD: Final = """\
# What this project is developed and tested with, by name, and the licence of each. A plain install takes any version of the
# ranges in pyproject.toml. Written by python -m perfmodel.benchmarks.project.dependencies, in an environment made anew.
# torch has no +cpu here: a looser range than one version downloads gigabytes of CUDA.
"""
NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
EXTRA: Final = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
LONGEST: Final = 40  # of a licence that is named, not printed whole
KNOWN: Final = {  # words of licences -> their SPDX names
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def needed(name: str, extras: tuple[str, ...], found: dict[str, Distribution]) -> None:
    """Add what a distribution needs with some extras, and what that needs, as far as it is installed."""
    for line in distribution(name).requires or ():
        match, extra = NAME.match(line), EXTRA.search(line)
        if match is None or (extra is not None and extra[1] not in extras):
            continue
        wanted = match[0].lower().replace("_", "-")
        try:
            each = distribution(wanted)
        except PackageNotFoundError:  # of another platform, or an extra that nobody asked for
            continue
        if wanted not in found and wanted != OWN:
            found[wanted] = each
            needed(wanted, (), found)


def licence(each: Distribution) -> str:
    """The licence that a distribution states: as an SPDX expression, by a name, or by its classifiers."""
    expression, plain = (" ".join(each.metadata.get_all(key) or ()) for key in ("License-Expression", "License"))
    classifiers = [line.split("::")[-1].strip() for line in each.metadata.get_all("Classifier") or () if "License ::" in line]
    is_name = 0 < len(plain) <= LONGEST and "\n" not in plain
    stated = [expression] if expression else [plain] if is_name else classifiers
    return " OR ".join(KNOWN.get(word, word) for word in stated) or "unknown"


def lines() -> Iterator[str]:
    """A pin and a licence for each distribution, in alphabetical order."""
    found: dict[str, Distribution] = {}
    needed(OWN, EXTRAS, found)
    pins = {name: f"{name}=={each.version.partition('+')[0]}" for name, each in found.items()}
    width = max(map(len, pins.values()))
    return (f"{pins[name]:{width}}  # {licence(found[name])}" for name in sorted(found))


if __name__ == "__main__":
    sys.stdout.write(HEAD + "\n".join(lines()) + "\n")
