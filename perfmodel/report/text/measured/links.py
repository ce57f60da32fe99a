"""How what nccl-tests say of the links of a cluster looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.exchange.measured.link_profiles import LinkCalibration, name_in_words, size_text
from perfmodel.explanation.measured.link_fit import LinkFit
from perfmodel.explanation.measured.link_tests import LinkVerdict
from perfmodel.report.text.terminal import plain_table, section, titled
from perfmodel.units import seconds_text

WORDS: Final = {-1: "slower", 0: "", 1: "faster"}
MOST_CAUSES: Final = 2
UNCHANGED: Final = 0.005  # of a factor: less is rounding


def link_report(found: LinkCalibration) -> Group:
    """A sentence and a table for each test, and what its links are other than the cluster says."""
    parts: list[RenderableType] = [Text(verdict_sentence(each)) for each in found.verdicts]
    for each in found.verdicts:
        parts += [*_checks(each), titled(f"Bus bandwidth, {name_in_words(each.test)}", _sizes_table(each))]
    parts.append(section(f"What was fitted, over {found.cluster.name}", list(_fit_lines(found.fit))))
    return Group(*parts)


def verdict_sentence(each: LinkVerdict) -> str:
    """all-reduce over 16 nodes (128 GPUs): 31 GB/s, expected 41 to 46 GB/s: looks like one rail down."""
    low, high = (float(ends[-1]) / 1e9 for ends in each.expected_bus_bytes_per_s)
    measured = float(each.test.bus_bytes_per_s[-1]) / 1e9
    size = size_text(float(each.test.payload_bytes[-1]))
    start = f"{name_in_words(each.test)}: {measured:.3g} GB/s at {size}, expected {low:.3g} to {high:.3g}"
    if each.sign == 0:
        return f"{start}: as expected."
    if each.is_slight:
        than = "slower" if each.sign < 0 else "faster"
        return f"{start}: slightly {than} than expected, by no more than the equations miss healthy links."
    if not each.causes:
        if each.sign > 0:
            return f"{start}: faster than expected; is it this cluster that they ran on?"
        return f"{start}: slower than expected, by no fault that is known here."
    return f"{start}: looks like {', or '.join(cause.name for cause in each.causes[:MOST_CAUSES])}."


def _checks(each: LinkVerdict) -> Iterator[RenderableType]:
    if each.causes:
        yield section("What tells", [("-", f"{cause.name}: {cause.check}") for cause in each.causes[:MOST_CAUSES]])


def _sizes_table(each: LinkVerdict) -> RenderableType:
    table = plain_table()
    for heading in ("size", "time", "measured GB/s", "expected GB/s", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    low, high = each.expected_bus_bytes_per_s
    for place, size in enumerate(each.test.payload_bytes):
        bus = float(each.test.bus_bytes_per_s[place])
        ends = f"{low[place] / 1e9:.3g} to {high[place] / 1e9:.3g}"
        time = seconds_text(float(each.test.seconds[place]))
        table.add_row(size_text(float(size)), time, f"{bus / 1e9:.3g}", ends, WORDS[int(each.signs[place])])
    return table


def _fit_lines(fit: LinkFit) -> Iterator[tuple[str, str]]:
    for each in fit.factors:
        more = f" and {len(each.paths) - 1} more" if len(each.paths) > 1 else ""
        how = f"x {each.factor:.3g}" if abs(each.factor - 1.0) > UNCHANGED else "as it was"
        yield "-", f"{each.paths[0]}{more}: {how}, +-{100 * each.spread:.0f} %"
    for path in fit.untold:
        yield "-", f"{path}: no size tells it; it stays"
    errors = f"median {100 * fit.median_error:.1f} %, 90th percentile {100 * fit.p90_error:.0f} %"
    yield "-", f"error of the sizes above with these numbers: {errors}"
