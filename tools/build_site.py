"""Build the site of the project into _docs, without Quarto and without a network.

Four steps: nbdev finds the exported names of the chapters, and documentation.py shows the signature and the tables of
each; names of the library in backticks become links; `selectormlp.site._render_site` makes the pages, make_slides.py
the slides. Then every link and every size is checked.
"""

import argparse
import ast
import json
import logging
import math
import os
import re
import shutil
import sys
import tempfile
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from documentation import documentation  # noqa: E402
from make_slides import make_slides  # noqa: E402
from reference import link_examples, reference_text  # noqa: E402

os.environ.setdefault("MPLBACKEND", "Agg")
GLOSSARY = "glossary"
OTHER_SENSES = (  # words of the glossary in another sense lead nowhere
    r"batch(?:es)? norm\w*|(?:double|single|average) precision|marker lines?|special .dropout."
    r"|splits (?:the types|importance|on a gene|of (?:a|the) tree)"
)
PAGE_LIMIT, SITE_LIMIT = 1_000_000, 25_000_000  # bytes
NOT_FOUND = """---
title: There is no such page
search: false
toc: false
---

Nothing is at this address. A page may have a new name. The search box above finds functions, words and genes.
Or begin at the [start page](index.ipynb).
"""


def library_names() -> dict[str, str]:
    """Map the public names of the library to the places that document them, such as `masking.html#rank_genes`."""
    from selectormlp._modidx import d

    modules: Any = d["syms"]
    places = {
        name.removeprefix(f"{module}."): place
        for module, names in modules.items()
        for name, (place, _) in names.items()
    }
    return {name: place for name, place in places.items() if "." not in name and not name.startswith("_")}


def link_names(text: str, names: dict[str, str], page: str) -> str:
    """Turn names of the library in backticks into links, but not on the page that documents them, and not in code."""

    def link(found: re.Match[str]) -> str:
        place = names.get(found[1])
        return found[0] if place is None or place.startswith(f"{page}.html#") else f"[{found[0]}]({place})"

    parts = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)|^\#.*?$|\[[^\]]*\]\([^)]*\))", text, flags=re.MULTILINE | re.DOTALL)
    linked = [part if index % 2 else re.sub(r"`(\w+)(?:\(\))?`", link, part) for index, part in enumerate(parts)]
    return "".join(linked)


def glossary_terms(glossary: Path) -> dict[str, str]:
    """Map the words of the glossary, in small letters, to the names of their places on its page."""
    import nbformat

    text = "\n".join(cell.source for cell in nbformat.read(glossary, 4).cells)
    words = [word.lower() for word in re.findall(r"^### (.+)$", text, re.MULTILINE)]
    return {word: re.sub(r"[^a-z0-9]+", "-", word) for word in words}


def link_terms(text: str, terms: dict[str, str], seen: set[str]) -> str:
    """Lead the first use of each term on a page, singular or plural, to the glossary; `seen` holds those that are done.

    Code, headings, links, pictures, tables and HTML are left as they are, and so are words in another sense.
    """
    if not terms:
        return text

    def link(found: re.Match[str]) -> str:
        if found[1] is None:  # another sense
            return found[0]
        term = next(term for term in (found[1].lower(), found[1].lower().removesuffix("s")) if term in terms)
        if term in seen:
            return found[0]
        seen.add(term)
        return f"[{found[0]}]({GLOSSARY}.ipynb#{terms[term]}){{.term}}"

    words = "|".join(re.escape(term) for term in sorted(terms, key=len, reverse=True))
    pattern = rf"(?<![\w-])(?:(?:{OTHER_SENSES})|((?:{words})s?))(?![\w-])"
    kept = r"(^(?:```|~~~).*?^(?:```|~~~)|^\#.*?$|^\|.*?$|^<.*?$|`[^`]*`|!?\[[^\]]*\]\([^)]*\)|<[^>]*>|\$[^$]*\$)"
    parts = re.split(kept, text, flags=re.MULTILINE | re.DOTALL)
    linked = (part if index % 2 else re.sub(pattern, link, part, flags=re.I) for index, part in enumerate(parts))
    return "".join(linked)


def as_documented(line: str) -> str:
    """Change a line of exported code as it has to run for its documentation: all types known, no command started."""
    if line.startswith("if __name__ =="):
        return "if False:\n"
    return line.replace("if TYPE_CHECKING:", "if True:")


