"""In which ways a search has passes run again: each mode, and lists of modules beside what the software selects by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from perfmodel.count.blocks import roles_run_again
from perfmodel.count.iteration import modules_that_run
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import replace
from perfmodel.spec.models.part_rules import selection_rules
from perfmodel.spec.setup import Setup

CHEAP: Final = ("layernorm", "mla_up_proj", "moe_act")  # modules of mixtures that give much memory for little time


def rerun_choices(setup: Setup, modes: Iterable[str]) -> list[dict[str, Any]]:
    """Settings of each way to run passes again that is covered; of mixtures the selective one also by modules.

    Errors: NotSupportedError where none of `modes` is covered for the model in its software.
    """
    found, refusals = [], []
    for mode in modes:
        lists = module_choices(setup) if mode == "selective" else []
        for modules in ({}, *({"recompute_modules": names} for names in lists)):
            settings: dict[str, Any] = {"recompute": mode} | modules
            rules = selection_rules(setup.model, setup.stack, replace(setup.layout, **settings))
            broken = [rule.error(rule.sentence(), key=rule.key) for rule in rules if not rule.allows]
            refusals += broken
            found += [] if broken else [settings]
    if refusals and not found:
        raise refusals[0]
    return found


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
