"""The desk: what a person does there is what `select_genes` gives, nothing is lost, and nobody else can do it."""

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scripts import chromium

from selectormlp import desk as desk_module
from selectormlp.cli import main
from selectormlp.data import InputError
from selectormlp.desk import (
    OpenDesk,
    _as_python,
    _as_shell,
    _Desk,
    _free_socket,
    _Gate,
    _Given,
    _Hands,
    _names_in,
    _open_desk,
    _render_view,
    _Served,
    design_panel,
)  # fmt: skip
from selectormlp.panels import GenePanel, read_panel
from selectormlp.selection import PanelDesign, select_genes
from selectormlp.simulation import simulate_cells
from selectormlp.sources import OpenCells, _take_cells, open_cells

RULES: list[dict[str, Any]] = [
    {}, {"n_genes": 20}, {"n_genes": 5}, {"must_include": ["gene_007", "gene_100"]},
    {"exclude": ["gene_001", "gene_002"]}, {"max_total": 3000.0}, {"min_markers": 2}, {"target": "imaging"},
    {"type_weights": {"type_01": 3.0}}, {"candidates": [f"gene_{i:03d}" for i in range(60)]}, {"batch_key": "donor"},
    {"n_variable": 50}, {"must_include": [f"gene_{i:03d}" for i in range(130)], "n_genes": 135}, {},
]  # fmt: skip


def cells_of(n_types: int = 4, n_cells: int = 500, n_genes: int = 160) -> AnnData:
    about: dict[str, Any] = {"n_housekeeping": 3, "library_size": 400, "size_ratio": 1, "seed": 0}
    cells = simulate_cells(n_cells=n_cells, n_genes=n_genes, n_types=n_types, **about)
    cells.obs["donor"] = [f"d{i % 3}" for i in range(cells.n_obs)]
    return cells


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return cells_of()


