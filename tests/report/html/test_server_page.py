"""The page of a server."""

from __future__ import annotations

import perfmodel as pm
from perfmodel.report.html.server import server_page
from tests.report.html.parsed_pages import parsed_page


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


def test_nothing_that_fits_is_a_page_that_says_no() -> None:
    """Without figures."""
    made = server_page(pm.infer("llama-3.1-70b", gpu="h100-sxm-80gb"))
    assert not made.fits
    assert not made.figures
