"""What ``cxr doctor`` looks at. Each check changes nothing and returns one line."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.cli.options import mlflow_fault
from cxr_tasks.cli.terminal import file_size, hold_back_chatter
from cxr_tasks.config import Settings, resolve
from cxr_tasks.errors import UserError
from cxr_tasks.store import FolderStore, S3Store, open_store
from cxr_tasks.store.conditional import WITHOUT_CONDITIONS
from infra.embedded.stack import NEEDED_GIB, is_free
from infra.embedded.status import stack_status

PYTHONS = ((3, 11), (3, 14))
# Below these a run may be slow or may not end; neither keeps it from starting.
COMFORTABLE_GIB, COMFORTABLE_MEMORY_GIB, COMFORTABLE_CORES = 20.0, 6.0, 2
S3_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        name: What was looked at.
        state: ``ok``, ``warn`` (some runs cannot do without) or ``fail`` (no run can).
        found: In a few words.
        advice: What to do; empty where all is well.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def check_python() -> Check:
    """Whether this Python is one that the lock file was resolved for."""
    low, high = PYTHONS
    if low <= sys.version_info[:2] < high:
        return Check("Python", "ok", platform.python_version())
    advice = f"Install a Python from {low[0]}.{low[1]} on and below {high[0]}.{high[1]}, then make setup."
    return Check("Python", "fail", platform.python_version(), advice)


def check_cores() -> Check:
    """How many processors this process may use."""
    cores = len(os.sched_getaffinity(0))
    if cores >= COMFORTABLE_CORES:
        return Check("Processor cores", "ok", str(cores))
    return Check("Processor cores", "warn", str(cores), "Airflow and a training share it: a run takes long.")


def check_memory() -> Check:
    """How much memory is free."""
    memory = psutil.virtual_memory()
    found = f"{file_size(memory.available)} free of {file_size(memory.total)}"
    if memory.available >= COMFORTABLE_MEMORY_GIB * 2**30:
        return Check("Memory", "ok", found)
    advice = f"Airflow, MLflow and a training want {COMFORTABLE_MEMORY_GIB:.0f} GiB: end other programs."
    return Check("Memory", "warn", found, advice)


def check_disk(home: Path) -> Check:
    """Whether there is room in the folder of runs."""
    folder = _nearest(home)
    free = shutil.disk_usage(folder).free
    found = f"{file_size(free)} free for {home.expanduser().absolute()}"
    if free < NEEDED_GIB * 2**30:
        return Check("Disk", "fail", found, f"A run needs {NEEDED_GIB:.0f} GiB: make room, or choose another --home.")
    if free < COMFORTABLE_GIB * 2**30:
        advice = f"With many images and backbones, features alone may take {COMFORTABLE_GIB:.0f} GiB."
        return Check("Disk", "warn", found, advice)
    return Check("Disk", "ok", found)


def check_port(whose: str, port: int, option: str, home: Path) -> Check:
    """Whether a server of the stack could listen at its port."""
    name = f"{whose}'s port"
    if is_free(port):
        return Check(name, "ok", f"{port} is free")
    if home.expanduser().is_dir():
        status = stack_status(home, ask=False)
        if str(port) in {address.rpartition(":")[2] for address in (status.airflow, status.mlflow)}:
            return Check(name, "ok", f"{port} is used by the stack in {status.home}, which is up")
    return Check(name, "warn", f"{port} is taken", f"Start with cxr run {option} {port + 1}.")


def check_gpu(*, asked: bool) -> Check:
    """Whether TensorFlow sees a GPU; importing it takes seconds, so it is only ``asked`` on request."""
    if not asked:
        return Check("GPU", "ok", "not asked: cxr doctor --gpu")
    with hold_back_chatter():
        import tensorflow as tf

        found = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    if found:
        return Check("GPU", "ok", ", ".join(details.get("device_name", "a GPU") for details in found))
    advice = "Profile quick does without. For others install a driver and requirements-gpu.lock."
    return Check("GPU", "warn", f"TensorFlow {tf.__version__} sees none", advice)


def check_store() -> Check:
    """Whether the store can be read and written: a checkpoint is written, and dropped again."""
    try:
        store = open_store()
        if isinstance(store, FolderStore) and not store.root.is_dir():
            folder = _nearest(store.root)
            tempfile.TemporaryFile(dir=folder).close()
            return Check("Store", "ok", f"{store.root} is made by the first run")
        trial = f"doctor-{uuid.uuid4().hex}"
        try:
            (store.load_checkpoint(trial) / "trial").write_text("trial", encoding="utf-8")
            store.save_checkpoint(trial)
        finally:
            store.drop_checkpoint(trial)
        if isinstance(store, S3Store) and not store.bucket.knows_conditions():
            return Check("Store", "warn", f"{store.bucket.endpoint} knows no conditional writes", WITHOUT_CONDITIONS)
    except (UserError, OSError) as error:
        return Check("Store", "fail", str(error), "Choose another place with --store or CXR_STORE.")
    return Check("Store", "ok", f"{os.environ['CXR_STORE']} can be read and written")


def check_mlflow(address: str) -> Check:
    """Whether the MLflow server that was named answers."""
    if not address:
        return Check("MLflow", "ok", "none is named: cxr run starts its own, other commands do without")
    if fault := mlflow_fault(address):
        return Check("MLflow", "fail", fault, "Or leave it away: cxr run starts its own.")
    return Check("MLflow", "ok", f"answers at {address}")


def check_weights(profile: str) -> Check:
    """Whether the ImageNet weights that a profile asks for are on this machine."""
    name = "ImageNet weights"
    try:
        settings = resolve(profile)
    except UserError as error:
        return Check(name, "fail", str(error), "Correct the profile, or choose another with --profile.")
    wanted = _applications(settings)
    if not wanted:
        return Check(name, "ok", f"profile {settings.profile} asks for none")
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    files = [re.sub(r"[^a-z0-9]", "", path.name.lower()) for path in folder.glob("*no*top*.h5")]
    # ResNet50 must not be taken for there because ResNet50V2 is.
    missing = [each for each in wanted if not any(re.search(rf"{each.lower()}(?!v\d)", file) for file in files)]
    if not missing:
        return Check(name, "ok", f"{', '.join(wanted)} in {folder}")
    advice = "Keras downloads them in the first run. Without a network, copy them there or name files in a profile."
    return Check(name, "warn", f"not in {folder}: {', '.join(missing)}", advice)


def check_s3_credentials(*, needed: bool) -> Check:
    """Whether there are credentials for S3; they are not shown, and not tried."""
    name = "S3 credentials"
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    if all(os.environ.get(variable) for variable in S3_VARIABLES):
        return Check(name, "ok", "in the environment")
    if file.is_file():
        return Check(name, "ok", f"in {file}")
    if not needed:
        return Check(name, "ok", "none, and this store needs none")
    return Check(name, "warn", "none", f"Set {' and '.join(S3_VARIABLES)}, unless the machine itself has a role.")


def check_kaggle_credentials() -> Check:
    """Whether there are credentials for Kaggle; they are not shown, and not tried."""
    from cxr_tasks.data.sources.kaggle import CREDENTIALS

    name = "Kaggle credentials"
    given = [("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY")]
    if any(all(os.environ.get(variable) for variable in variables) for variables in given):
        return Check(name, "ok", "in the environment")
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    for file in ("kaggle.json", "access_token"):
        if (folder / file).is_file():
            return Check(name, "ok", f"in {folder / file}")
    return Check(name, "ok", f"none; only sources kaggle://… need them ({CREDENTIALS})")


def check_notices() -> Check:
    """Whether ``CXR_NOTIFY`` can be read."""
    from cxr_tasks.steps.notices import listeners

    try:
        found = listeners(os.environ.get("CXR_NOTIFY", ""))
    except UserError as error:
        return Check("Notices", "warn", "nobody is told of runs", str(error))
    return Check("Notices", "ok", ", ".join(found) if found else "in the logs of tasks alone")


def _applications(settings: Settings) -> list[str]:
    """The networks of keras.applications whose ImageNet weights a run with ``settings`` uses."""
    chosen = settings.classifiers
    wanted = [CLASSIFIERS[name].application for name in chosen.names if chosen.weights_of(name) == "imagenet"]
    if settings.judge.weights == "imagenet":
        wanted.append(CLASSIFIERS["resnet50"].application)
    return sorted({name for name in wanted if name is not None})


def _nearest(path: Path) -> Path:
    """The first folder on the way up from ``path`` that is there."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