@pytest.fixture
def here(counts: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    counts.write_h5ad("cells.h5ad")
    return tmp_path


@pytest.fixture
def opened(counts: AnnData, tmp_path: Path) -> Iterator[_Desk]:
    desk = made(counts, tmp_path / "desk")
    yield desk
    desk.close()


def made(cells: Any, out: Path | str, **rules: Any) -> _Desk:
    return _Desk(_Given(lambda: _take_cells(cells, "cell_type"), cells, "cell_type"), _rules(**rules), out)


def shown(hands: _Hands) -> str:
    """The page, with one space between words."""
    return " ".join(_render_view(hands).split())


def _rules(**rules: Any) -> PanelDesign:
    return PanelDesign(**{"n_genes": 10, **rules})


# ----------------------------------------------------------------------------------------------- what select_genes says


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("where", ["in memory", "on disk"])
def test_the_desk_shows_what_select_genes_gives(where: str, counts: AnnData, here: Path) -> None:
    """Digit by digit, although sums, products and predictions are those of earlier searches."""
    given: Any = counts if where == "in memory" else open_cells("cells.h5ad", label_key="cell_type")

    def load() -> Any:
        return given

    desk = _Desk(_Given(load, given, "cell_type"), _rules(n_variable=30 if where == "on disk" else 2000), "desk")
    if where == "on disk":  # sums on disk, and genes that were not at hand at first
        ready = desk_module._shared_cells(given, "cell_type", desk.split, 30, memory=0)
        assert isinstance(ready.cells, OpenCells) and ready.train is None
        desk.ready = ready
        desk.ready.shared.__init__(ready.shared.bring, "cell_type", ready.shared.train.var_names[:40].tolist())
    for rules in RULES:
        asked = {**({"n_variable": 30} if where == "on disk" and "candidates" not in rules else {}), **rules}
        found = desk._answer_to(_rules(**asked)).panel
        wanted = select_genes(counts, "cell_type", **{"n_genes": 10, **asked})
        pd.testing.assert_frame_equal(found.table, wanted.table, check_exact=True)
        pd.testing.assert_frame_equal(found.coverage, wanted.coverage, check_exact=True)
        assert found.settings["rules"] == wanted.settings["rules"]
        assert found.settings["left_out"] == wanted.settings["left_out"]
    desk.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_saved_is_what_the_call_and_the_command_give(here: Path) -> None:
    desk = made("cells.h5ad", "desk", min_markers=1)
    first, second = desk.answer().panel.genes[:2]
    desk.pin("gene_150")
    desk.ban(first)
    desk.swap(second, "gene_151")
    desk.weigh("type_02", 2.5)
    desk.change("budget", max_total=4000.0)
    desk.save()
    scope: dict[str, Any] = {}
    exec(_as_python(desk), scope)  # noqa: S102 - our own text
    scope["panel"].to_csv("call.csv")
    assert Path("call.json").read_text() == Path("desk/panel.json").read_text()
    assert Path("call.csv").read_text() == Path("desk/panel.csv").read_text()
    import shlex

    words = shlex.split(_as_shell(desk))
    assert main([*words[1:], "--page", "false"]) == 0
    assert read_panel("panel.csv").genes == read_panel("desk/panel.csv").genes == read_panel("desk/panel.xlsx").genes
    assert desk.rules.required == ["gene_150", "gene_151"] and desk.rules.exclude == [first, second]
    desk.close()


def test_the_accuracy_is_on_validation_cells(opened: _Desk, counts: AnnData) -> None:
    found = opened.answer()
    scores = found.panel.score(counts, part="validation")
    assert found.accuracy[0] == pytest.approx(scores.mean_per_class_accuracy)
    assert found.accuracy[1] < found.accuracy[0] < found.accuracy[2]
    assert found.confusion.to_numpy().sum() == opened.judged.sizes["validation"] == found.types["cells"].sum()
    X = np.expm1(
        desk_module._log_values(counts, opened.split.cells("train"), "cell_type")[:, found.panel.genes].X.toarray()
    )
    y = counts.obs.loc[counts.obs_names.isin(opened.split.cells("train")), "cell_type"].astype(str)
    sums = pd.DataFrame(X).groupby(y.to_numpy()).mean().sum(axis=1)
    np.testing.assert_allclose(found.molecules.reindex(sums.index), sums, rtol=1e-5)


# --------------------------------------------------------------------------------------------------- nothing is lost


def test_steps_go_back_and_forth(opened: _Desk) -> None:
    before, gene = opened.answer().panel.genes, opened.answer().panel.genes[0]
    opened.ban(gene)
    assert gene not in opened.answer().panel.genes
    opened.pin(gene)  # no longer banned
    assert opened.answer().panel.genes[0] == gene and opened.rules.exclude == []
    opened.undo()
    opened.undo()
    opened.undo()
    assert opened.answer().panel.genes == before and opened.place == 0
    opened.redo()
    opened.change("size", n_genes=12)
    opened.redo()
    assert [step.done for step in opened.steps] == ["begun", f"banned {gene}", "size"] and opened.place == 2
    opened.free(gene)
    assert opened.rules.exclude == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda desk: desk.change("x", n_genes=0), "n_genes is 0"),
        (lambda desk: desk.change("x", n_genes=4000), "a panel of 4000 genes was asked for"),
        (lambda desk: desk.change("x", max_total=0.5), "fit into max_total"),
        (lambda desk: desk.change("x", target="immaging"), "did you mean 'imaging'"),
        (lambda desk: desk.change("x", method="svm_l1"), "the desk chooses by 'discriminant'"),
        (lambda desk: desk.weigh("type_77", 2), "not a type of the panel"),
        (lambda desk: desk.weigh("type_01", -1), "type_weights is"),
        (lambda desk: desk.pin("gen_007"), "is no gene of the cells .*did you mean 'gene_007'"),
        (lambda desk: desk.pin(""), "no gene is named"),
        (lambda desk: desk.swap("gene_001", "gene_001"), "swapped for itself"),
        (lambda desk: desk.paste("nothing that\nis a gene"), "none of the 5 names is a gene"),
        (lambda desk: desk.paste("x" * 300_000), "more than 200,000"),
        (lambda desk: desk.keep(" "), "a name of 1 to 60"),
        (lambda desk: desk.write_note("x" * 300_000), "shorten them"),
    ],
)
def test_what_cannot_be_changes_nothing(wrong: Callable[[_Desk], None], words: str, opened: _Desk) -> None:
    opened.ban("gene_003")
    before = json.dumps(opened._state())
    with pytest.raises(InputError, match=words):
        wrong(opened)
    assert json.dumps(opened._state()) == before == json.dumps(json.loads((opened.out / "desk.json").read_text()))


