"""What a GPU-hour costs: a number of dollars, or what a cloud lists (data/economics/), by its name or for a cluster.

An offer has the name of the cluster that it is the price of (`p5`), and `-reserved` behind it for reserved GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from perfmodel.errors import InputError, UnitError, did_you_mean, shown
from perfmodel.exchange.presets import economics_preset, preset_names
from perfmodel.spec.economics import NO_OFFER, Economics
from perfmodel.units import parse_quantity

KIND: Final = "economics"
OWN_OFFERS: Final = {"on-demand": "", "on_demand": "", "reserved": "-reserved"}  # of the cluster: what follows its name
OF_AN_OFFER: Final = ("dollars_per_gpu_hour", "billing", "offer")


def offered() -> tuple[str, ...]:
    """The names of the prices that are shipped.

    >>> "p5" in offered(), "typical" in offered()
    (True, False)
    """
    return tuple(name for name in preset_names(KIND) if economics_preset(name).dollars_per_gpu_hour is not None)


def price_terms(price: str | float, cluster: Any) -> dict[str, Any]:
    """The economic terms that a price sets. Errors: InputError for what is neither dollars nor an offer that is known.

    >>> price_terms("2.5", "dgx-h100"), price_terms("on-demand", "p5")["dollars_per_gpu_hour"]
    ({'dollars_per_gpu_hour': 2.5}, 6.88)
    """
    try:
        return {"dollars_per_gpu_hour": parse_quantity(price, "dollars")}
    except UnitError:
        return _offer_terms(str(price).strip(), cluster)


def _offer_terms(name: str, cluster: Any) -> dict[str, Any]:
    names = offered()
    if name in OWN_OFFERS:
        wanted = f"{cluster}{OWN_OFFERS[name]}"
        if wanted not in names:
            instead = f"give dollars, as in --price 2.5, or the name of one (perfmodel list {KIND})"
            raise InputError(f"no {name} price of {shown(cluster)} is known; {instead}", key="price")
        name = wanted
    if name not in names:
        hint = did_you_mean(name, names)
        raise InputError(f"{shown(name)} is neither dollars, as in 2.5, nor a price that is known; {hint}", key="price")
    terms = economics_preset(name)
    return {each: getattr(terms, each) for each in OF_AN_OFFER}


def offer_sentence(terms: Economics | None) -> tuple[str, ...]:
    """Whose price it is and of which day, where an offer set it: a reader should know that it is soon stale."""
    if terms is None or terms.offer == NO_OFFER or terms.dollars_per_gpu_hour is None:
        return ()
    return (f"${float(terms.dollars_per_gpu_hour):.4g} a GPU-hour is the price of {terms.offer}; such prices are soon stale",)


def with_price(terms: Mapping[str, Any], price: str | float | None, cluster: Any) -> Mapping[str, Any]:
    """Changes of economic terms with those of a price, where one is given, below them."""
    if price is None or "dollars_per_gpu_hour" in terms:
        return terms
    return {**price_terms(price, cluster), **terms}


def prices_of(price: str | float | None, clusters: Sequence[str]) -> list[str | float | None]:
    """The price of each cluster: the one that is given, or of several between commas each its own, in their order or by name.

    Errors: InputError where there are neither one nor as many as clusters.

    >>> prices_of("2.5,3.7", ["dgx-h100", "dgx-h200"]), prices_of("on-demand", ["p5", "p5en"])
    (['2.5', '3.7'], ['on-demand', 'on-demand'])
    >>> prices_of("dgx-h200=3.7, dgx-h100=2.5", ["dgx-h100", "dgx-h200"])
    ['2.5', '3.7']
    """
    several = price.split(",") if isinstance(price, str) else [price]
    if isinstance(price, str) and "=" in price:
        named = {name.strip(): amount.strip() for name, _, amount in (each.partition("=") for each in price.split(","))}
        for name in named.keys() - {*clusters}:
            raise InputError(f"{shown(name)} is none of the clusters; {did_you_mean(name, clusters)}", key="price")
        for name in clusters:
            if name not in named:
                raise InputError(f"{name} has no price; give one for each cluster, or one for all", key="price")
        several = [named[name] for name in clusters]
    if len(several) not in (1, len(clusters)):
        raise InputError(f"{len(several)} prices for {len(clusters)} clusters; give one for each, or one for all", key="price")
    return [*several] if len(several) == len(clusters) else [*several] * len(clusters)
