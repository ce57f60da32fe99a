"""`perfmodel plan --cluster a,b,c`: the same plan on several clusters, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.commands.console import STOPPED, emit
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perfmodel.exchange.questions.plan_arguments import PlanArguments


def named_clusters(cluster: str | None) -> list[str]:
    """The clusters that are named: one, or several between commas. Errors: InputError for one that is named twice."""
    if cluster is None or "," not in cluster or Path(cluster).is_file():
        return [] if cluster is None else [cluster]
    names = [name.strip() for name in cluster.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"--cluster {cluster} names a cluster twice, or none between two commas")
    return names


def check_alone(clusters: Sequence[str], options: Mapping[str, object]) -> None:
    """Raise InputError for an option that writes one plan beside several clusters."""
    for option in (name for name, given in options.items() if given is not None):
        raise InputError(f"{option} writes one plan, and --cluster names {len(clusters)} clusters; name one")


def print_hardware_plans(
    source: str | dict[str, Any],
    clusters: Sequence[str],
    arguments: PlanArguments,
    *,
    most_gpus: int,
    on_progress: Callable[[int], None],
    form: str,
    output: Path | None,
) -> None:
    """Plan for each cluster, and print them side by side; exit code 1 where none has an answer."""
    from perfmodel import api

    found = api.plan_hardware(source, clusters, most_gpus=most_gpus, on_progress=on_progress, **arguments)

    def document() -> dict[str, Any]:
        from perfmodel.report.json.plan import hardware_document

        return hardware_document(found)

    def report() -> RenderableType:
        from perfmodel.report.text.plans.hardware import hardware_report

        return hardware_report(found)

    emit(form, output, document=document, report=report, rows=found.rows)
    if not all(plan.complete for plan in found.plans.values()):
        raise typer.Exit(STOPPED)
    if not found.answers:
        raise typer.Exit(1)
