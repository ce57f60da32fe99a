"""Is every price an offer of somebody on a day, and is it found by name, for a cluster, or as dollars?"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.presets import economics_preset, preset_names, read_preset
from perfmodel.exchange.prices import offer_sentence, offered, price_terms, prices_of
from perfmodel.exchange.run_files import read_candidates

DAY = re.compile(r"as listed on (20\d\d-\d\d-\d\d)$")


@pytest.mark.parametrize("name", offered())
def test_a_price_names_whose_it_is_the_day_and_the_address(name: str) -> None:
    """It is soon stale: a reader should know where to look."""
    terms = economics_preset(name)
    _, sources = read_preset("economics", name)
    assert DAY.search(terms.offer)
    assert re.search(r"https?://|github\.com/", sources["dollars_per_gpu_hour"])
    assert terms.billing == ("reserved" if name.endswith("-reserved") else "on_demand")


def test_an_offer_changes_the_typical_terms_by_its_price_alone() -> None:
    """Failures, power and checkpoints are as typical."""
    typical, priced = economics_preset("typical"), economics_preset("p5")
    assert replace(priced, name=typical.name, offer=typical.offer, dollars_per_gpu_hour=None) == typical


def test_most_offers_are_of_a_cluster_that_ships() -> None:
    """On-demand finds them; at least those of four clouds."""
    own = set(offered()) & set(preset_names("clusters"))
    assert {"p4d", "p5", "p5en", "a3-ultra", "nd-h100-v5", "coreweave-h100", "coreweave-b200"} <= own


def test_dollars_are_dollars() -> None:
    """With or without their sign, of no offer."""
    assert price_terms("$2.5", "p5") == price_terms(2.5, "p5") == {"dollars_per_gpu_hour": 2.5}


def test_on_demand_and_reserved_are_those_of_the_cluster() -> None:
    """By its name."""
    assert price_terms("on-demand", "p5") == price_terms("p5", "dgx-h100")
    with pytest.raises(InputError, match="no reserved price of 'p5' is known; give dollars"):
        price_terms("reserved", "p5")


@pytest.mark.parametrize("price", ["p6", "2.5h", "typical"])
def test_what_is_no_price_is_refused(price: str) -> None:
    """With what would work."""
    with pytest.raises(InputError, match=r"is neither dollars, as in 2\.5, nor a price that is known"):
        price_terms(price, "p5")


def test_each_cluster_may_have_its_own_price() -> None:
    """As many prices as clusters, or one for all."""
    assert prices_of("2,p5", ["a", "b"]) == ["2", "p5"]
    assert prices_of("b=p5,a=2", ["a", "b"]) == ["2", "p5"]
    assert prices_of(None, ["a", "b"]) == [None, None]
    with pytest.raises(InputError, match="'c' is none of the clusters; known: a, b"):
        prices_of("a=2,c=3", ["a", "b"])
    with pytest.raises(InputError, match="b has no price; give one for each cluster"):
        prices_of("a=2", ["a", "b"])
    with pytest.raises(InputError, match="2 prices for 3 clusters"):
        prices_of("2,3", ["a", "b", "c"])


def test_a_run_with_an_offer_says_how_old_its_price_is() -> None:
    """Unless another price is set over it."""
    (found,) = read_candidates("nemotron-4-15b", ["economics=p5"])
    (said,) = offer_sentence(found.run.economics)
    assert said in found.assumptions
    assert "such prices are soon stale" in said
    (other,) = read_candidates("nemotron-4-15b", ["economics=p5", "economics.dollars_per_gpu_hour=2"])
    assert not [sentence for sentence in other.assumptions if "GPU-hour" in sentence]