def chapter_processors() -> list[Any]:
    """List nbdev's processors, less those that link names of other libraries and hide the exported code."""
    from nbdev.processors import FilterDefaults, exec_show_docs

    class ShowDocs(exec_show_docs):
        """Run the exported cells and show_doc only."""

        def __call__(self, cell: Any) -> None:
            if cell.source and ("show_doc(" in cell.source or {"export", "exports", "exporti"} & set(cell.directives_)):
                super().__call__(cell)

        def begin(self) -> None:
            super().begin()
            self.k.input_transformers_post.append(lambda lines: [as_documented(line) for line in lines])

    own = {"add_links", "add_fold", "mv_exports"}
    chosen = [processor for processor in FilterDefaults().base_procs() if processor.__name__ not in own]
    return [ShowDocs if processor is exec_show_docs else processor for processor in chosen]


def documented_by_us(text: str, module: str) -> str:
    """Put the whole signature and tables in place of what nbdev shows of a name below its heading."""
    head = re.match(r".*?^#+ ([\w.]+)$", text, re.MULTILINE | re.DOTALL)
    thing = import_module(f"selectormlp.{module}") if module and head else None
    for part in head[1].split(".") if head else []:
        thing = getattr(thing, part, None)
    return text if head is None or thing is None else f"{head[0]}\n\n{documentation(head[1], thing)}\n"


def fold_line(source: str) -> str:
    """Say what folded code does, by the first line of what its first function or class documents."""
    named = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    lines = [(ast.get_docstring(node) or "").partition("\n")[0] for node in named]
    line = ": ".join(["Exported source", *[line for line in lines if line][:1]])
    return line.replace("`", "").replace('"', "'")  # neither may stand in the head of a block of code


def arrange(cells: list[Any]) -> list[Any]:
    """Put the documentation of exported code before the code, and fold the code, with a line that says what it does."""
    arranged: list[Any] = []
    for cell in cells:
        code = next((index for index in range(len(arranged) - 1, -1, -1) if not arranged[index].get("has_sd")), 0)
        if cell.get("has_sd"):
            while code and arranged[code - 1].get("has_sd"):
                code -= 1
            arranged.insert(code, cell)
            continue
        if cell.cell_type == "code" and "exports" in cell.directives_:
            cell.source = f"#| code-fold: true\n#| code-summary: {json.dumps(fold_line(cell.source))}\n{cell.source}"
        arranged.append(cell)
    return arranged


def document(notebook_path: Path, destination: Path, names: dict[str, str], terms: dict[str, str]) -> None:
    """Write a chapter with the documentation of what it exports, its code shown below, words linked to the glossary."""
    from execnb.nbio import read_nb, write_nb
    from nbdev.process import NBProcessor

    from selectormlp.site import _page_name

    notebook = read_nb(notebook_path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"^#\| *export\b", "#| exports", cell.source, flags=re.MULTILINE)
    NBProcessor(nb=notebook, procs=chapter_processors()).process()
    notebook.cells = arrange(notebook.cells)
    seen: set[str] = set()
    module = "".join(exported_modules([notebook_path]))
    for cell in notebook.cells:
        if cell.pop("has_sd", None):
            for data in [output["data"] for output in cell.outputs if "data" in output]:
                data["text/markdown"] = documented_by_us("".join(data.get("text/markdown", "")), module)
        if cell.cell_type == "markdown":
            text = link_names(cell.source, names, _page_name(notebook_path.stem))
            cell.source = text if notebook_path.stem == GLOSSARY else link_terms(text, terms, seen)
    write_nb(notebook, destination)


def document_chapters(source: Path, folder: Path) -> None:
    """Write every notebook of a folder, and of those in it, documented into another, with style sheets and pictures."""
    from selectormlp.site import _SIDE_FILES, _page_files

    os.environ["IN_TEST"] = "1"
    names = library_names()
    glossary = source / f"{GLOSSARY}.ipynb"
    terms = glossary_terms(glossary) if glossary.exists() else {}
    for path in _page_files(source):
        (folder / path).parent.mkdir(exist_ok=True)
        document(source / path, folder / path, names, terms)
    for kind in _SIDE_FILES:
        for path in source.glob(kind):
            shutil.copy(path, folder / path.name)


def exported_modules(chapters: list[Path]) -> list[str]:
    """Name the modules that the chapters export, in their order."""
    exported = [re.search(r"#\| default_exp (\w+)", chapter.read_text(encoding="utf-8")) for chapter in chapters]
    return [found[1] for found in exported if found]


