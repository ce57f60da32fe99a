"""How many experts do tokens meet, and how much more than the mean does the busiest of several ranks have?"""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.count.busiest import busiest_load, greatest_normal, share_met


def test_one_rank_has_its_mean() -> None:
    """However far loads of experts lie apart."""
    assert float(busiest_load(ranks=1, experts=8, copies=3.0, scatter=2.0)) == 1.0


def test_one_copy_is_on_one_rank() -> None:
    """Which has as many times the mean as there are ranks, and never more."""
    for ranks in (2, 8, 64):
        assert 1.5 < float(busiest_load(ranks=ranks, experts=256, copies=1.0, scatter=0.0)) <= ranks


def test_copies_thrown_at_random_are_met() -> None:
    """Of 10,000 throws the busiest rank on average, within 12 % at two copies a rank, 4 % from 16 on."""
    chance = np.random.default_rng(5)
    for ranks in (2, 4, 8, 16):
        for copies in (2 * ranks, 16 * ranks, 1000 * ranks):
            thrown = chance.multinomial(copies, np.full(ranks, 1 / ranks), 10_000).max(axis=1).mean() * ranks / copies
            found = float(busiest_load(ranks=ranks, experts=256, copies=copies, scatter=0.0))
            assert found == pytest.approx(thrown, rel=0.12 if copies < 16 * ranks else 0.04)


def test_loads_of_experts_add_up_on_their_ranks() -> None:
    """With many copies it is that of sums of experts whose loads differ by half: within 3 % of 4,000 draws of 128 experts."""
    loads = 1.0 + 0.5 * np.random.default_rng(7).standard_normal((4000, 128))
    for ranks in (2, 8, 32):
        drawn = loads.reshape(4000, ranks, -1).mean(axis=2).max(axis=1).mean()
        assert float(busiest_load(ranks=ranks, experts=128, copies=1e9, scatter=0.5)) == pytest.approx(drawn, rel=0.03)


def test_more_ranks_are_farther_apart() -> None:
    """Of the same experts and tokens."""
    ranks = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    assert np.all(np.diff(busiest_load(ranks=ranks, experts=256, copies=4096.0, scatter=0.5)) > 0)
    assert float(greatest_normal(1)) == pytest.approx(0.0, abs=1e-9)


def test_equal_odds_meet_what_a_closed_form_says() -> None:
    """1 - (1 - k/E)^T; and loads that hardly differ come to it."""
    tokens = np.array([0.0, 1.0, 7.0, 64.0, 4096.0])
    closed = 1.0 - (1.0 - 8 / 256) ** tokens
    for scatter in (0.0, 1e-3):
        assert share_met(chance=8 / 256, tokens=tokens, scatter=scatter) == pytest.approx(closed, abs=1e-5)


def test_experts_of_different_loads_are_met_as_often_as_drawn() -> None:
    """Within 2 % of gamma loads of 20,000 experts, each of which is left out by all tokens with its own odds."""
    chance = np.random.default_rng(9)
    for scatter in (0.3, 0.5, 1.0):
        loads = chance.gamma(1.0 / scatter**2, scatter**2, 20_000)
        for tokens in (4, 64, 512):
            drawn = 1.0 - np.exp(tokens * np.log1p(-8 / 256) * loads).mean()
            assert float(share_met(chance=8 / 256, tokens=tokens, scatter=scatter)) == pytest.approx(drawn, rel=0.02)


def test_uneven_loads_wake_fewer_experts() -> None:
    """The farther apart they are, of the same tokens."""
    shares = [float(share_met(chance=8 / 256, tokens=64, scatter=scatter)) for scatter in (0.0, 0.25, 0.5, 1.0)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
