"""Is nobody who asks for one chip offered another, wherever hardware is named?"""

from __future__ import annotations

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.chip_names import chips_in, did_you_mean_hardware, may_mean
from perfmodel.exchange.presets import HARDWARE, preset_names, preset_path, preset_settings

CHIPS = ("a800", "h20", "h30", "h800", "gh200", "gb300", "b300", "l40", "l4", "v100", "a10", "h10", "mi300x", "rtx-3090")
PATTERNS = ("{}", "dgx-{}", "hgx-{}", "dgx{}", "{}-sxm-80gb", "{}-nvl72", "{} PCIe", "nvlink-{}")


@pytest.mark.parametrize(
    ("name", "chips"),
    [
        ("dgx-h200", {"h200"}),
        ("DGX-GB200 NVL72", {"gb200"}),
        ("hgxh800", {"h800"}),
        ("NVIDIA A100-SXM4-80GB", {"a100"}),
        ("h100-96gb-500w", {"h100"}),
        ("GeForce RTX 4090", {"rtx4090"}),
        ("rtx-pro-6000-server", {"rtxpro6000"}),
        ("infiniband-400", set()),
        ("pcie-5", set()),
        ("amd-epyc-2-cores", set()),
    ],
)
def test_the_chip_of_a_name_is_its_word_of_letters_and_a_number(name: str, chips: set[str]) -> None:
    """However it is mounted, joined or written; sizes, rates and powers are no chips."""
    assert chips_in(name) == chips


@pytest.mark.parametrize("kind", HARDWARE)
@pytest.mark.parametrize("chip", CHIPS)
def test_no_other_chip_is_offered_for_one_that_is_not_there(kind: str, chip: str) -> None:
    """A sentence that offers something offers the chip that was asked for, or what has no chip in its name."""
    names = preset_names(kind)
    for asked in (pattern.format(chip) for pattern in PATTERNS):
        listed, offers, offered = did_you_mean_hardware(asked, names).partition("did you mean ")
        assert may_mean(asked, offered.removesuffix("?")) if offers else listed.startswith(f"known: {min(names)}")


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("dgx-h20", "hgx-h20"),
        ("dgx-h800", "hgx-h800"),
        ("h800", "hgx-h800"),
        ("p4d.24xlarge", "p4d"),
        ("a800-node", "hgx-a800"),
    ],
)
def test_the_same_chip_under_another_name_is_offered(asked: str, meant: str) -> None:
    """However far its spelling is."""
    with pytest.raises(InputError, match=rf"did you mean {meant}\?"):
        preset_path("clusters", asked)


@pytest.mark.parametrize("asked", ["dgx-h30", "h201", "gh20"])
def test_showing_hardware_offers_no_other_chip_either(asked: str) -> None:
    """Among presets of all kinds."""
    with pytest.raises(InputError, match="known: "):
        preset_settings(asked)


def test_a_name_without_a_chip_is_offered_what_is_spelled_alike() -> None:
    """As everywhere else."""
    assert did_you_mean_hardware("infiniband-40", preset_names("links")) == "did you mean infiniband-400?"