def test_a_design_comes_back(counts: AnnData, tmp_path: Path) -> None:
    desk = made(counts, tmp_path / "desk", min_cells=8)
    desk.pin("gene_042")
    desk.keep("one")
    desk.ban("gene_043")
    desk.undo()
    desk.write_note("β: ask\nvendor")
    state = desk._state()
    with pytest.raises(InputError, match="another program is at work"):
        made(counts, tmp_path / "desk", min_cells=8)
    desk.close()
    for rules in ({"n_genes": 100}, {"min_cells": 8}):  # as the first call had it, or without a word
        again = made(counts, tmp_path / "desk", **rules)
        assert again.came_back and again._state() == state and again.answer().panel.genes[0] == "gene_042"
        again.redo()
        assert again.rules.exclude == ["gene_043"]
        again.undo()
        again.close()
    for other, words in [({"min_cells": 9}, "begun with other rules"), ({"n_genes": 11}, "begun with other rules")]:
        with pytest.raises(InputError, match=words):
            made(counts, tmp_path / "desk", **other)
    with pytest.raises(InputError, match="a design for other cells"):
        made(counts[:400].copy(), tmp_path / "desk", min_cells=8)
    assert json.loads((tmp_path / "desk" / "desk.json").read_text()) == json.loads(json.dumps(state))
    (tmp_path / "desk" / "desk.json").write_text("{}")
    with pytest.raises(InputError, match="no design of a desk"):
        made(counts, tmp_path / "desk")


def test_versions_stand_side_by_side(opened: _Desk) -> None:
    opened.keep("wide  and\nopen")
    opened.change("size", n_genes=5)
    opened.keep("small")
    opened.ban(opened.answer().panel.genes[0])
    table = opened.compare().set_index("version")
    assert table.index.tolist() == ["wide and open", "small", "now"] and table["genes"].tolist() == [10, 5, 5]
    opened.take("wide and open")
    assert len(opened.answer().panel) == 10
    opened.undo()
    assert len(opened.answer().panel) == 5
    opened.forget("small")
    assert list(opened.versions) == ["wide and open"]
    for number in range(19):
        opened.keep(f"v{number}")
    with pytest.raises(InputError, match="there are 20 versions"):
        opened.keep("one more")


def test_a_list_is_pasted_with_aliases_and_slips(tmp_path: Path) -> None:
    from selectormlp.data import load_pancreas

    cells = load_pancreas()
    desk = made(cells, tmp_path / "desk", min_cells=20, n_genes=3)
    desk.paste("Gene;Price\nINS;3\nCD45;2\nGCGG;1\n9-Sep;1\nSST;1\nTTR;1\n")
    assert desk.rules.candidates == ["INS", "PTPRC", "SST", "TTR"]
    assert desk.pasted.set_index("asked")["how"].to_dict()["9-Sep"] == "date"
    assert set(desk.answer().panel.genes) <= set(desk.rules.candidates)
    view = shown(_Hands(desk))
    assert "9-Sep: date" in view and "CD45: PTPRC (alias)" in view and "Not understood, and left out (2)" in view
    desk.paste("")
    assert desk.rules.candidates == [] and desk.pasted.empty
    desk.paste("INS GCG SST PPY", "must_include")
    assert desk.answer().panel.genes == ["INS", "GCG", "SST", "PPY"] and desk.rules.n_genes == 4
    assert _names_in("a, b\nc;d") == ["a", "b", "c", "d"]
    desk.close()


