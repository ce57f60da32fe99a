"""Refits what engines' own kernels take: products, fused experts, steps of delta rules, sparse attention. Prints it.

    python -m perfmodel.benchmarks.fit.served                           # every GPU: what is found beside what is shipped
    python -m perfmodel.benchmarks.fit.served b200 --output FOLDER      # and the shipped file with what is found, in FOLDER

The last numbers of a line are what shapes that were left out show: the median and 90th percentile of the error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small systems: threads only get in each other's way

from perfmodel.benchmarks.fit.served.experts import chosen_rows, experts_setup, fit_experts, read_in_time
from perfmodel.benchmarks.fit.served.law_text import (
    ServedLaw,
    choice_law,
    expert_law,
    index_law,
    product_law,
    replaced,
    shown,
    sparse_law,
    step_law,
)
from perfmodel.benchmarks.fit.served.products import chosen_rows as chosen_products
from perfmodel.benchmarks.fit.served.products import fit_products, products_setup
from perfmodel.benchmarks.fit.served.sparse import CACHES, fit_choice, fit_index, fit_sparse
from perfmodel.benchmarks.fit.served.state_steps import fit_step
from perfmodel.benchmarks.fit.served.tables import BALANCED, EXPERTS, PRODUCTS, STEPS, ServedTables
from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.chip_names import did_you_mean_hardware
from perfmodel.exchange.output import write_text
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.questions.serving.served_models import serving_profile

CARDS: Final = ("l40s", "rtx-pro-6000-server")  # whose products alone are fitted
NO_INDEXER: Final = ("a100-sxm-80gb", *CARDS)  # and no products of 8 bits, which an indexer needs
NO_STEPS: Final = ("a100-sxm-80gb", *CARDS)  # GPUs of whose state-keeping mixers the package has no steps


def fitted(gpu: str, tables: ServedTables) -> Iterator[ServedLaw]:
    """Every law of one GPU."""
    for products in PRODUCTS.get(gpu, ()):
        setup = products_setup(gpu, products)
        least = products.least_bytes / setup.weights.bytes
        yield product_law(products, setup, fit_products(setup, chosen_products(tables.linears(gpu, products), least)))
    for table in EXPERTS.get(gpu, ()):
        setup = experts_setup(gpu, table.family, table.precision)
        rows = chosen_rows(tables.experts(gpu, table))
        if table.routing == BALANCED:
            rows = read_in_time(setup, rows)
        yield expert_law(table, setup.weights.law, fit_experts(setup, rows))
    for step in () if gpu in NO_STEPS else STEPS:
        yield step_law(step, fit_step(gpu, tables.state_steps(gpu, step), step))
    if gpu not in NO_INDEXER:
        choice = fit_choice(gpu, tables)
        yield choice_law(choice)
        yield index_law(fit_index(gpu, tables, choice.found))
        for law in CACHES:
            yield sparse_law(law, fit_sparse(gpu, tables, law))


def main() -> None:
    """Fit what was asked for, one GPU after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="GPU", help="all without")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where files with what is found go")
    chosen = parser.parse_args()
    try:
        for name in chosen.names:
            if name not in PRODUCTS:
                raise InputError(f"{name!r} has no table of products; {did_you_mean_hardware(name, PRODUCTS)}")
        tables = ServedTables()
        for gpu in chosen.names or PRODUCTS:
            profile = serving_profile(gpu)
            text = (DATA / "serving" / f"{gpu}.yaml").read_text(encoding="utf-8")
            for law in fitted(gpu, tables):
                sys.stdout.write(f"{gpu:16} {shown(law, profile)}\n")
                text = replaced(text, law)
            if chosen.output:
                write_text(chosen.output / f"{gpu}.yaml", text)
    except PerfmodelError as error:
        sys.exit(f"fit: {error}")


if __name__ == "__main__":
    main()
