"""Which lists of modules a search has run again for themselves, beside what the software selects by itself."""

from __future__ import annotations

from typing import Final

from perfmodel.spec.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack

CHEAP: Final = ("layernorm", "mla_up_proj", "moe_act")  # modules of mixtures that give much memory for little time
OF_LATENT: Final = "mla_up_proj"


def module_choices(model: TransformerModel, stack: SoftwareStack) -> list[tuple[str, ...]]:
    """Those that cost little: all of them, and in latent attention what makes queries, keys and values of narrow vectors alone.

    None of a dense model, nor where the software names no modules.
    """
    if model.mixture is None:
        return []
    offered = [name for name in CHEAP if name in stack.offers.recompute_modules]
    cheap = tuple(name for name in offered if name != OF_LATENT or model.latent is not None)
    alone = [(OF_LATENT,)] if OF_LATENT in cheap else []
    return [*alone, cheap] if cheap else []
