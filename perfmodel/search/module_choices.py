"""Which lists of modules a search has run again for themselves, beside what the software selects by itself."""

from __future__ import annotations

from typing import Final

from perfmodel.count.blocks import roles_run_again
from perfmodel.count.iteration import modules_that_run
from perfmodel.count.roles import Role
from perfmodel.spec.setup import Setup

CHEAP: Final = ("layernorm", "mla_up_proj", "moe_act")  # modules of mixtures that give much memory for little time


def module_choices(setup: Setup) -> list[tuple[str, ...]]:
    """Those that cost little: all of them, and in latent attention what makes queries, keys and values of narrow vectors alone.

    None of a dense model, nor where the software names no modules.
    """
    if setup.model.mixture is None:
        return []
    possible = modules_that_run(setup) if setup.stack.offers.recompute_modules else ()
    cheap = tuple(name for name in CHEAP if name in possible and name in setup.stack.offers.recompute_modules)
    alone = [(name,) for name in cheap if Role.UP_PROJECTION in roles_run_again([name])]
    return [*alone, cheap] if cheap else []
