"""A collection of models: what is saved comes back by name, from a folder or a web address; the rest is refused."""

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from selectormlp import collection
from selectormlp.classifiers import GeneClassifier, LinearSVMClassifier, SelectorMLPClassifier
from selectormlp.collection import _INDEX, ModelCollection, open_model
from selectormlp.data import InputError
from selectormlp.files import _only_run
from selectormlp.saving import save_model

X = np.random.default_rng(0).random((40, 5)).astype(np.float32)
Y = np.repeat(["beta", "alpha"], 20)


def refusal(function: Callable, *arguments: Any, **settings: Any) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def svm() -> GeneClassifier:
    return LinearSVMClassifier().fit(X, Y, gene_names=list("abcde"))


@pytest.fixture(scope="module")
def network() -> GeneClassifier:
    return SelectorMLPClassifier(hidden_sizes=(4,), max_epochs=1).fit(X, Y, gene_names=list("abcde"))


@pytest.fixture
def models(svm: GeneClassifier, network: GeneClassifier, tmp_path: Path) -> ModelCollection:
    """A folder with two models."""
    made = ModelCollection(tmp_path / "models")
    made.save(svm, "svm", description="two types")
    made.save(network, "net.2-b")
    return made


def same(model: GeneClassifier, other: GeneClassifier) -> bool:
    """Whether two models say exactly the same of the cells."""
    return bool((model.class_scores(X) == other.class_scores(X)).all())


