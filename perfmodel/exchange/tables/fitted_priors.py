"""Which numbers were fitted on published runs, and on which of their rows: data/fitted_priors.yaml."""

from __future__ import annotations

from perfmodel.evidence.leave_out import FittedPrior
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.documents import read_mapping


def fitted_priors() -> tuple[FittedPrior, ...]:
    """What `perfmodel validate --leave-source-out` estimates anew without the source that it scores."""
    return tuple(
        FittedPrior(
            key=str(each["key"]),
            rows=each["rows"],
            value=float(each["value"]),
            spread=float(each["spread"]),
            of_mixtures=bool(each.get("of_mixtures")),
        )
        for each in read_mapping(DATA / "fitted_priors.yaml")["priors"]
    )
