"""What ``cxr doctor`` looks at. Each check changes nothing and returns one line."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cxr_tasks.cache import cache_root
from cxr_tasks.classifiers.registry import CLASSIFIERS
from cxr_tasks.cli.options import mlflow_fault
from cxr_tasks.cli.terminal import file_size, hold_back_chatter
from cxr_tasks.config import Settings, resolve
from cxr_tasks.errors import UserError
from cxr_tasks.estimate.rates import machine
from cxr_tasks.store import FolderStore, S3Store, open_store
from cxr_tasks.store.conditional import WITHOUT_CONDITIONS
from infra.embedded.stack import DRIVER_SECONDS, NEEDED_GIB, REPOSITORY, is_free
from infra.embedded.status import stack_status

PYTHONS = ((3, 11), (3, 14))
# Below these a run may be slow or may not end; neither keeps it from starting.
COMFORTABLE_GIB, COMFORTABLE_MEMORY_GIB, COMFORTABLE_CORES = 20.0, 6.0, 2
# What settings of weights say that is no file.
NO_FILES = ("imagenet", "random")
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


def check_packages() -> Check:
    """Whether what is installed is what ``requirements.lock`` names."""
    lock = REPOSITORY / "requirements.lock"
    if not lock.is_file():
        return Check("Packages", "ok", "not compared: there is no requirements.lock beside the package")
    lines = (line.rstrip(" \\") for line in lock.read_text(encoding="utf-8").splitlines() if line[:1].isalnum())
    named = [Requirement(line) for line in lines]
    # Some are for other versions of Python alone.
    wanted = {canonicalize_name(each.name): each for each in named if each.marker is None or each.marker.evaluate()}
    there = {canonicalize_name(each.name): each.version for each in metadata.distributions() if each.name}
    missing = sorted(wanted.keys() - there.keys())
    other = [f"{name} {there[name]}" for name in wanted.keys() & there if there[name] not in wanted[name].specifier]
    if missing:
        found = f"{len(missing)} of {len(wanted)} are missing, such as {missing[0]}"
        return Check("Packages", "fail", found, "Install them with make setup.")
    if other:
        found = f"{len(other)} of {len(wanted)} have another version than requirements.lock, such as {other[0]}"
        return Check("Packages", "warn", found, "Install what was tested with make setup.")
    return Check("Packages", "ok", f"all {len(wanted)} as in requirements.lock")


def check_cores() -> Check:
    """How many processors this process may use, and whether they have the instructions that TensorFlow is built for."""
    cores, facts = len(os.sched_getaffinity(0)), machine()
    fast = ", ".join(facts["instructions"])
    found = f"{cores} of {facts['processor']}{f' with {fast}' if fast else ''}"
    if platform.machine() == "x86_64" and not fast:
        advice = "TensorFlow's packages want a processor with AVX: run on another machine."
        return Check("Processor cores", "warn", f"{found}, without AVX2", advice)
    if cores >= COMFORTABLE_CORES:
        return Check("Processor cores", "ok", found)
    return Check("Processor cores", "warn", found, "Airflow and a training share it: a run takes long.")


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


def check_cache() -> Check:
    """Whether copies of what lies elsewhere have a folder with room; see ``CXR_CACHE``."""
    root = cache_root()
    folder = _nearest(root)
    free = shutil.disk_usage(folder).free
    found = f"{file_size(free)} free for {root}"
    if not os.access(folder, os.W_OK):
        return Check("Cache", "fail", f"{folder} cannot be written", "Set CXR_CACHE to a folder that can be.")
    kinds = [part.fstype for part in psutil.disk_partitions(all=True) if part.mountpoint == _mount_of(folder)]
    if "tmpfs" in kinds:
        advice = "It lies in memory, which trainings need: set CXR_CACHE to a folder on a disk."
        return Check("Cache", "warn", found, advice)
    if free < NEEDED_GIB * 2**30:
        return Check("Cache", "warn", found, "Archives and copies from S3 lie there: set CXR_CACHE to a larger disk.")
    return Check("Cache", "ok", found)


def _mount_of(folder: Path) -> str:
    return next(str(each) for each in (folder, *folder.parents) if each.is_mount())


def check_gpu(*, asked: bool) -> Check:
    """Whether the driver lists a GPU, and whether TensorFlow sees it; that takes seconds, so it is only ``asked``."""
    listed = _gpus_of_driver()
    if not asked:
        if not listed:
            return Check("GPU", "ok", "none that NVIDIA's driver lists: profile quick does without, paper wants one")
        return Check("GPU", "ok", f"{'; '.join(listed)}. Whether TensorFlow sees it: cxr doctor --gpu")
    with hold_back_chatter():
        import tensorflow as tf

        found = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    if found:
        names = ", ".join(details.get("device_name", "a GPU") for details in found)
        return Check("GPU", "ok", f"TensorFlow {tf.__version__} sees {names}")
    if listed:
        advice = "Install requirements-gpu.lock into .venv: it has the CUDA libraries that TensorFlow needs."
        return Check("GPU", "warn", f"TensorFlow {tf.__version__} does not see {'; '.join(listed)}", advice)
    advice = "Profile quick does without. For others install NVIDIA's driver and requirements-gpu.lock."
    return Check("GPU", "warn", f"NVIDIA's driver lists none, and TensorFlow {tf.__version__} sees none", advice)


def _gpus_of_driver() -> list[str]:
    """``NVIDIA H200, driver 570.86, 143771 MiB`` for each GPU; nothing without a driver."""
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    command = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines() if done.returncode == 0]
    return [f"{row[0]}, driver {row[1]}, {row[2]}" for row in rows if len(row) == 3]


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
    given = {settings.judge.weights, *(settings.classifiers.weights_of(each) for each in settings.classifiers.names)}
    files = sorted(each for each in given if each and each not in NO_FILES)
    if lost := [each for each in files if not Path(each).expanduser().is_file()]:
        advice = "Correct classifiers.weights or judge.weights, or put the file there."
        return Check(name, "fail", f"{lost[0]} is named by profile {settings.profile} and is not there", advice)
    wanted = _applications(settings)
    if not wanted:
        return Check(name, "ok", f"profile {settings.profile} asks for none")
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    kept = [re.sub(r"[^a-z0-9]", "", path.name.lower()) for path in folder.glob("*no*top*.h5")]
    # ResNet50 must not be taken for there because ResNet50V2 is.
    missing = [each for each in wanted if not any(re.search(rf"{each.lower()}(?!v\d)", file) for file in kept)]
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
