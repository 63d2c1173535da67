"""Logs a finished run's model in MLflow: the run's exported program, as a pyfunc model."""

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoexp.tracking import served
from emoexp.tracking.record import FINAL_STEP

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

PROGRAM = "model.pt2"


def digest(program: Path) -> str:
    """A name for the program's content."""
    return hashlib.sha256(program.read_bytes()).hexdigest()[:32]


def log(client: "MlflowClient", run_id: str, program: Path) -> str:
    """Log the program as the run's model, once for each content, and return the model's id.

    A model that was logged in part before a kill is completed, not logged again. Raises ValueError for a program
    without the description of its classes and image shape.
    """
    from mlflow.entities import LoggedModelOutput

    run, content = client.get_run(run_id), digest(program)
    model = _find_model(client, run, content)
    if model is None:
        tags = {"emoexp.program": content, "emoexp.run": program.parent.name}
        experiment, params = run.info.experiment_id, run.data.params
        model = client.create_logged_model(experiment, "model", run_id, tags, params, "pyfunc")
    if model.status != "READY":
        with tempfile.TemporaryDirectory() as scratch:
            _save_model(Path(scratch) / "model", program, run_id, model.model_id)
            client.log_model_artifacts(model.model_id, f"{scratch}/model")
        client.finalize_logged_model(model.model_id, "READY")
    linked = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in [output.model_id for output in linked]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=FINAL_STEP)])
    return str(model.model_id)


def _find_model(client: "MlflowClient", run: "Run", content: str) -> "LoggedModel | None":
    """The run's model of this content, logged as a whole or in part."""
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    return next((model for model in models if model.tags.get("emoexp.program") == content), None)


def _save_model(target: Path, program: Path, run_id: str, model_id: str) -> None:
    """The program as a pyfunc model that needs only torch and numpy: its code is a copy of `served`.

    Raises ValueError for a program without the description of its classes and image shape.
    """
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    described = _description(program)
    classes, shape = described["class_names"], described["shape"]
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), (-1, *shape))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, len(classes)))]),
    )
    code = target.with_name("emoexp_served.py")
    shutil.copyfile(served.__file__, code)
    versions = {package: importlib.metadata.version(package).split("+")[0] for package in ("torch", "numpy")}
    mlflow.pyfunc.save_model(
        target,
        loader_module=code.stem,
        data_path=str(program),
        code_paths=[str(code)],
        mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id, metadata=described),
        signature=signature,
        input_example=np.zeros((2, *shape), np.uint8),
        pip_requirements=[f"{package}=={version}" for package, version in versions.items()],
    )


def _description(program: Path) -> dict[str, Any]:
    with zipfile.ZipFile(program) as archive:
        for member in archive.namelist():
            if member.endswith(f"/{served.DESCRIPTION}"):
                described = json.loads(archive.read(member))
                return {key: described[key] for key in ("class_names", "shape")}
    raise ValueError(f"{program} says nothing of its classes ({served.DESCRIPTION} is missing): export it anew")
