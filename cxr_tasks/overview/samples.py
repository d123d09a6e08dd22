"""What the GAN of a training made at each step that was looked at: grids of the same latents."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cxr_tasks.artifacts import Gan
from cxr_tasks.overview.mlflow_api import MlflowApi, tags_of
from cxr_tasks.overview.trainings import TrainingRun
from cxr_tasks.strict import Strict
from cxr_tasks.tracking import TAG_DAG_RUN, TAG_MADE_BY, artifact_url

RUN_ID = re.compile(r"[0-9a-f]{32}")
GRID_NAME = re.compile(rf"{Gan.GRIDS}/step-(\d+)\.png")
MOST_GRID_BYTES = 8_000_000


class Samples(Strict):
    """Sample grids.

    Attributes:
        run_id: The MLflow run that has them.
        steps: Of the training, ascending.
        names: What the file of each step is called.
        url: Where people see them in MLflow.
    """

    run_id: str
    steps: tuple[int, ...]
    names: tuple[str, ...]
    url: str


def gan_samples(mlflow: MlflowApi, experiments: Sequence[str], training: TrainingRun) -> Samples | None:
    """The grids of the GAN of a training; ``None`` where there are none.

    Args:
        mlflow: The server.
        experiments: Ids of the experiments that trainings are in.
        training: The training.

    Raises:
        MlflowAwayError: There is no answer.
    """
    run_id = training.gan_run or _run_of_gan(mlflow, experiments, training)
    if not RUN_ID.fullmatch(run_id):
        return None
    listed = mlflow.get("artifacts/list", run_id=run_id, path=Gan.GRIDS).get("files", [])
    grids = sorted((int(name[1]), name[0]) for each in listed if (name := GRID_NAME.fullmatch(each["path"])))
    return Samples(
        run_id=run_id,
        steps=tuple(step for step, _ in grids),
        names=tuple(path.rpartition("/")[2].removesuffix(".png") for _, path in grids),
        url=artifact_url(training.experiment, run_id, Gan.GRIDS),
    )


def _run_of_gan(mlflow: MlflowApi, experiments: Sequence[str], training: TrainingRun) -> str:
    """The run that trains the GAN of a training whose report does not tell that yet; empty where there is none."""
    if "'" in training.dag_run:
        return ""
    condition = f"tags.`{TAG_DAG_RUN}` = '{training.dag_run}' AND tags.`cxr.step` = '{Gan.step}'"
    for found in mlflow.search_runs(experiments, condition, 1):
        made_by = tags_of(found).get(TAG_MADE_BY, "")
        return made_by if RUN_ID.fullmatch(made_by) else str(found["info"]["run_id"])
    return ""


def sample_grid_png(mlflow: MlflowApi, run_id: str, name: str) -> bytes | None:
    """One grid as a PNG; ``None`` where there is none.

    Args:
        mlflow: The server.
        run_id: The MLflow run that has it.
        name: As in :attr:`Samples.names`.

    Raises:
        MlflowAwayError: There is no answer.
    """
    path = f"{Gan.GRIDS}/{name}.png"
    if not RUN_ID.fullmatch(run_id) or not GRID_NAME.fullmatch(path):
        return None
    found = mlflow.file(run_id, path)
    # Whoever may log to the run may have put something else there.
    is_picture = found is not None and found.startswith(b"\x89PNG\r\n\x1a\n") and len(found) <= MOST_GRID_BYTES
    return found if is_picture else None
