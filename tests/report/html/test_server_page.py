"""The page of a server."""

from __future__ import annotations

import re
from collections import Counter

import perfmodel as pm
from perfmodel.report.html.server import server_page
from tests.report.html.parsed_pages import first_sight, parsed_page


def test_a_page_has_every_replica_its_figures_and_its_operators() -> None:
    """One view each; what does not fit says so and has no figure."""
    forecasts = pm.infer("llama-3.1-70b", gpu="h100-sxm-80gb", tensor_parallel="1,4", concurrency="1,max")
    made = server_page(forecasts, command="perfmodel infer llama-3.1-70b")
    parsed = parsed_page(made.html)
    assert list(made.figures) == ["clients", "operators-4"]
    assert made.fits
    assert "does not fit" in made.html
    assert "attention.core" in made.html
    assert "perfmodel infer llama-3.1-70b" in made.html
    assert parsed is not None


def forecasts_of_replicas() -> tuple[pm.ServingForecast, ...]:
    """Of 70B in 8 bits on 1, 2 and 4 H100, the first of which is tight with a little more memory than the default takes."""
    return pm.infer(
        "llama-3.1-70b", gpu="h100-sxm-80gb", tensor_parallel="1,2,4", precision="fp8", settings=["memory.fraction=0.91"]
    )


def test_a_number_stands_once_at_first_sight() -> None:
    """Of three digits and more: at a glance, not in the sentences above nor in a table below."""
    made = server_page(forecasts_of_replicas())
    found = re.findall(r"(?<![\w.])\d[\d,.]*\d", first_sight(made.html))
    numbers = Counter(number for number in found if len(re.sub(r"\D", "", number)) >= 3)
    assert len(numbers) > 6
    assert {number: times for number, times in numbers.items() if times > 1} == {}


def test_the_replica_that_fits_stands_first() -> None:
    """Not one that is tight before it; its numbers are at a glance."""
    tight, *fitting = forecasts = forecasts_of_replicas()
    said = first_sight(server_page(forecasts).html)
    assert tight.verdict == "tight"
    assert "On 1 GPU: tight" in said
    assert f"Requests at once {fitting[0].most_running:,} on 2 GPUs" in said


def test_nothing_that_fits_is_a_page_that_says_no() -> None:
    """Without figures."""
    made = server_page(pm.infer("llama-3.1-70b", gpu="h100-sxm-80gb"))
    assert not made.fits
    assert not made.figures
