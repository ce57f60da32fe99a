"""What the reference model does not run is refused, never run as something else."""

from __future__ import annotations

import pytest

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.presets import model_preset
from perfmodel.model.transformer import check_supported
from tests.layouts import RAMP_STAGE


@pytest.mark.parametrize("name", ["gemma-2-9b", "mistral-7b-v0.1"])
def test_layers_with_windows_are_not_run(name: str) -> None:
    """The forecast has them; a comparison would hold two models against each other."""
    with pytest.raises(NotSupportedError, match="layers of one kind, with full attention"):
        check_supported(model_preset(name), RAMP_STAGE)
