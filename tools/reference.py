"""The reference page: every public name of the library, what it is for, where it is explained, its first example."""

import ast
import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from html import unescape
from importlib import import_module
from pathlib import Path

EXPORTED = re.compile(r"<summary>Exported source</summary>.*?</details>", re.DOTALL)
PLACE = re.compile(r'<(?:section id="([\w-]+)"|div id="([\w-]+)" class="cell")')
CODE = re.compile(r'<code class="sourceCode python">(.*?)</code>', re.DOTALL)
INTRODUCTION = """---
title: Reference
description: Every public name of the library, and where it is explained
search: false
toc-depth: 2
---

A name leads to its place in a chapter: what it takes and gives, with shapes and units, its errors, its source, its
code. *Example* leads to the first lines that use it. The command line has
[a chapter of its own](39_command_line.ipynb).

What cannot be used raises `InputError`: one sentence that names the value and the way out. These arguments mean the
same everywhere:

| argument | what it is |
|---|---|
| `adata` | an AnnData, cells x genes: raw counts or log-normalised values, names of genes in `var_names` |
| `label_key` | the column of `obs` that holds the cell types |
| `batch_key` | the column of `obs` that holds donors or batches |
| `X`, `y` | log-normalised values, cells x genes (CSR or dense), and the type of each cell, shape (cells,) |
| `split` | a `CellSplit`: which cells train, validate and test |
| `n_genes` | the number of genes of a panel |
| `seed` | a whole number from 0 up: the same seed gives the same result |
| `path` | a file or folder, as text or `Path` |
| `progress` | whether a bar shows how far it is |
"""


def public_names(module: str) -> dict[str, str]:
    """Map the public functions and classes of a module to the first lines of their docstrings."""
    library = import_module(f"selectormlp.{module}")
    things = {name: getattr(library, name) for name in library.__all__}
    named = {name: thing for name, thing in things.items() if inspect.isroutine(thing) or inspect.isclass(thing)}
    own = {name: thing for name, thing in named.items() if thing.__module__ == library.__name__}
    return {name: (inspect.getdoc(thing) or "").partition("\n")[0] for name, thing in own.items()}


def table(names: dict[str, str], places: dict[str, str]) -> str:
    """Write a table of names: where each is explained, what it is for, and a mark for its example."""
    rows = ["| name | what for | |", "|---|---|---|"]
    for name, line in names.items():
        line = re.sub(r"([|$*])", r"\\\1", line)
        rows.append(f"| [`{name}`]({places[name]}) | {line} | [example](#example-of-{name}) |")
    return "\n".join(rows)


def reference_text(modules: list[str], places: dict[str, str]) -> str:
    """Write the page: the names that `import selectormlp` offers first, then the others of each module."""
    import selectormlp

    names = {module: public_names(module) for module in modules}
    known = {name: line for found in names.values() for name, line in found.items()}
    face = {name: known[name] for name in selectormlp.__all__ if name in known}
    parts = [INTRODUCTION, "## from selectormlp import ...", table(face, places)]
    for module, found in names.items():
        others = {name: line for name, line in found.items() if name not in face}
        line = (import_module(f"selectormlp.{module}").__doc__ or "").rstrip(".")
        parts += [f"## selectormlp.{module}", f"{line}.", table(others, places)] if others else []
    return "\n\n".join(parts) + "\n"


def shown_code(page: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield the address of every example on a page, which is code that exports nothing, with the names that it uses."""
    place = ""
    for part in re.split(r"(?=<section id=|<div id=)", EXPORTED.sub("", page.read_text(encoding="utf-8"))):
        found = PLACE.match(part)
        place = (found[1] or found[2]) if found else place
        for code in CODE.findall(part):
            with suppress(SyntaxError):  # a signature without a body is no example
                tree = ast.parse(unescape(re.sub(r"<[^>]+>", "", code)))
                names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
                yield f"{page.name}#{place}", names


def makers(modules: list[str]) -> dict[str, set[str]]:
    """Map each class to the functions that give it: who uses one of them uses the class."""
    made: dict[str, set[str]] = {}
    for module in modules:
        library = import_module(f"selectormlp.{module}")
        for thing in filter(inspect.isfunction, (getattr(library, name) for name in library.__all__)):
            given = thing.__annotations__.get("return")
            made.setdefault(getattr(given, "__name__", str(given)), set()).add(thing.__name__)
    return made


def link_examples(site: Path, modules: list[str]) -> list[str]:
    """Lead each *example* to the first code that uses the name, if possible in its own chapter; list those without."""
    page, made = site / "reference.html", makers(modules)
    text = page.read_text(encoding="utf-8")
    shown = [example for path in sorted(site.glob("*.html")) for example in shown_code(path)]
    without = []
    for own, name in re.findall(r'href="([\w.]+html)#[^"]*"><code>(\w+)</code>', text):
        uses = [address for address, names in shown if names & ({name} | made.get(name, set()))]
        first = next((address for address in uses if address.startswith(f"{own}#")), uses[0] if uses else None)
        mark = f'<a href="#example-of-{name}">example</a>'
        text = text.replace(mark, f'<a href="{first}" aria-label="example of {name}">example</a>' if first else "")
        without += [] if first else [name]
    page.write_text(text, encoding="utf-8")
    return without
