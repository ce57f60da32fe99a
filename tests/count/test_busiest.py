"""How many experts do tokens meet, and how much more than the mean does the busiest of several ranks have?"""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.count.busiest import busiest_load, greatest_normal, share_met


def test_one_rank_has_its_mean() -> None:
    """However far loads of experts lie apart."""
    assert float(busiest_load(ranks=1, experts=8, per_token=2, tokens=3.0, scatter=2.0)) == 1.0


def test_one_copy_is_on_one_rank() -> None:
    """Which has as many times the mean as there are ranks, and never more."""
    for ranks in (2, 8, 64):
        assert 1.5 < float(busiest_load(ranks=ranks, experts=256, per_token=1, tokens=1.0, scatter=0.0)) <= ranks


def test_copies_thrown_at_random_are_met() -> None:
    """Of 10,000 throws the busiest rank on average, within 12 % at two copies a rank, 4 % from 16 on."""
    chance = np.random.default_rng(5)
    for ranks in (2, 4, 8, 16):
        for copies in (2 * ranks, 16 * ranks, 1000 * ranks):
            thrown = chance.multinomial(copies, np.full(ranks, 1 / ranks), 10_000).max(axis=1).mean() * ranks / copies
            found = float(busiest_load(ranks=ranks, experts=256, per_token=1, tokens=copies, scatter=0.0))
            assert found == pytest.approx(thrown, rel=0.12 if copies < 16 * ranks else 0.04)


@pytest.mark.parametrize(
    ("experts", "per_token", "ranks", "tokens"), [(8, 2, 8, 4), (8, 4, 8, 8), (8, 8, 8, 8), (128, 8, 8, 4), (64, 6, 8, 16)]
)
def test_copies_of_a_token_are_on_different_experts(experts: int, per_token: int, ranks: int, tokens: int) -> None:
    """Which keeps ranks closer together than copies thrown alone, and alike where each token chooses all: within 5 %."""
    order = np.argsort(np.random.default_rng(11).random((4000, tokens, experts)), axis=-1)[..., :per_token]
    held = (order[..., None] // (experts // ranks) == np.arange(ranks)).sum(axis=(1, 2))
    drawn = held.max(axis=1).mean() * ranks / (tokens * per_token)
    found = busiest_load(ranks=ranks, experts=experts, per_token=per_token, tokens=float(tokens), scatter=0.0)
    assert float(found) == pytest.approx(drawn, rel=0.05)


def test_no_rank_has_more_than_each_token_once_an_expert() -> None:
    """Of 8 experts on 8 ranks of which a token chooses 4, twice the mean at most."""
    assert float(busiest_load(ranks=8, experts=8, per_token=4, tokens=1.0, scatter=3.0)) == 2.0


def test_loads_of_experts_add_up_on_their_ranks() -> None:
    """With many copies it is that of sums of experts whose loads differ by half: within 3 % of 4,000 draws of 128 experts."""
    loads = 1.0 + 0.5 * np.random.default_rng(7).standard_normal((4000, 128))
    for ranks in (2, 8, 32):
        drawn = loads.reshape(4000, ranks, -1).mean(axis=2).max(axis=1).mean()
        assert float(busiest_load(ranks=ranks, experts=128, per_token=8, tokens=1e9, scatter=0.5)) == pytest.approx(
            drawn, rel=0.03
        )


def test_more_ranks_are_farther_apart() -> None:
    """Of the same experts and tokens."""
    ranks = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    assert np.all(np.diff(busiest_load(ranks=ranks, experts=256, per_token=8, tokens=512.0, scatter=0.5)) > 0)
    assert float(greatest_normal(1)) == pytest.approx(0.0, abs=1e-9)


def test_equal_odds_meet_what_a_closed_form_says() -> None:
    """1 - (1 - k/E)^T; and loads that hardly differ come to it."""
    tokens = np.array([0.0, 1.0, 7.0, 64.0, 4096.0])
    closed = 1.0 - (1.0 - 8 / 256) ** tokens
    for scatter in (0.0, 1e-3):
        assert share_met(chance=8 / 256, tokens=tokens, scatter=scatter) == pytest.approx(closed, abs=1e-5)


@pytest.mark.parametrize("scatter", [0.0, 0.4, 1.0])
def test_one_token_meets_the_experts_that_it_chooses(scatter: float) -> None:
    """k/E of them however far loads lie apart, and all of them where it chooses all."""
    chances = np.array([1 / 256, 0.25, 0.5, 1.0])
    assert share_met(chance=chances, tokens=1.0, scatter=scatter) == pytest.approx(chances, rel=1e-12)
    assert share_met(chance=1.0, tokens=1000.0, scatter=scatter) == pytest.approx(1.0)


def test_experts_of_different_loads_are_met_as_often_as_drawn() -> None:
    """Within 1 % of gamma loads of 20,000 experts, each of which is left out by all tokens with its own odds."""
    chance = np.random.default_rng(9)
    for scatter in (0.3, 0.5, 1.0):
        loads = chance.gamma(1.0 / scatter**2, scatter**2, 20_000)
        scale = 0.0
        for _ in range(50):  # until one token meets 8 of 256
            scale += 8 / 256 - (1.0 - np.exp(-scale * loads)).mean()
        for tokens in (1, 4, 64, 512):
            drawn = 1.0 - np.exp(-tokens * scale * loads).mean()
            assert float(share_met(chance=8 / 256, tokens=tokens, scatter=scatter)) == pytest.approx(drawn, rel=0.01)


def test_uneven_loads_wake_fewer_experts() -> None:
    """The farther apart they are, of the same tokens."""
    shares = [float(share_met(chance=8 / 256, tokens=64, scatter=scatter)) for scatter in (0.0, 0.25, 0.5, 1.0)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
