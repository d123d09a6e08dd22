"""The registered model as MLflow asks it. The project's own server and commands do not: see ``serving.loading``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel

from cxr_tasks.serving.predictor import Predictor
from cxr_tasks.serving.protocol import CallError, images_of
from cxr_tasks.tracking import MODEL_FOLDER


class ChestXrayModel(PythonModel):
    """A classifier of chest X-rays."""

    def load_context(self, context: Any) -> None:
        """Load the network and its facts."""
        folder = Path(context.artifacts[MODEL_FOLDER])
        # MLflow writes which version this is, where it is loaded by its name.
        meta = folder.parent.parent / "registered_model_meta"
        told = yaml.safe_load(meta.read_text(encoding="utf-8")) if meta.is_file() else {}
        self.predictor = Predictor.load(folder, told.get("model_name", ""), str(told.get("model_version", "")))

    # MLflow would take a type for a schema of its own.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """An answer for each image, as ``cxr_tasks.serving.predictor.ImageAnswer`` describes it."""
        try:
            images = images_of(model_input)
        except CallError as error:
            # Of any other error MLflow's server keeps the words to itself.
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return [answer.model_dump(mode="json") for answer in self.predictor.predict(images)]