def add_other_pages(folder: Path, modules: list[str]) -> None:
    """Write what is not a chapter into a folder of chapters: the reference, the texts at the top, and 404."""
    (folder / "reference.md").write_text(reference_text(modules, library_names()), encoding="utf-8")
    for name in ("CONTRIBUTING", "CODE_OF_CONDUCT", "CHANGELOG"):
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        head = text.splitlines()[0].removeprefix("# ")
        text = text.partition("\n")[2].replace("](nbs/", "](")
        (folder / f"{name}.md").write_text(f"---\ntitle: {head}\n---\n{text}", encoding="utf-8")
    (folder / "404.md").write_text(NOT_FOUND, encoding="utf-8")


def draw_card(path: Path) -> None:
    """Draw the picture that a link to the site shows: the name, one line, and many genes of which few are kept."""
    import matplotlib.pyplot as plt

    line = dict(re.findall(r"^(\w+) = (.*)$", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.MULTILINE))
    figure, axes = plt.subplots(figsize=(12, 6.3), dpi=100, facecolor="#1a5599")
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(0, 120), ylim=(0, 63))
    axes.axis("off")
    for gene in range(53):
        kept = gene % 13 == 6
        height = 18 if kept else 3 + 7 * abs(math.sin(2.4 * gene))
        axes.bar(8 + 2 * gene, height, 1.3, 6, color="#ffb000" if kept else "#7f9fc5")
    axes.text(7, 44, line["title"], color="white", fontsize=64, weight="bold")
    axes.text(7, 33, textwrap.fill(line["description"], 52), color="white", fontsize=27, va="center")
    figure.savefig(path)
    plt.close(figure)


def hide_source_links(page: Path) -> None:
    """Take the links to the source out of a page that was made here."""
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r'<div class="toc-actions">.*?</div></div>', "", text, flags=re.DOTALL), encoding="utf-8")


def serve_anywhere(page: Path, address: str) -> None:
    """Let a page find its style sheets from any address, as the page for wrong addresses must."""
    path = re.sub(r"^https?://[^/]+", "", address).rstrip("/") + "/"
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'(href|src)="(?![a-z]+:|[#/])', rf'\1="{path}', text)
    page.write_text(text.replace('offset" content="./"', f'offset" content="{path}"'), encoding="utf-8")


def too_large(site: Path) -> list[str]:
    """Name the pages that are too large for a slow line, and the site if it is."""
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    pages = [path.name for path, size in sizes.items() if path.suffix == ".html" and size > PAGE_LIMIT]
    faults = [f"{name} is larger than {PAGE_LIMIT / 1e6:g} MB" for name in sorted(pages)]
    return faults + ([f"the site is larger than {SITE_LIMIT / 1e6:g} MB"] if sum(sizes.values()) > SITE_LIMIT else [])


def build_site(chapters_folder: Path, site_folder: Path) -> int:
    """Build the site and return the number of its faults, which are listed: links, requests, sizes, examples."""
    import yaml

    import selectormlp
    from selectormlp.site import _check_links, _render_site

    # The slides are made after the pages; whether the links to them hold, `check_links` says.
    logging.getLogger("selectormlp.site").addFilter(lambda record: "slides/" not in record.getMessage())
    with tempfile.TemporaryDirectory() as folder:
        modules = exported_modules(sorted(chapters_folder.glob("[0-9]*.ipynb")))
        document_chapters(chapters_folder, Path(folder))
        add_other_pages(Path(folder), modules)
        index = _render_site(folder, site_folder, ROOT / "_quarto.yml")
    make_slides(chapters_folder, site_folder / "slides")
    draw_card(site_folder / "card.png")
    without = sorted(set(link_examples(site_folder, modules)) & set(selectormlp.__all__))
    problems = _check_links(site_folder)
    if len(problems):
        print(problems.to_string(index=False))
    faults = too_large(site_folder) + [f"no chapter shows an example of {name}" for name in without]
    for fault in faults:
        print(fault)
    frame = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    for name in ("404", "reference"):
        hide_source_links(site_folder / f"{name}.html")
    serve_anywhere(site_folder / "404.html", frame["website"]["site-url"])
    print(f"{len(list(site_folder.glob('*.html')))} pages, {len(problems)} broken links or outside requests: {index}")
    return len(problems) + len(faults)


def main() -> int:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chapters", type=Path, default=ROOT / "nbs", help="the folder of the chapters")
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="where the site goes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.chdir(ROOT)
    return int(build_site(arguments.chapters, arguments.out) > 0)


if __name__ == "__main__":
    sys.exit(main())