def test_no_page_of_another_panel_lies_beside_the_saved_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = made("cells.h5ad", "desk")
    desk.save()
    page = Path("desk/panel_report/panel.html")
    page.parent.mkdir()
    page.touch()
    desk.save()
    assert page.exists()  # the same panel
    desk.ban(desk.answer().panel.genes[0])
    monkeypatch.setattr(GenePanel, "to_csv", lambda *_: 1 / 0)  # as if it were killed before the csv is there
    with pytest.raises(ZeroDivisionError):
        desk.save()
    assert not page.exists() and not Path("desk/panel.xlsx").exists()
    desk.close()


def test_a_file_that_changes_under_the_desk(here: Path, counts: AnnData) -> None:
    desk = made("cells.h5ad", "desk")
    hands, genes = _Hands(desk), desk.answer().panel.genes
    assert desk.changed_files() == [] and "has changed since" not in shown(hands)
    other = counts.copy()
    other.X = other.X.multiply(np.random.default_rng(0).random(other.n_vars) < 0.5).tocsr()
    other.write_h5ad("cells.h5ad")
    assert "cells.h5ad has changed since the desk read it" in shown(hands)
    desk.pin("gene_005")  # with the cells that were read
    desk.undo()
    assert desk.answer().panel.genes == genes
    desk.save()
    with pytest.raises(InputError, match="is not the file that the panel was made from"):
        from selectormlp.selection import remake_panel

        remake_panel("desk/panel.json")
    hands.do({"act": "again"})
    assert hands.said.startswith("The cells were read again") and desk.changed_files() == []
    assert desk.answer().panel.genes == select_genes("cells.h5ad", "cell_type", 10).genes
    desk.close()


# --------------------------------------------------------------------------------------------------------- bad input


def test_a_label_with_one_type_is_a_sentence(counts: AnnData, tmp_path: Path) -> None:
    cells = counts.copy()
    cells.obs["cell_type"] = "all"
    with pytest.raises(InputError, match="type"):
        made(cells, tmp_path / "desk")
    assert not (tmp_path / "desk").exists() or not list((tmp_path / "desk").iterdir())


def test_three_hundred_types_are_shown(tmp_path: Path) -> None:
    rng, n_types = np.random.default_rng(0), 300
    y = np.repeat(np.arange(n_types), 9)
    rates = rng.gamma(0.3, 3, (n_types, 150))
    obs = pd.DataFrame({"cell_type": [f"t{i:03d}" for i in y]}, index=[f"c{i}" for i in range(len(y))])
    genes = pd.DataFrame(index=[f"gene_{i:03d}" for i in range(150)])
    desk = made(AnnData(rng.poisson(rates[y]).astype(np.float32), obs=obs, var=genes), tmp_path / "desk")
    view = shown(_Hands(desk))
    assert "The other 285 types" in view and len(view) < 1_000_000
    assert 'class="matrix"' not in view and view.count(" cells of t") == 20
    desk.close()


NAMES = ["<script>alert(1)</script>", "<img src=x onerror=alert(2)>", '"><b>x', "{{ 7*7 }}", "a'b", "x" * 300, "=1+1"]


def hostile(counts: AnnData) -> AnnData:
    cells = counts.copy()
    best = select_genes(counts, "cell_type", len(NAMES)).genes
    cells.var_names = [dict(zip(best, NAMES, strict=True)).get(gene, gene) for gene in cells.var_names]
    types = dict(
        zip(sorted(set(cells.obs["cell_type"])), ["<i>type</i>", '" onfocus=alert(3) x="', "a&b", "t"], strict=True)
    )
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str).map(types)
    return cells


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_names_are_escaped(counts: AnnData, tmp_path: Path) -> None:
    desk = made(hostile(counts), tmp_path / "desk")
    hands = _Hands(desk)
    for name in NAMES[:4]:
        hands.do({"act": "pin", "gene": name})
    hands.do({"act": "rule", "rule": "weight:<i>type</i>", "value": "2"})
    hands.do({"act": "keep", "version": "<script>alert(4)</script>"})
    view = shown(hands)
    assert not any(text in view for text in ("<script", "<img", "<i>type", "<b>x", " onfocus=alert(3)  x=", ">49<"))
    assert "&lt;script&gt;alert(1)" in view and desk.rules.type_weights == {"<i>type</i>": 2.0}
    desk.close()


