"""Refits the shipped coefficients from measured tables; writes them with provenance and held-out errors, and a figure a GPU.

    python -m perfmodel.benchmarks.fit --tables FOLDER                                     # every GPU and link
    python -m perfmodel.benchmarks.fit h100-sxm-80gb nvlink-h100 --tables FOLDER --output /tmp/profiles

Products, collectives, 8-bit casts, kernels of mixers that keep a state and serving attention come from the package
aiconfigurator-core; training attention, with what it gains from 8 bits, and norms from FOLDER (cudnn_sdpa_fwd_bwd.csv.gz,
cudnn_norms_fwd_bwd.csv.gz: benchmark results of NVIDIA cudnn-frontend), older libraries and single memory-bound kernels from
serving_ops_h100_a100.csv.gz there (microsoft/vidur), where it is. All-reduces of other laboratories are pooled with the
package's where FOLDER has public_collectives.csv.gz (columns: check_collectives.py).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small systems: threads only get in each other's way

from perfmodel.benchmarks.fit.attention.low_attention import low_attention, origin_of, with_low_attention
from perfmodel.benchmarks.fit.checks.laboratories import public_rows
from perfmodel.benchmarks.fit.collectives import link_profile
from perfmodel.benchmarks.fit.figures import rate_figure
from perfmodel.benchmarks.fit.gpus import GpuFits
from perfmodel.benchmarks.fit.matmul.libraries import add_libraries, libraries
from perfmodel.benchmarks.fit.network import network_profile
from perfmodel.benchmarks.fit.profile import write_profile
from perfmodel.benchmarks.fit.scans import state_kernels, with_state_kernels
from perfmodel.benchmarks.fit.tables import AIC_SOURCE, NAMES, RECORDS_SOURCE, Folder, FolderFirst, Package, Records
from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.chip_names import did_you_mean_hardware
from perfmodel.exchange.output import write_bytes
from perfmodel.exchange.presets import DATA, cluster_preset
from perfmodel.report.figures.drawing.style import picture

LINKS: Final = {
    "nvlink-a100": ("a100-sxm-80gb", "dgx-a100"),
    "nvlink-h100": ("h100-sxm-80gb", "dgx-h100"),
    "nvlink-h200": ("h200-sxm-141gb", "dgx-h200"),
    "nvlink-b200": ("b200", "dgx-b200"),
    "nvlink-gb200": ("gb200", "gb200-nvl72"),
    "pcie-5": ("rtx-pro-6000-server", "rtx-pro-6000"),
}
NETWORK: Final = "infiniband"
PICTURES: Final = Path(__file__).resolve().parents[2] / "docs" / "kernels"  # of a checkout


def write_link(link: str, package: Package, records: Records | None, output: Path, folder: Path) -> None:
    """Fit one link and write its collectives; other laboratories' tables in `folder` are pooled with the package's."""
    gpu, cluster = LINKS[link]
    tables = {name: package.collectives(name) for name in NAMES}
    source = AIC_SOURCE
    if records and len(records.collectives()):
        tables[gpu], source = records.collectives(), RECORDS_SOURCE
    public = public_rows(folder, gpu) if source is AIC_SOURCE else None
    profile = link_profile(link, gpu, tables, cluster_preset(cluster), source, public=public)
    write_profile(output / "collectives" / f"{link}.yaml", profile)


def write_gpu(fits: GpuFits, output: Path, pictures: Path) -> None:
    """Fit one GPU, write its kernels and draw them."""
    profile = add_libraries(fits.name, fits.profile(), libraries(fits.name, fits.tables.root))
    laws = {direction: found.coefficients for direction, found in fits.other(origin_of(fits.name)).attention.items()}
    profile = with_low_attention(profile, low_attention(fits.name, laws, fits.tables))
    profile = with_state_kernels(profile, state_kernels(fits.name, fits.gpu, fits.package))
    write_profile(output / "kernels" / f"{fits.name}.yaml", profile)
    pictures.mkdir(parents=True, exist_ok=True)
    write_bytes(pictures / f"{fits.name}.png", picture(rate_figure(fits), "png"))


def main() -> None:
    """Fit what was asked for, one after the other, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="GPUs and links; all without")
    parser.add_argument("--tables", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--records", type=Path, metavar="FILE", help="this project's own records, in place of tables that they cover"
    )
    parser.add_argument("--folder-first", action="store_true", help="products and collectives from FOLDER's CSV files too")
    parser.add_argument("--output", type=Path, default=DATA, metavar="FOLDER", help="default: the shipped presets")
    chosen = parser.parse_args()
    known = (NETWORK, *LINKS, *NAMES)
    try:
        for name in chosen.names:
            if name not in known:
                raise InputError(f"{name!r} is neither a GPU nor a link; {did_you_mean_hardware(name, known)}")
        tables = Folder(chosen.tables)
        package = FolderFirst(tables) if chosen.folder_first else Package()
        records = Records(chosen.records) if chosen.records else None
        if records and len(chosen.names) != 1:
            raise InputError("--records are of one machine: name the one GPU or link that they were taken on")
        for name in chosen.names or known:
            print(f"fitting {name}", file=sys.stderr, flush=True)
            if name == NETWORK:
                write_profile(chosen.output / "collectives" / f"{NETWORK}.yaml", network_profile())
            elif name in LINKS:
                write_link(name, package, records, chosen.output, chosen.tables)
            else:
                fits = GpuFits(name=name, package=package, tables=tables, records=records)
                write_gpu(fits, chosen.output, PICTURES if chosen.output == DATA and PICTURES.is_dir() else chosen.output)
    except PerfmodelError as error:
        sys.exit(f"fit: {error}")


if __name__ == "__main__":
    main()
