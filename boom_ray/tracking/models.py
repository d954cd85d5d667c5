"""A sentence-transformers folder as an MLflow model, without loading it: its files plus MLflow's four small ones."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from boom_ray.errors import ModelError
from boom_ray.hashing import digest, file_digest
from boom_ray.tracking.operations import Handle, Operation

DATA_FOLDER = "model.sentence_transformer"  # where mlflow.sentence_transformers.load_model looks
PACKAGES = ("sentence-transformers", "transformers", "torch")
UNSAFE = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
FINGERPRINT_TAG = "boom_fingerprint"


@dataclass
class LogModel(Operation):
    """The model in ``folder`` as the run's logged model ``name``, and as a version of ``register_as``."""

    folder: Path
    name: str
    register_as: str | None

    def apply(self, client: Any, handle: Handle) -> None:
        """Send it unless the run has the very same files under this name already."""
        fingerprint = folder_fingerprint(self.folder)
        before = _logged(client, handle, self.name)
        same = [model for model in before if model.tags.get(FINGERPRINT_TAG) == fingerprint]
        model = same[0] if same else self._create(client, handle, fingerprint, step=len(before))
        if str(model.status) != "READY":
            client.log_model_artifacts(model.model_id, str(self.folder), DATA_FOLDER)
            with tempfile.TemporaryDirectory(prefix="boom-mlflow-") as scratch:
                write_description(Path(scratch), self.folder, model, handle)
                client.log_model_artifacts(model.model_id, scratch)
            client.finalize_logged_model(model.model_id, "READY")
        if self.register_as is not None:
            _register(client, self.register_as, model, handle)

    def _create(self, client: Any, handle: Handle, fingerprint: str, step: int) -> Any:
        from mlflow.entities import LoggedModelOutput

        model = client.create_logged_model(
            handle.experiment, name=self.name, source_run_id=handle.id, tags={FINGERPRINT_TAG: fingerprint}
        )
        client.log_outputs(handle.id, [LoggedModelOutput(model.model_id, step=step)])
        return model

    def record(self) -> dict[str, Any]:
        """Where the model is and what it was to be called."""
        return {"model": str(self.folder), "name": self.name, "register_as": self.register_as}


def check_folder(folder: Path) -> None:
    """Refuse what MLflow could not load, or what would run code on loading.

    Raises:
        ModelError: not a sentence-transformers folder, or it holds Python or pickle files.
    """
    if not (folder / "modules.json").is_file():
        raise ModelError(
            f"{folder} holds no modules.json; only a sentence-transformers folder can be logged to MLflow."
        )
    for path in sorted(folder.rglob("*")):
        if path.suffix in UNSAFE:
            raise ModelError(
                f"{path} is not logged to MLflow, which loads models with remote code enabled: only safetensors and "
                f"JSON are accepted. Remove the file or set tracking.log_model=false."
            )


def folder_fingerprint(folder: Path) -> str:
    """Hash of the names and contents of a folder's files: 32 hexadecimal digits."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest({path.relative_to(folder).as_posix(): file_digest(path) for path in files})


def write_description(target: Path, folder: Path, model: Any, handle: Handle) -> None:
    """Write MLmodel and the environment files that ``mlflow.sentence_transformers.save_model`` would write.

    Writing them ourselves spares loading the model, saving it again, and guessing its requirements in a subprocess.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    description = Model(
        artifact_path=model.artifact_location, run_id=handle.id, model_id=model.model_id, model_uuid=model.model_id
    )
    description.signature = _signature()
    mlflow.pyfunc.add_to_model(
        description,
        loader_module="mlflow.sentence_transformers",
        data=DATA_FOLDER,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    description.add_flavor(
        "sentence_transformers", sentence_transformers_version=versions["sentence-transformers"], code=None
    )
    description.model_size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    description.save(str(target / "MLmodel"))
    # "2.9.0+cpu" names a local build that no index serves
    pins = [f"{name}=={version.partition('+')[0]}" for name, version in versions.items()]
    _write_environment(target, [f"mlflow=={importlib.metadata.version('mlflow')}", *pins])


def _write_environment(target: Path, pins: list[str]) -> None:
    python = platform.python_version()
    packages: list[Any] = [f"python={python}", "pip", {"pip": pins}]
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": packages}
    env = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (target / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False), encoding="utf-8")
    (target / "python_env.yaml").write_text(yaml.safe_dump(env, sort_keys=False), encoding="utf-8")
    (target / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")


def _signature() -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    texts, embeddings = Schema([ColSpec("string")]), Schema([TensorSpec(np.dtype("float32"), (-1, -1))])
    return ModelSignature(inputs=texts, outputs=embeddings)


def _logged(client: Any, handle: Handle, name: str) -> list[Any]:
    """The run's logged models of one name, newest first."""
    models = client.search_logged_models(
        [handle.experiment], filter_string=f"source_run_id = '{handle.id}' AND name = '{name}'"
    )
    return list(models)


def _register(client: Any, name: str, model: Any, handle: Handle) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    if not any(version.source == model.artifact_location for version in versions):
        # not "models:/ID": MLflow's own SQL registry would look that up at the global tracking URI
        client.create_model_version(name, model.artifact_location, run_id=handle.id, model_id=model.model_id)