def test_every_act_gets_a_sentence(opened: _Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    hands = _Hands(opened)
    for act in (
        {}, {"act": "pin"}, {"act": "ban", "gene": "nope"}, {"act": "rule", "rule": "n_genes", "value": "ten"},
        {"act": "rule", "rule": "max_total", "value": "1e999"}, {"act": "rule", "rule": "min_markers", "value": None},
        {"act": "rule", "rule": "seed", "value": "3"}, {"act": "rule", "rule": "__class__", "value": "3"},
        {"act": "paste", "text": " "}, {"act": "take", "version": "none"}, {"act": "save_page"}, {"act": "close"},
    ):  # fmt: skip
        hands.do(act)
        assert hands.failed and hands.said.endswith("."), act
        assert opened.place == 0
    monkeypatch.setattr(opened, "pin", lambda name: 1 / 0)
    hands.do({"act": "pin", "gene": "gene_001"})
    assert hands.failed and "Something unforeseen, ZeroDivisionError" in hands.said and opened.place == 0
    hands.do({"act": "undo"})
    hands.do({"act": "ban", "gene": "gene_001"})
    assert not hands.failed and hands.said.startswith("Banned gene_001. 10 genes, balanced accuracy")
    hands.do({"act": "rule", "rule": "max_total", "value": ""})
    assert not hands.failed


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_page_is_written_in_the_background(opened: _Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "write_panel_report", lambda panel, cells, folder, beside: folder)
    hands = _Hands(opened)
    hands.do({"act": "page"})
    assert hands.writing is not None
    hands.writing.join()
    assert opened.page_state.startswith("written: ") and (opened.out / "panel.csv").exists()

    def fails(*_: Any, **__: Any) -> None:
        raise InputError("no room")

    monkeypatch.setattr(desk_module, "write_panel_report", fails)
    hands.do({"act": "page"})
    hands.writing.join()
    assert opened.page_state == "not written: no room"


# ------------------------------------------------------------------------------------------------------------ the gate


def asked(gate: _Gate, path: str, *, kind: str = "http", method: str = "GET", **headers: str) -> list[dict[str, Any]]:
    """What the gate sends for a request."""
    sent: list[dict[str, Any]] = []
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": method, "path": path, "headers": given}

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    return sent


async def behind(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers everything."""
    kind = "websocket.accept" if scope["type"] == "websocket" else "http.response.start"
    await send({"type": kind, "status": 200, "headers": []})


def test_the_gate_lets_only_the_own_page_through() -> None:
    gate = _Gate(behind, token="s3cret", port=8000, scripts=["x"], frames="'none'")
    own = {"host": "127.0.0.1:8000"}
    assert asked(gate, "/s3cret/", **own)[0]["status"] == 200
    assert asked(gate, "/s3cret/desk.js", host="localhost:8000")[0]["status"] == 200
    for path in ("/", "/s3cre/", "/s3cret2/", "//s3cret/", "/S3CRET/", "/x/s3cret/", "", "/%73", "/é/", "/\udc80/"):
        assert asked(gate, path, **own)[0]["status"] == 403, path
    for host in ("evil.example:8000", "127.0.0.1:8001", "127.0.0.1", "127.0.0.1:8000.evil.example", ""):
        assert asked(gate, "/s3cret/", host=host)[0]["status"] == 421, host
    assert asked(gate, "/s3cret/")[0]["status"] == 421
    assert asked(gate, "/s3cret/", **own, origin="http://evil.example")[0]["status"] == 403
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert asked(gate, "/s3cret/session/x/upload/y", method=method, **own)[0]["status"] == 405
    sent = asked(gate, "/s3cret/", **own)[0]
    headers = {name.decode(): value.decode() for name, value in sent["headers"]}
    assert "default-src 'none'" in headers["content-security-policy"] and "unsafe" not in str(headers)
    assert headers["referrer-policy"] == "no-referrer" and "access-control-allow-origin" not in headers


def test_the_gate_of_the_websocket() -> None:
    gate = _Gate(behind, token="s3cret", port=8000, scripts=[], frames="'none'")
    own = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}
    assert asked(gate, "/s3cret/websocket/", kind="websocket", **own)[0]["type"] == "websocket.accept"
    for path, changed in [
        ("/websocket/", {}),
        ("/other/websocket/", {}),
        ("/s3cret/websocket/", {"origin": "http://evil.example"}),
        ("/s3cret/websocket/", {"origin": "null"}),
        ("/s3cret/websocket/", {"host": "evil.example"}),
    ]:
        sent = asked(gate, path, kind="websocket", **{**own, **changed})
        assert [message["type"] for message in sent] == ["websocket.close"], (path, changed)
    assert asked(gate, "/s3cret/websocket/", kind="websocket", host=own["host"])[0]["type"] == "websocket.close"


def test_a_port_that_is_in_use_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="is in use or cannot be had; leave port out"):
            _free_socket(taken.getsockname()[1])
    with pytest.raises(InputError, match="port 99999"):
        _free_socket(99999)
    with _free_socket(None) as free:
        assert free.getsockname()[0] == "127.0.0.1"


def test_a_folder_is_free_again_where_the_port_was_not(counts: AnnData, tmp_path: Path) -> None:
    pytest.importorskip("shiny")
    with _free_socket(None) as taken, pytest.raises(InputError, match="in use"):
        design_panel(counts, "cell_type", 5, out=tmp_path / "desk", port=taken.getsockname()[1])
    made(counts, tmp_path / "desk").close()


def test_without_shiny_there_is_a_sentence(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "shiny", None)
    with pytest.raises(InputError, match=r"needs the package shiny; pip install 'selectormlp\[desk\]"):
        design_panel("cells.h5ad", "cell_type")
    assert main(["design", "cells.h5ad", "--label-key", "cell_type"]) == 2
    assert "selectormlp[desk]" in capsys.readouterr().err and not Path("desk").exists()


def test_the_command_refuses_its_own_cells_as_folder(here: Path, capsys: Any) -> None:
    pytest.importorskip("shiny")
    assert main(["design", "cells.h5ad", "--label-key", "cell_type", "--out", "cells.h5ad"]) == 2
    assert "cannot write" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- in a browser


class Person:
    """Someone before the desk: one tab, and what went wrong in it."""

    def __init__(self, context: Any, address: str):
        self.page, self.address, self.faults, self.asked = context.new_page(), address, list[str](), list[str]()
        self.page.set_default_timeout(60_000)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)
        self.page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.open()

    def open(self) -> None:
        self.page.goto(self.address)
        self.page.locator("#state").wait_for(state="attached")

    @property
    def said(self) -> str:
        return self.page.locator("#said").inner_text()

    def until_answered(self, do: Callable[[], Any]) -> str:
        """Do something and wait for the answer; what was said."""
        turn = self.page.locator("body").get_attribute("data-turn")
        do()
        self.page.locator(f"body:not([data-turn='{turn}'])").wait_for()
        return self.said

    def press(self, name: str) -> str:
        return self.until_answered(self.page.get_by_role("button", name=name, exact=True).click)

    def type(self, label: str, text: str) -> str:
        field = self.page.get_by_label(label).first
        field.fill(text)
        return self.until_answered(lambda: field.press("Tab"))

    def genes(self) -> list[str]:
        rows = self.page.locator("section[aria-labelledby=h-genes] tbody th")
        return [text.removesuffix(" pinned") for text in rows.all_inner_texts()]

    def axe(self) -> list[str]:
        from axe_playwright_python.base import AXE_SCRIPT

        self.page.evaluate(AXE_SCRIPT)
        found = self.page.evaluate("axe.run()")["violations"]
        return [f"{each['id']}: {each['nodes'][0]['html'][:100]}" for each in found]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("shiny")
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def served(here: Path, browser: Any) -> Iterator[_Served]:
    given = _Given(lambda: _take_cells("cells.h5ad", "cell_type"), "cells.h5ad", "cell_type")
    desk = _open_desk(given, _rules(), "desk")
    yield desk._served
    desk.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_person_designs_a_panel(served: _Served, browser: Any, counts: AnnData) -> None:
    person = Person(browser.new_context(), served.address)
    first = person.genes()
    assert first == select_genes(counts, "cell_type", 10).genes
    assert (
        "Pinned gene_150. 10 genes, balanced accuracy" in person.press("Pin gene_150")
        if ("gene_150" in first)
        else person.until_answered(
            lambda: (person.page.get_by_label("Gene", exact=True).fill("gene_150"), person.press("Pin"))
        )
    )
    assert person.genes()[0] == "gene_150"
    banned = person.genes()[3]
    assert person.press(f"Ban {banned}").startswith(f"Banned {banned}.")
    assert person.page.evaluate("document.activeElement.textContent") == "Ban"  # of the row that came after
    swapped = person.genes()[2]
    other = person.page.get_by_label(f"Substitute of {swapped}").input_value()
    assert person.press(f"Swap {swapped} for the chosen substitute").startswith(f"Swapped {swapped} for {other}.")
    assert person.press("Undo").startswith(f"Undone: swapped {swapped} for {other}.")
    assert person.type("Budget: molecules per 10,000 in any type", "5000").startswith("Budget: 5000 molecules.")
    assert person.type("Weight of type_01", "2").startswith("Weight of type_01: 2.")
    assert person.type("Genes in the panel", "12").startswith("Size: 12 genes. 12 genes")
    assert "none of the 1 names" in person.until_answered(
        lambda: (person.page.get_by_label("Names of genes, pasted").fill("nothing"), person.press("Pin them all"))
    )
    assert person.page.get_by_label("Names of genes, pasted").input_value() == "nothing"  # and can be mended
    assert person.press("Save panel").startswith("Saved: ")
    asked: dict[str, Any] = {"must_include": ["gene_150"], "exclude": [banned], "max_total": 5000.0}
    wanted = select_genes("cells.h5ad", "cell_type", 12, **asked, type_weights={"type_01": 2.0})
    assert read_panel("desk/panel.json").genes == wanted.genes == person.genes() == read_panel("desk/panel.xlsx").genes
    assert read_panel("desk/panel.json").settings == json.loads(json.dumps(wanted.settings))
    person.open()
    assert person.genes() == wanted.genes and person.page.get_by_label("Genes in the panel").first.input_value() == "12"
    assert person.faults == [] and not [url for url in person.asked if not url.startswith((served.address, "data:"))]


@pytest.mark.slow
def test_axe_finds_nothing_and_the_page_fits(served: _Served, browser: Any) -> None:
    served.desk.pin("gene_150")
    served.desk.ban("gene_001")
    served.desk.keep("one")
    for theme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        person = Person(
            browser.new_context(color_scheme=theme, viewport={"width": width, "height": 800}), served.address
        )
        person.page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        assert person.axe() == [] and person.faults == [], (theme, width)
        assert person.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        named = "[...document.querySelectorAll('input, textarea, select')].every(e => e.labels.length || e.ariaLabel)"
        assert person.page.evaluate(named)


@pytest.mark.slow
def test_a_keyboard_is_enough(served: _Served, browser: Any) -> None:
    person = Person(browser.new_context(), served.address)
    keys = person.page.keyboard
    for _ in range(80):
        keys.press("Tab")
        if person.page.evaluate("document.activeElement.id") == "gene":
            break
    keys.type("gene_150")
    assert person.until_answered(lambda: keys.press("Enter")).startswith("Pinned gene_150.")
    assert person.page.evaluate("document.activeElement.id") == "gene"
    assert person.page.get_by_label("Gene", exact=True).input_value() == ""
    for _ in range(60):
        keys.press("Tab")
        if (person.page.evaluate("document.activeElement.ariaLabel") or "").startswith("Ban "):
            break
    assert person.until_answered(lambda: keys.press("Space")).startswith("Banned gene_150.")


@pytest.mark.slow
def test_two_tabs_show_one_design(served: _Served, browser: Any) -> None:
    one, other = Person(browser.new_context(), served.address), Person(browser.new_context(), served.address)
    other.page.get_by_label("Names of genes, pasted").fill("half typed")
    gone = one.genes()[0]
    assert "Banned" in other.until_answered(lambda: one.press(f"Ban {gone}"))
    assert one.genes() == other.genes() and gone not in other.genes()
    assert other.page.get_by_label("Names of genes, pasted").input_value() == "half typed"
    other.press("Undo")
    one.page.get_by_text(gone, exact=True).first.wait_for()
    assert one.genes() == other.genes() and one.faults == other.faults == []


@pytest.mark.slow
def test_two_desks_of_one_program_work_side_by_side(browser: Any, counts: AnnData, tmp_path: Path) -> None:
    desks = [design_panel(counts, "cell_type", n, out=tmp_path / str(n)) for n in (6, 7)]
    people = [Person(browser.new_context(), desk.address) for desk in desks]
    gone = [person.genes()[0] for person in people]
    for person, gene in zip(people, gone, strict=True):  # both at once
        person.page.get_by_role("button", name=f"Ban {gene}", exact=True).click()
    for person, gene, desk in zip(people, gone, desks, strict=True):
        person.page.get_by_role("button", name=f"{gene}: no longer banned").wait_for()
        assert person.genes() == desk.panel.genes and person.faults == []
        desk.close()
    assert "has ended" in people[0].page.locator("#said.failed").inner_text()


@pytest.mark.slow
def test_a_browser_may_go_away_in_the_middle_of_a_search(
    served: _Served, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on, found = threading.Event(), threading.Event(), served.desk._found

    def slowly(rules: PanelDesign) -> Any:
        began.set()
        assert go_on.wait(60)
        return found(rules)

    monkeypatch.setattr(served.desk, "_found", slowly)
    person = Person(browser.new_context(), served.address)
    gone = person.genes()[0]
    person.page.get_by_role("button", name=f"Ban {gone}", exact=True).click()
    assert began.wait(60)
    person.page.context.close()
    go_on.set()
    again = Person(browser.new_context(), served.address)
    again.page.get_by_role("button", name=f"{gone}: no longer banned").wait_for()
    assert gone not in again.genes() and json.loads(Path("desk/desk.json").read_text())["place"] == 1


@pytest.mark.slow
def test_hostile_names_do_nothing_in_a_browser(browser: Any, counts: AnnData, tmp_path: Path) -> None:
    cells = hostile(counts)
    given = _Given(lambda: cells, cells, "cell_type")
    desk = _open_desk(given, _rules(), tmp_path / "desk")
    person = Person(browser.new_context(), desk.address)
    assert set(NAMES[:4]) <= set(person.genes())
    assert person.press(f"Pin {NAMES[0]}").startswith(f"Pinned {NAMES[0]}.")
    assert person.genes()[0] == NAMES[0] and person.press(f"Ban {NAMES[1]}").startswith(f"Banned {NAMES[1]}.")
    assert person.faults == [] and not [url for url in person.asked if not url.startswith((desk.address, "data:"))]
    desk.close()


@pytest.mark.slow
def test_a_desk_in_a_notebook(browser: Any, counts: AnnData, here: Path) -> None:
    desk = design_panel(counts, "cell_type", 8, out="desk")
    again = design_panel(counts, "cell_type", 8, out="desk")  # the cell is run once more
    assert isinstance(again, OpenDesk) and desk._served.running.done() and again.address in again._repr_html_()
    Path("notebook.html").write_text(f"<!doctype html><title>notebook</title>{again._repr_html_()}", encoding="utf-8")
    import functools
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    notebook = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(here)))
    threading.Thread(target=notebook.serve_forever, daemon=True).start()
    page = browser.new_context().new_page()
    page.goto(f"http://localhost:{notebook.server_port}/notebook.html")
    frame = page.frame_locator("iframe")
    frame.get_by_role("button", name="Save panel").wait_for()
    gone = again.panel.genes[0]
    frame.get_by_role("button", name=f"Ban {gone}", exact=True).click()
    frame.get_by_role("button", name=f"{gone}: no longer banned").wait_for()
    assert again.panel.genes == select_genes(counts, "cell_type", 8, exclude=[gone]).genes
    assert repr(again) == "OpenDesk(8 genes, out='desk')"
    notebook.shutdown()
    again.close()
