"""Writes fitted coefficients as the files of perfmodel/data, each with its provenance and its error on rows it did not see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from perfmodel.benchmarks.fit.regression import Fit
from perfmodel.benchmarks.fit.tables import Source
from perfmodel.exchange.output import write_text

HEADER: Final = (
    "# Written by python -m perfmodel.benchmarks.fit; every number here is fitted, "
    "or kept for the reason that its source gives.\n"
)


def source_entry(
    source: Source, fit: Fit, *, what: str, errors: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, Any]:
    """What a profile says of one family: its table, version, licence, rows, date and held-out errors."""
    return {
        "what": what,
        "table": source.table,
        "version": source.version,
        "licence": source.licence,
        "rows": len(fit.measured_s),
        "fitted": datetime.now(UTC).date().isoformat(),
        **({"at_bounds": " ".join(fit.at_bounds)} if fit.at_bounds else {}),
        "held_out": {name: dict(error) for name, error in (errors or {"all": fit.held_out_error()}).items()},
    }


class _Dumper(yaml.SafeDumper):
    """Keeps long lists of numbers and short mappings on one line."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML asks for every value
        """Write every value out: anchors hide where a number stands."""
        return True


def _mapping(dumper: _Dumper, data: dict[str, Any]) -> Any:
    short = all(isinstance(value, int | float | str) for value in data.values()) and len(str(data)) < 110
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=short)


def _number(dumper: _Dumper, value: float) -> Any:
    digits, e, power = f"{value:.4g}".partition("e")
    text = digits if "." in digits else f"{digits}.0"  # what YAML takes for a number with a fraction
    return dumper.represent_scalar("tag:yaml.org,2002:float", text + e + power)


def _text(dumper: _Dumper, data: str) -> Any:
    quoted = "'" if re.fullmatch(r"[-+.\d]*[eE]?[-+.\d]*", data) else None  # what a reader could take for a number
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=quoted)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(float, _number)


def write_profile(path: Path, profile: Mapping[str, Any], *, header: str = HEADER) -> None:
    """Write `profile` at `path`, whole or not at all."""
    text = yaml.dump(dict(profile), Dumper=_Dumper, sort_keys=False, width=128, allow_unicode=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, header + text)
