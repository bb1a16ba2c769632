"""The documentation of a public name as the site shows it: its whole signature, and tables for numpydoc sections."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

WIDTH = 88  # characters of a signature in one line


class _Written:
    """Something that a signature shows as it stands, without quotes."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _as_written(annotation: Any) -> Any:
    """Return an annotation that is a text as it was written in the source."""
    return _Written(annotation) if isinstance(annotation, str) else annotation


def _default(parameter: inspect.Parameter, thing: Any) -> Any:
    """Return the default of a parameter, of a field what its factory makes; `...` for what is no code."""
    default = parameter.default
    if default is inspect.Parameter.empty:
        return default
    if repr(default) == "<factory>":
        factory: Any
        (factory,) = [each.default_factory for each in fields(thing) if each.name == parameter.name]
        default = factory()
    try:
        ast.parse(repr(default), mode="eval")
    except SyntaxError:
        return ...
    return default


def parameters(thing: Any) -> list[inspect.Parameter]:
    """List the parameters that whoever calls a function, a method or a class gives."""
    each = list(inspect.signature(thing).parameters.values())
    own = each[1:] if each and each[0].name in ("self", "cls") else each
    return [one.replace(annotation=_as_written(one.annotation), default=_default(one, thing)) for one in own]


def _with_marks(given: list[inspect.Parameter]) -> Iterator[str]:
    """Yield the parameters as text, with `*` before the first that needs its name, and `/` after those without one."""
    kinds = [each.kind for each in given]
    for place, each in enumerate(given):
        before = kinds[:place]
        if each.kind is each.KEYWORD_ONLY and not {each.KEYWORD_ONLY, each.VAR_POSITIONAL} & set(before):
            yield "*"
        yield str(each).replace(" = Ellipsis", " = ...")
        if each.kind is each.POSITIONAL_ONLY and kinds[place + 1 : place + 2] != [each.POSITIONAL_ONLY]:
            yield "/"


def signature_text(name: str, thing: Any) -> str:
    """Write a signature as code: in one line, or with a line for each parameter where it is too long."""
    if isinstance(thing, property):
        return f"property {name}"
    is_class = inspect.isclass(thing)
    try:
        given, found = list(_with_marks(parameters(thing))), inspect.signature(thing).return_annotation
    except ValueError:  # a class that is made in C, such as an exception
        return f"class {name}" if is_class else f"def {name}(...)"
    shown = inspect.formatannotation(_as_written(found))
    gives = "" if is_class or found is inspect.Signature.empty else f" -> {shown}"
    line = f"{'class' if is_class else 'def'} {name}({', '.join(given)}){gives}"
    if len(line) <= WIDTH or not given:
        return line
    head, _, _ = line.partition("(")
    return f"{head}(\n" + "".join(f"    {each},\n" for each in given) + f"){gives}"


def _cell(text: str) -> str:
    """Write a text into a cell of a table."""
    return re.sub(r"([|*<])", r"\\\1", re.sub(r"\s+", " ", text).strip())


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Write a table, without the columns in which nothing stands."""
    kept = [place for place, _ in enumerate(head) if any(row[place] for row in rows)]
    lines = ["| " + " | ".join(row[place] for place in kept) + " |" for row in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines)


def _entries(given: list[Any], *, with_default: bool) -> str:
    """Write the entries of a section of numpydoc as a table."""
    rows = []
    for each in given:
        kind, _, default = each.type.partition(", default ")
        meaning = _cell(" ".join(each.desc))
        rows.append((f"`{each.name}`" if each.name else "", _cell(kind), f"`{default}`" if default else "", meaning))
    return (
        _table(("name", "type", "default", "meaning"), rows)
        if with_default
        else _table(("name", "type", "", "meaning"), rows)
    )


def _references(lines: list[str]) -> str:
    """Write the references as a list."""
    joined = re.sub(r"\n\s+", " ", "\n".join(lines))
    joined = re.sub(r"doi:(10\.\S+)", r"[doi:\1](https://doi.org/\1)", joined)
    return re.sub(r"^\.\. \[(\d+)\] ", r"\1. ", joined, flags=re.MULTILINE)


def documentation_text(text: str) -> str:
    """Turn a documentation in numpydoc's form into Markdown; other text stays as it is."""
    from numpydoc.docscrape import NumpyDocString

    if not re.search(r"^-{3,}$", text, re.MULTILINE):
        return text
    found = NumpyDocString(text)
    parts = [" ".join(found["Summary"]), "\n".join(found["Extended Summary"])]
    for name in ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns"):
        if found[name]:
            parts += [f"**{name}**", _entries(found[name], with_default=name == "Parameters")]
    if found["See Also"]:
        seen = [(f"`{name}`", _cell(" ".join(words))) for names, words in found["See Also"] for name, _ in names]
        parts += ["**See also**", _table(("name", "what for"), seen)]
    if found["Notes"]:
        parts += ["**Notes**", "\n".join(found["Notes"])]
    if found["References"]:
        parts += ["**References**", _references(found["References"])]
    if found["Examples"]:
        parts += ["**Examples**", "```pycon\n" + textwrap.dedent("\n".join(found["Examples"])).strip() + "\n```"]
    return "\n\n".join(part for part in parts if part.strip())


def methods(thing: Any) -> list[tuple[str, Any]]:
    """List the public methods and properties that a class itself defines, in their order."""
    if not inspect.isclass(thing):
        return []
    own = [(name, inspect.getattr_static(thing, name)) for name in vars(thing) if not name.startswith("_")]
    return [(name, each) for name, each in own if isinstance(each, property) or inspect.isfunction(each)]


def documentation(name: str, thing: Any) -> str:
    """Write signature and documentation of a name, and of the methods of a class."""
    text = documentation_text(inspect.getdoc(thing) or "")
    parts = [f"```python\n{signature_text(name, thing)}\n```", text]
    for method, each in methods(thing):
        parts += [f"```python\n{signature_text(f'{name}.{method}', each)}\n```"]
        parts += [documentation_text(inspect.getdoc(each) or "")]
    return "\n\n".join(part for part in parts if part)
