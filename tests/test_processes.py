"""Training in two processes: Lightning's arguments pass through, and the result is that of one process."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = """
import os
import numpy as np
from selectormlp.classifiers import SelectorMLPClassifier

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 60)
    x = rng.normal(size=(120, 20)).astype(np.float32)
    x[:60, 0] += 3
    settings = dict(hidden_sizes=(8,), max_epochs=2, batch_norm=False, dropout=0.0, noise=0.0)
    one = SelectorMLPClassifier(**settings, trainer_arguments={"accelerator": "cpu"}).fit(x, y)
    two = SelectorMLPClassifier(
        **settings, trainer_arguments={"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    ).fit(x, y)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        np.testing.assert_allclose(two.feature_importances_, one.feature_importances_, rtol=0.02, atol=0.02)
        np.testing.assert_allclose(two.history_["validation_loss"], one.history_["validation_loss"], rtol=0.01)
        print("the same")
"""


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "the same" in done.stdout, done.stderr[-2000:]


TRAIN = """
import sys
import numpy as np
import pytorch_lightning as pl
import torch
from sklearn.metrics import balanced_accuracy_score
from selectormlp.classifiers import SelectorMLPClassifier
from selectormlp.saving import save_model


class Seen(pl.Callback):
    def __init__(self):
        self.cells = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.cells += [(trainer.current_epoch, int(number)) for number in batch[0][:, 1]]


def data():
    rng, y = np.random.default_rng(0), np.array(["a", "b", "c"])[np.arange(133) % 3]
    x = rng.normal(size=(133, 20)).astype(np.float32)
    x[y == "a", 0] += 2
    held = x[:41].copy(), y[:41]
    x[:, 1] = np.arange(133)  # gene 1 tells which cell it is
    return x, y, held


def train(folder, n_nodes, devices):
    x, y, held = data()
    seen = Seen()
    place = {"num_nodes": n_nodes, "devices": devices} | ({"strategy": "ddp"} if n_nodes * devices > 1 else {})
    trainer = {"accelerator": "cpu", "callbacks": [seen], **place}
    plain = dict(batch_norm=False, dropout=0.0, noise=0.0, protocol="report", balance_types=True, patience=2)
    model = SelectorMLPClassifier(
        hidden_sizes=(8,), max_epochs=4, batch_size=16, learning_rate=1e-3, log_folder=f"{folder}/log",
        trainer_arguments=trainer, **plain,
    ).fit(x, y, validation=held)
    usual = SelectorMLPClassifier(
        hidden_sizes=(8,), max_epochs=4, steps_per_epoch=5, batch_size=16, trainer_arguments=trainer | {"callbacks": []}
    ).fit(x, y, validation=held)
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    save_model(model, f"{folder}/model")
    for name, fitted in (("plain", model), ("usual", usual)):
        weights = {f"{name}.{key}": value.numpy() for key, value in fitted.network_.state_dict().items()}
        score = balanced_accuracy_score(held[1], fitted.predict(held[0]))
        np.savez(f"{folder}/{name}{rank}.npz", best=fitted.best_epoch_, score=score, **weights)
        fitted.history_.to_csv(f"{folder}/{name}{rank}.csv", index=False)
    np.save(f"{folder}/seen{rank}.npy", np.array(seen.cells))


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return str(place.getsockname()[1])


def launches(how: str) -> list[tuple[list[str], dict[str, str]]]:
    """Commands and variables that start the script: torchrun once, once for each of two nodes, or as srun does."""
    torchrun, port = ["-m", "torch.distributed.run"], free_port()
    if how == "torchrun":
        return [([*torchrun, "--standalone", "--nproc_per_node", "2", "train.py", "out", "1", "2"], {})]
    if how == "two nodes":
        meet = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_id", "9"]
        meet += ["--rdzv_endpoint", f"localhost:{port}"]
        return [([*torchrun, *meet, "train.py", "out", "2", "1"], {})] * 2
    job = {"JOB_ID": "9", "JOB_NAME": "train", "NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2"}
    job |= {"NODELIST": "127.0.0.1", "LOCALID": "0"}
    ranks = [{f"SLURM_{name}": value for name, value in {**job, "PROCID": k, "NODEID": k}.items()} for k in "01"]
    return [(["train.py", "out", "2", "1"], {"MASTER_PORT": port, **rank}) for rank in ranks]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process leaves."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "train.py").write_text(TRAIN)
    runpy.run_path(str(folder / "train.py"))["train"](folder, 1, 1)
    return folder


@pytest.mark.parametrize("how", ["torchrun", "two nodes", "slurm"])
def test_the_same_script_under_a_launcher(how: str, one: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "out").mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    look = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, *c], env=environment | more, **look) for c, more in launches(how)]
    try:
        said = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * len(started), said[0][-2000:]
    check_ranks(tmp_path / "out", one)


def check_ranks(out: Path, one: Path) -> None:
    """Both ranks hold one process's model; each cell was seen once an epoch; one rank wrote the logs."""
    seen = np.concatenate([np.load(out / f"seen{rank}.npy") for rank in (0, 1)])
    assert sorted(map(tuple, seen)) == [(epoch, cell) for epoch in range(4) for cell in range(133)]
    for name in ("plain", "usual"):
        first, second, alone = (np.load(path / f"{name}{k}.npz") for path, k in ((out, 0), (out, 1), (one, 0)))
        assert all((first[key] == second[key]).all() for key in first)
        assert (out / f"{name}0.csv").read_bytes() == (out / f"{name}1.csv").read_bytes()
        history = pd.read_csv(out / f"{name}0.csv").set_index("epoch")
        assert history.loc[int(first["best"]), "validation_balanced_accuracy"] == pytest.approx(first["score"])
        if name == "plain":
            assert first["best"] == alone["best"]
            assert all(np.allclose(first[key], alone[key], rtol=0.02, atol=0.02) for key in first)
            np.testing.assert_allclose(history, pd.read_csv(one / "plain0.csv").set_index("epoch"), rtol=0.05)
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name}
    logs = {name for name in files if name.startswith(("log/", "model/"))} - {"log/tensorboard/hparams.yaml"}
    assert logs - {"log/csv/hparams.yaml"} == {"log/checkpoint/last.ckpt", "log/csv/metrics.csv"} | {
        f"model/{name}" for name in ("config.json", "history.csv", "weights.safetensors")
    }
    assert len(list((out / "log").rglob("*tfevents*"))) == 1
