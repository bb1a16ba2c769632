"""Saved models: what is written comes back, older formats too; what was damaged, swapped or forged is refused."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from safetensors.numpy import load_file, save_file
from scipy import sparse

from selectormlp.classifiers import LinearSVMClassifier, SelectorMLPClassifier, make_classifier
from selectormlp.data import InputError
from selectormlp.saving import _FORMAT_VERSION, align_genes, annotate_cells, load_model, save_model

OLD = Path(__file__).parent / "models"
QUICK: dict[str, Any] = {"hidden_sizes": (8,), "max_epochs": 2, "batch_size": 32}


@pytest.fixture(scope="module")
def cells() -> AnnData:
    """60 log-normalised cells of three types x 8 genes."""
    rng = np.random.default_rng(0)
    types = np.repeat(["alpha", "beta", "ductal"], 20)
    counts = rng.poisson(1.0, (60, 8)).astype(np.float32)
    for number, name in enumerate(np.unique(types)):
        counts[types == name, number] += 9
    X = sparse.csr_matrix(np.log1p(counts * (1e4 / counts.sum(axis=1, keepdims=True))))
    return AnnData(X, obs=pd.DataFrame({"cell_type": types}, index=[f"c{i}" for i in range(60)]),
                   var=pd.DataFrame(index=[f"gene{i}" for i in range(8)]))  # fmt: skip


def fitted(cells: AnnData, condition: str) -> Any:
    """A quickly trained model that knows its genes."""
    model = make_classifier(condition, model_settings={} if condition == "svm_l1" else QUICK)
    return model.fit(cells.X, cells.obs["cell_type"].to_numpy().astype(str), gene_names=cells.var_names)


@pytest.fixture(scope="module")
def saved(cells, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two kinds of model."""
    folder = tmp_path_factory.mktemp("models")
    save_model(fitted(cells, "selector_l1"), folder / "network")
    save_model(fitted(cells, "svm_l1"), folder / "svm")
    return folder


@pytest.mark.parametrize("condition", ["selector_clamped_l1", "mlp_no_batch_norm", "svm_l1"])
def test_saved_models_come_back_and_hold_no_code(condition: str, cells, tmp_path) -> None:
    model = fitted(cells, condition)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert (again.class_scores(cells.X) == model.class_scores(cells.X)).all()
    assert (again.feature_importances_ == model.feature_importances_).all()
    assert again.get_params() == model.get_params() and again.trained_on_ == model.trained_on_
    assert {path.suffix for path in (tmp_path / "model").iterdir()} <= {".json", ".safetensors", ".csv"}


@pytest.mark.parametrize("types", [[1, 2, 3], [False, True], [0.0, 1.0], ["β", "ductal, old", 'a "b"']])
def test_types_come_back_as_they_were(types: list, cells, tmp_path) -> None:
    y = np.array(types)[np.arange(60) % len(types)]
    model = LinearSVMClassifier(class_weight=dict.fromkeys(types, 2.0)).fit(cells.X, y)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.classes_.dtype == model.classes_.dtype and (again.predict(cells.X) == model.predict(cells.X)).all()
    assert again.class_weight == model.class_weight


def test_settings_of_the_fit_alone_are_not_kept(cells, tmp_path) -> None:
    settings = {"log_folder": str(tmp_path / "logs"), "trainer_arguments": {"enable_progress_bar": False}}
    model = SelectorMLPClassifier(random_state=3, **QUICK, **settings)
    save_model(model.fit(cells.X, cells.obs["cell_type"].to_numpy()), tmp_path / "model")
    assert "logs" not in (tmp_path / "model" / "config.json").read_text()
    assert load_model(tmp_path / "model").log_folder is None