def rewrite(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    """Change the index of a collection."""

    def act(folder: Path) -> None:
        index = json.loads((folder / _INDEX).read_text())
        change(index)
        (folder / _INDEX).write_text(json.dumps(index))

    return act


def link(name: str) -> Callable[[Path], None]:
    """Put a link in the place of something of the collection."""

    def act(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return act


# ------------------------------------------------------------------------------------------------------------- folders


def test_models_come_back_by_name_and_are_described(models, svm, network) -> None:
    assert same(models.load("svm"), svm) and same(models.load("net.2-b"), network)
    table = models.table().set_index("name")
    assert table.index.tolist() == ["net.2-b", "svm"] and table.loc["svm", "description"] == "two types"
    assert table["model"].tolist() == ["SelectorMLPClassifier", "LinearSVMClassifier"]
    about = models.describe("svm")
    assert about["types"] == ["alpha", "beta"] and about["n_genes"] == table.loc["svm", "n_genes"] == 5
    assert set(about["files"]) == {"config.json", "weights.safetensors"} and about["made_with"]["torch"]
    assert "did you mean 'svm'" in refusal(models.describe, "svm1") and "it holds" in refusal(models.load, "zebra")
    assert same(open_model(models.folder / "svm"), svm)


NOT_NAMES = ["..", ".", "", "a/b", "../svm", "/x", "C:\\x", ".hidden", "a b", "a\n", "x" * 101, "é", 5]


@pytest.mark.parametrize("name", NOT_NAMES)
def test_names_that_lead_elsewhere_are_refused(name: Any, svm, tmp_path) -> None:
    folder = tmp_path / "in" / "models"
    assert "cannot be called" in refusal(ModelCollection(folder).save, svm, name)
    assert not list(tmp_path.iterdir())


def test_a_second_model_of_a_name_needs_replace(models, svm, network) -> None:
    for name in ("net.2-b", "NET.2-B"):
        assert "has a model 'net.2-b' already" in refusal(models.save, svm, name)
    assert "already" in refusal(models.save, svm, "Net.2-b", replace=True)
    assert same(models.load("net.2-b"), network)
    models.save(svm, "net.2-b", description="now linear", replace=True)
    assert same(models.load("net.2-b"), svm) and models.describe("net.2-b")["description"] == "now linear"
    assert sorted(path.name for path in (models.folder / "net.2-b").iterdir()) == ["config.json", "weights.safetensors"]
    assert len(models.table()) == 2 and not list(models.folder.glob(".*"))


def test_what_is_no_model_of_the_collection_is_left_alone(models, svm, tmp_path) -> None:
    (models.folder / "notes").mkdir()
    (models.folder / "notes" / "mine.txt").write_text("keep")
    (models.folder / "link").symlink_to(tmp_path)
    for name in ("notes", "link"):
        assert "is no model of the collection" in refusal(models.save, svm, name, replace=True)
    assert (models.folder / "notes" / "mine.txt").read_text() == "keep"
    link("svm")(models.folder)
    assert "is no model of the collection" in refusal(models.save, svm, "svm", replace=True)


def test_a_save_that_fails_leaves_the_old_model(models, svm, network, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFittedError):
        models.save(LinearSVMClassifier(), "svm", replace=True)
    assert same(models.load("svm"), svm)
    assert "'description'" in refusal(models.save, network, "svm", description=5, replace=True)
    assert same(models.load("svm"), svm)
    with monkeypatch.context() as patch:  # the program ends before the index says anything
        patch.setattr(collection, "_write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            models.save(network, "svm", replace=True)
    assert same(models.load("svm"), svm)
    models.save(network, "svm", replace=True)
    assert same(models.load("svm"), network)


@pytest.mark.parametrize("name", ["svm", "new"])
def test_a_save_that_is_killed_anywhere_leaves_the_old_model_or_the_new_one(
    name, models, svm, network, monkeypatch
) -> None:
    """The program ends at the first change of a name, at the second, and so on, until it gets through."""
    real, begun = (
        {where: where.replace for where in (os, Path)},
        shutil.copytree(models.folder, models.folder.parent / "begun"),
    )
    for kill in range(1, 40):
        shutil.rmtree(models.folder)
        shutil.copytree(begun, models.folder)
        left = [kill]

        def dying(*given: Any, of: Any, left: list[int] = left) -> Any:
            left[0] -= 1
            if not left[0]:
                raise SystemExit
            return real[of](*given)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *given: dying(*given, of=os))
            patch.setattr(Path, "replace", lambda *given: dying(*given, of=Path))
            patch.setattr(shutil, "rmtree", lambda *given, **more: None)  # nobody tidies up after a kill
            try:
                models.save(network, name, replace=name == "svm")
            except SystemExit:
                ended = False
            else:
                ended = True
        again = ModelCollection(models.folder)
        if name == "svm" or name in again.table()["name"].tolist():
            assert same(again.load(name), network) or (name == "svm" and same(again.load(name), svm))
        again.save(network, name, replace=name in again.table()["name"].tolist())
        assert same(again.load(name), network) and not list(models.folder.glob(".*"))
        if ended:
            break
    assert ended and kill > 4


def test_a_whole_model_that_the_index_does_not_know_is_taken_over(models, svm, network) -> None:
    save_model(svm, models.folder / "left")
    models.save(svm, "left")
    assert same(models.load("left"), svm)
    save_model(svm, models.folder / "other")
    assert "does not list; pass replace=True" in refusal(models.save, network, "other")
    assert same(open_model(models.folder / "other"), svm)
    models.save(network, "other", replace=True)
    assert same(models.load("other"), network) and not list(models.folder.glob(".*"))


def test_two_programs_do_not_save_at_a_time(models, svm) -> None:
    with _only_run(models.folder, _INDEX):
        assert "at work" in refusal(models.save, svm, "third")
    models.save(svm, "third")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "no index": lambda folder: (folder / _INDEX).unlink(),
    "an index that is a link": link(_INDEX),
    "an index that is cut off": lambda folder: (folder / _INDEX).write_text('{"models": {'),
    "a page in its place": lambda folder: (folder / _INDEX).write_text("<html></html>"),
    "a list": lambda folder: (folder / _INDEX).write_text("[]"),
    "no models in it": rewrite(lambda index: index.pop("models")),
    "a newer format": rewrite(lambda index: index.update(format_version=2)),
    "a name that leads elsewhere": rewrite(lambda index: index["models"].update({"../x": index["models"]["svm"]})),
    "an entry that is a text": rewrite(lambda index: index["models"].update(svm="svm")),
    "one type": rewrite(lambda index: index["models"]["svm"].update(types=["beta"])),
    "no number of genes": rewrite(lambda index: index["models"]["svm"].pop("n_genes")),
    "a file elsewhere": rewrite(lambda index: index["models"]["svm"]["files"].update({"../../x": "0" * 64})),
    "a checksum of nothing": rewrite(lambda index: index["models"]["svm"]["files"].update({"config.json": None})),
    "no config.json among its files": rewrite(lambda index: index["models"]["svm"]["files"].pop("config.json")),
    "another model's files": lambda folder: shutil.copytree(folder / "net.2-b", folder / "svm", dirs_exist_ok=True),
    "a file that is missing": lambda folder: (folder / "svm" / "weights.safetensors").unlink(),
    "a model that is a link": link("svm"),
    "a file that is a link": link("svm/config.json"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_collection_is_refused_in_one_sentence(what: str, models) -> None:
    DAMAGE[what](models.folder)
    assert str(models.folder) in refusal(models.load, "svm")


# ----------------------------------------------------------------------------------------------------------- addresses


@pytest.fixture
def server(models, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A web server of this machine that offers the collection; `asked` lists what it was asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            asked.append(self.path.rpartition("/")[2])

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(models.folder.parent)))
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    running.asked = asked  # type: ignore[attr-defined]
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def remote(server, tmp_path) -> ModelCollection:
    """The same collection by its address."""
    return ModelCollection(f"http://127.0.0.1:{server.server_port}/models/", cache=tmp_path / "cache")


def test_a_model_is_fetched_once_by_its_name(remote, models, server, svm) -> None:
    assert remote.table().equals(models.table()) and remote.folder.is_relative_to(remote.cache)
    assert remote.folder == ModelCollection(str(remote.place).rstrip("/"), cache=remote.cache).folder
    server.asked.clear()
    assert same(remote.load("svm"), svm)
    assert sorted(server.asked) == ["config.json", _INDEX, "weights.safetensors"]
    server.asked.clear()
    assert same(remote.load("svm"), svm) and server.asked == [_INDEX]
    assert same(open_model(models.folder / "svm"), svm)


def test_a_model_that_was_replaced_is_fetched_again(remote, models, svm, network) -> None:
    remote.load("svm")
    models.save(network, "svm", replace=True)
    assert same(remote.load("svm"), network)


def test_a_copy_that_was_damaged_is_fetched_again(remote, svm) -> None:
    remote.load("svm")
    (remote.folder / "svm" / "weights.safetensors").write_bytes(b"")
    assert same(remote.load("svm"), svm)


def test_without_a_network_what_was_fetched_is_used_and_said(remote, server, svm) -> None:
    remote.load("svm")
    server.shutdown()
    server.server_close()
    with pytest.warns(UserWarning, match="what was fetched before is used"):
        assert same(remote.load("svm"), svm)
    with pytest.warns(UserWarning):
        assert "could not be fetched" in refusal(remote.load, "net.2-b")
    other = ModelCollection(f"{remote.place}other", cache=remote.cache)
    assert "could not be fetched" in refusal(other.table)


def test_files_that_the_index_does_not_promise_are_refused(remote, models, svm) -> None:
    remote.load("svm")
    (models.folder / "net.2-b" / "weights.safetensors").write_bytes(b"something else")
    assert "could not be fetched" in refusal(remote.load, "net.2-b")
    (models.folder / _INDEX).write_text("<html>not what you wanted</html>")
    assert "not readable JSON" in refusal(remote.load, "svm")
    assert "svm" in (remote.folder / _INDEX).read_text()  # the good copy is kept


@pytest.mark.parametrize(
    ("head", "body"),
    [(("Content-Length", "1000"), b'{"format"'), (("Transfer-Encoding", "chunked"), b"zz\r\n{}\r\n0\r\n\r\n")],
)
def test_an_answer_that_is_cut_short_is_one_sentence(head, body, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header(*head)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *words: Any) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    place = ModelCollection(f"http://127.0.0.1:{running.server_port}/models/", cache=tmp_path / "cache")
    assert "could not be fetched (the answer was cut short" in refusal(place.table)
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize("where", ["file", "model"])
def test_an_index_cannot_have_files_written_elsewhere(where: str, remote, models) -> None:
    (models.folder / "x").write_bytes(b"x")

    def lead_elsewhere(index: dict) -> None:
        entries = index["models"]
        if where == "model":
            entries["../x"] = entries["svm"]
        else:
            entries["svm"]["files"]["../../../x"] = hashlib.sha256(b"x").hexdigest()

    rewrite(lead_elsewhere)(models.folder)
    assert "is an entry" in refusal(remote.load, "svm")
    assert not remote.folder.exists()


@pytest.mark.parametrize(
    "place",
    [
        "http://example.org/models",
        "ftp://example.org/m",
        "file:///etc",
        "https+x://y",
        r"http://example.org\@localhost/m",
        "http://localhost@example.org/m",
        "http://localhost.example.org/m",
        "http://127.0.0.1.nip.io/m",
        "https://",
        "https://user:secret@example.org/m",
        "https://example.org/\nm",
        "http://[::ffff:1.2.3.4]/m",
    ],
)
def test_addresses_that_cannot_be_trusted_are_refused(place: str) -> None:
    assert "https://" in refusal(ModelCollection(place).table)
    assert "https://" in refusal(open_model, f"{place}/svm")


def _serve(answer: Callable[[Any], None]) -> ThreadingHTTPServer:
    """A server that answers every GET as told."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

        def do_GET(self) -> None:
            answer(self)

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, daemon=True).start()
    return running


def _send_on(to: str) -> Callable[[Any], None]:
    def answer(request: Any) -> None:
        request.send_response(302)
        request.send_header("Location", to)
        request.end_headers()

    return answer


@pytest.mark.parametrize(
    "to", ["http://example.org/models.json", "file:///etc/passwd", r"http://example.org\@127.0.0.1/x"]
)
def test_every_address_that_one_is_sent_on_to_is_checked(to: str, tmp_path) -> None:
    server = _serve(_send_on(to))
    said = refusal(ModelCollection(f"http://127.0.0.1:{server.server_port}/m", cache=tmp_path).table)
    server.shutdown()
    assert "not an address that can be trusted" in said or "could not be fetched" in said


def test_an_address_of_the_web_does_not_lead_to_this_machine(tmp_path) -> None:
    assert "https://" in refusal(collection._checked_url, "http://localhost/x", local=False)


def test_being_sent_on_for_ever_ends(tmp_path) -> None:
    server = _serve(_send_on("/again"))
    assert "sent on more than" in refusal(
        ModelCollection(f"http://127.0.0.1:{server.server_port}/m", cache=tmp_path).table
    )
    server.shutdown()


def test_an_index_has_a_largest_size_and_a_longest_time(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):
            while True:
                request.wfile.write(b"x" * 4096)

    def slow(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):
            while True:
                request.wfile.write(b"x")
                time.sleep(0.05)

    monkeypatch.setattr(collection, "_INDEX_LIMITS", (100_000, 0.5))
    for answer, words in ((endless, "larger than 100,000 bytes"), (slow, "takes longer than 0.5 seconds")):
        server, begun = _serve(answer), time.monotonic()
        said = refusal(ModelCollection(f"http://127.0.0.1:{server.server_port}/m", cache=tmp_path).table)
        server.shutdown()
        assert words in said and time.monotonic() - begun < 20


def test_nothing_is_saved_to_an_address(svm, tmp_path) -> None:
    far = ModelCollection("https://example.org/models", cache=tmp_path)
    assert "can only be read" in refusal(far.save, svm, "svm")


def test_a_model_opens_by_the_address_of_a_collection_and_its_name(remote, network, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    assert same(open_model(f"{remote.place}net.2-b/"), network)
    assert (tmp_path / "selectormlp" / "collections").is_dir()