@pytest.mark.parametrize("kind", ["network", "svm"])
@pytest.mark.parametrize("version", range(1, _FORMAT_VERSION + 1))
def test_models_of_every_format_load_and_predict_what_they_did(kind: str, version: int) -> None:
    """The folders were written by the version that introduced their format; `scores.csv` by that version too."""
    folder = OLD / f"format_{version}_{kind}"
    x = np.loadtxt(OLD / "cells.csv", delimiter=",")
    expected = np.loadtxt(folder / "scores.csv", delimiter=",")
    np.testing.assert_allclose(load_model(folder).class_scores(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_process_that_loads_first_can_train_afterwards() -> None:
    """What is imported while the shapes are found out must not take them for values."""
    code = (
        "import sys, numpy as np\n"
        "from selectormlp import SelectorMLPClassifier, load_model\n"
        "assert 'selectormlp.training' not in sys.modules\n"
        "load_model(sys.argv[1])\n"
        "x, y = np.random.default_rng(0).random((40, 5)), np.repeat(['a', 'b'], 20)\n"
        "SelectorMLPClassifier(hidden_sizes=(4,), max_epochs=1).fit(x, y)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(OLD / "format_2_network")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_an_old_model_saved_again_has_todays_format(tmp_path) -> None:
    model = load_model(OLD / "format_1_network")
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == _FORMAT_VERSION
    np.testing.assert_array_equal(load_model(tmp_path).class_scores(np.eye(8)), model.class_scores(np.eye(8)))


def edit(**changes: Any) -> Callable[[Path], None]:
    """Change entries of config.json; None takes one out."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def settings(**changes: Any) -> Callable[[Path], None]:
    """Change settings in config.json."""

    def change(folder: Path) -> None:
        edit(settings=json.loads((folder / "config.json").read_text())["settings"] | changes)(folder)

    return change


def forged_weights(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    """Other numbers, with the right checksum: by somebody who knows the format."""

    def forge(folder: Path) -> None:
        arrays = load_file(folder / "weights.safetensors")
        change(arrays)
        save_file(arrays, folder / "weights.safetensors")
        edit(format_version=1)(folder)  # has no checksums

    return forge


def link(name: str) -> Callable[[Path], None]:
    """A file becomes a link to a copy of itself outside the folder."""

    def change(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return change


def cut(name: str, n_bytes: int) -> Callable[[Path], None]:
    """The first bytes of a file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:n_bytes])  # type: ignore[return-value]


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights cut off": (cut("weights.safetensors", 100), "checksum differs"),
    "history cut off": (cut("history.csv", 10), "checksum differs"),
    "description cut off": (cut("config.json", 100), "not a readable JSON"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors is missing"),
    "no history": (lambda f: (f / "history.csv").unlink(), "history.csv is missing"),
    "no description": (lambda f: (f / "config.json").unlink(), "holds no model"),
    "another model's weights": (
        lambda f: shutil.copy(f.parent / "svm" / "weights.safetensors", f / "weights.safetensors"),
        "checksum differs",
    ),
    "weights are a link": (link("weights.safetensors"), "weights.safetensors is a link"),
    "description is a link": (link("config.json"), "config.json is a link"),
    "history is a link": (link("history.csv"), "history.csv is a link"),
    "a list": (lambda f: (f / "config.json").write_text("[1, 2]"), "does not describe a model"),
    "newer format": (edit(format_version=99), "update selectormlp"),
    "format of no version": (edit(format_version="two"), "format_version is 'two'"),
    "unknown model": (edit(model="os.system"), "'model' in config.json"),
    "model is a list": (edit(model=["SelectorMLPClassifier"]), "'model' in config.json"),
    "one gene fewer": (edit(genes=[f"gene{i}" for i in range(7)]), "should be"),
    "a gene twice": (edit(genes=["gene0"] * 8), "'genes' in config.json"),
    "a gene that is a number": (edit(genes=list(range(8))), "'genes' in config.json"),
    "types in another order": (edit(types=["beta", "alpha", "ductal"]), "'types' in config.json"),
    "types of two kinds": (edit(types=["alpha", 1, 2]), "'types' in config.json"),
    "a type fewer": (edit(types=["alpha", "beta"]), "should be"),
    "no settings": (edit(settings=None), "'settings' in config.json"),
    "best epoch of words": (edit(best_epoch="last"), "'best_epoch' in config.json"),
    "setting that acts": (settings(log_folder="/tmp"), "no setting 'log_folder'"),
    "setting that does not exist": (settings(hiden_sizes=[8]), "no setting 'hiden_sizes'"),
    "more memory than there is": (settings(hidden_sizes=[10**9, 10**9]), "should be"),
    "layers of words": (settings(hidden_sizes=["many"]), "describe no network"),
    "unknown selector": (settings(selector="wide"), "describe no network"),
    "unknown protocol": (settings(protocol="fast"), "describe no network"),
    "an array fewer": (forged_weights(lambda a: a.pop("gene_scale")), "'gene_scale' should be .* missing"),
    "an array more": (forged_weights(lambda a: a.update(more=np.ones(3))), "'more' should be absent"),
    "not a number": (forged_weights(lambda a: a["gene_spread"].__setitem__(0, np.nan)), "not numbers"),
    "truth values": (forged_weights(lambda a: a.update(gene_scale=np.ones(8, bool))), "not numbers"),
    "no safetensors": (
        lambda f: ((f / "weights.safetensors").write_bytes(b"cos\nsystem\n(S'true'\ntR."), edit(format_version=1)(f)),
        "cannot be read",
    ),
    "history of bytes": (
        lambda f: ((f / "history.csv").write_bytes(b"\xff\x00\xfe"), edit(format_version=1)(f)),
        "history.csv cannot be read",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_models_that_were_damaged_or_forged_are_refused_in_one_sentence(name: str, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "models")
    damage, words = DAMAGE[name]
    damage(tmp_path / "models" / "network")
    with pytest.raises(InputError, match=words) as caught:
        load_model(tmp_path / "models" / "network")
    assert "\n" not in str(caught.value) and "network" in str(caught.value)


def test_a_model_half_written_over_another_is_refused(saved: Path, cells, tmp_path, monkeypatch) -> None:
    shutil.copytree(saved / "svm", tmp_path / "svm")
    other = LinearSVMClassifier(C=0.01).fit(cells.X, cells.obs["cell_type"].to_numpy().astype(str))
    monkeypatch.setattr("selectormlp.saving._write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_model(other, tmp_path / "svm")
    with pytest.raises(InputError, match="checksum differs"):
        load_model(tmp_path / "svm")


def test_the_library_unpickles_nothing(root: Path) -> None:
    """No pickle; checkpoints of an unfinished training are torch's, which Lightning loads with weights_only=True."""
    words = (r"\bpickle\b", r"\bjoblib\.(load|dump)", r"torch\.(load|save)\(", "allow_pickle=True",
             "weights_only=False", r"\b(eval|exec)\(", r"yaml\.(unsafe_)?load\(")  # fmt: skip
    forbidden = re.compile("|".join(words))
    allowed = ("cloudpickle", ".eval()", '".pickle"', "torch.save(checkpoint")
    found = []
    for path in sorted((root / "selectormlp").glob("*.py")):
        for line in path.read_text(encoding="utf-8").splitlines():
            code = line.split("#")[0]
            for word in allowed:
                code = code.replace(word, "")
            if forbidden.search(code):
                found.append(f"{path.name}: {line.strip()}")
    assert found == []


def test_genes_are_brought_into_order_by_name(cells) -> None:
    turned = cells[:, ::-1]
    np.testing.assert_array_equal(align_genes(turned, cells.var_names).toarray(), cells.X.toarray())
    fewer = align_genes(turned[:, :-1], cells.var_names, max_missing=0.2).toarray()
    assert not fewer[:, 0].any() and (fewer[:, 1:] == cells.X.toarray()[:, 1:]).all()
    with pytest.raises(InputError, match="1 of the model's 8 genes are not in the data, the first is 'gene0'"):
        align_genes(turned[:, :-1], cells.var_names)
    twice = AnnData(np.ones((2, 3)), var=pd.DataFrame(index=["gene0", "gene0", "x"]))
    with pytest.raises(InputError, match="'gene0' occurs more than once"):
        align_genes(twice, ["gene0"])


@pytest.mark.parametrize("kind", ["network", "svm"])
def test_new_cells_get_their_types_in_a_copy(kind: str, saved: Path, cells, tmp_path) -> None:
    model = load_model(saved / kind)
    named = annotate_cells(model, cells[:, ::-1])
    assert "predicted_type" not in cells.obs and (named.obs["predicted_type"] == model.predict(cells.X)).all()
    assert (named.obs_names == cells.obs_names).all()
    if kind == "network":
        shares = named.obsm["predicted_type_probabilities"]
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        np.testing.assert_allclose(named.obs["predicted_type_probability"], shares.max(axis=1))
    named.write_h5ad(tmp_path / "named.h5ad")
    with pytest.raises(InputError, match="has a column 'predicted_type' already"):
        annotate_cells(model, named)


def test_types_are_of_the_values_that_are_asked_for_or_decided_on(saved: Path, cells, tmp_path) -> None:
    """Scaled values in X, counts elsewhere; ids in the index, symbols in var: as if the counts had come alone."""
    model = load_model(saved / "svm")
    counts = AnnData(np.round(np.expm1(cells.X.toarray())).astype(np.float32), obs=cells.obs, var=cells.var)
    right = annotate_cells(model, counts).obs["predicted_type"]
    scaled = AnnData(counts.X - counts.X.mean(0), obs=cells.obs, var=cells.var, layers={"counts": counts.X})
    scaled.layers["mirrored"] = counts.X[::-1].copy()
    scaled.var["symbol"], scaled.var_names = scaled.var_names.to_numpy(), [f"ENSG{i:011d}" for i in range(8)]
    scaled.write_h5ad(tmp_path / "scaled.h5ad")
    for given in (scaled, read_h5ad(tmp_path / "scaled.h5ad", backed="r")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            named = annotate_cells(model, given, layer="counts", gene_names="symbol")
        assert (named.obs["predicted_type"] == right).all() and named.var_names[0] == "ENSG00000000000"
    mirrored = annotate_cells(model, scaled, layer="mirrored", gene_names="symbol").obs["predicted_type"]
    assert (mirrored.to_numpy() == right.to_numpy()[::-1]).all() and (mirrored != right).any()
    with pytest.raises(InputError, match="did you mean 'layer'"):
        annotate_cells(model, scaled, layr="counts")


@pytest.mark.parametrize("where", ["backed", "lazy", "dask"])
def test_cells_that_are_not_in_memory_are_named_alike(where: str, saved: Path, cells, tmp_path) -> None:
    import dask.array
    from anndata import experimental

    path, model = tmp_path / "cells.h5ad", load_model(saved / "svm")
    cells.write_h5ad(path)
    given = cells.copy()
    if where == "dask":
        given.X = dask.array.from_array(cells.X.toarray(), chunks=(20, 8))
    else:
        given = read_h5ad(path, backed="r") if where == "backed" else experimental.read_lazy(path)
    named = annotate_cells(model, given)
    assert isinstance(named.obs, pd.DataFrame) and not named.isbacked and "predicted_type" not in given.obs
    assert named.obs["predicted_type"].astype(str).tolist() == model.predict(cells.X).tolist()


def test_missing_genes_are_counted_aloud_and_raw_counts_are_normalised(saved: Path, cells) -> None:
    model = load_model(saved / "svm")
    with pytest.warns(UserWarning, match="1 of the model's 8 genes are not in the data and count as zero: gene7"):
        annotate_cells(model, cells[:, :7], max_missing=0.2)
    counts = AnnData(np.round(np.expm1(cells.X.toarray())).astype(np.float32), obs=cells.obs, var=cells.var)
    assert (annotate_cells(model, counts).obs["predicted_type"] == model.predict(cells.X)).all()
