"""The stack of many services: ``up``, ``down``, ``logs``, ``backup`` and ``restore``. ``make up`` calls it.

It needs Docker, Compose and Python 3.9, and nothing of this project's environment. ``env`` writes .env, without Docker.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
EXAMPLE = CHECKOUT / "infra/env.example"
PHANTOMS = CHECKOUT / ".cxr/phantoms"
HEALTHY_SECONDS = 900.0
HEALTH_POLL_SECONDS = 3.0
DATABASES = ("airflow", "mlflow", "mlflow_auth")
# What the backup reads and a restore fills.
KEEPERS = ("postgres", "seaweedfs")
# Values that need no quotes in .env.
PLAIN = re.compile(r"[\w./:,@%+*=-]*")


class CannotGoOn(Exception):
    """One sentence: what is wrong, and what to do."""


def fernet_key() -> str:
    """A key for Airflow's connections and variables."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def password() -> str:
    """Letters and digits only: it becomes part of addresses."""
    return secrets.token_hex(24)


DRAWN = {
    "CXR_PSEUDONYM_KEY": lambda: secrets.token_hex(32),
    "AIRFLOW_ADMIN_PASSWORD": password,
    "AIRFLOW_FERNET_KEY": fernet_key,
    "AIRFLOW_SECRET_KEY": lambda: secrets.token_hex(32),
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_hex(32),
    "MLFLOW_ADMIN_PASSWORD": password,
    "MLFLOW_SECRET_KEY": lambda: secrets.token_hex(32),
    "POSTGRES_PASSWORD": password,
    "AIRFLOW_DB_PASSWORD": password,
    "MLFLOW_DB_PASSWORD": password,
    "REDIS_PASSWORD": password,
    "SERVING_TOKEN": password,
    "S3_ACCESS_KEY": lambda: secrets.token_hex(10),
    "S3_SECRET_KEY": password,
}


def read_env(path: Path) -> dict[str, str]:
    """The variables of a file such as .env.

    Args:
        path: The file; a line is empty, a comment, or NAME=VALUE, with quotes or without.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#") and "=" in line]
    return {name.strip(): value.strip().strip("'\"") for name, value in pairs}


def write_env(path: Path, values: Mapping[str, str]) -> None:
    """Write env.example with ``values`` put in, for the owner's eyes only.

    Args:
        path: Of the new file.
        values: By name.

    Raises:
        CannotGoOn: The file is there already, or a value cannot be written.
    """

    def line(given: str) -> str:
        name, equals, value = given.partition("=")
        if not equals or given.startswith("#"):
            return given
        value = values.get(name, value)
        if "\n" in value or "'" in value:
            raise CannotGoOn(f"{name} holds a quote or a line break, which .env cannot say: rename it.")
        return f"{name}={value}" if PLAIN.fullmatch(value) else f"{name}='{value}'"

    text = "\n".join(line(given) for given in EXAMPLE.read_text(encoding="utf-8").splitlines())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise CannotGoOn(f"{path} is there already, and is left as it is.") from error
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def compose_program() -> list[str]:
    """The command of Compose: the plugin of Docker, or the program of its own.

    Raises:
        CannotGoOn: Docker or Compose is not installed, or the engine does not answer.
    """
    if shutil.which("docker") is None:
        raise CannotGoOn("Docker is not installed: install Docker Engine with its Compose plugin.")
    asked = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if asked.returncode:
        reason = (asked.stderr.strip() or "no answer").splitlines()[-1]
        raise CannotGoOn(f"The Docker engine does not answer ({reason}): start it, or join the group docker.")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise CannotGoOn("Compose is not installed: install Docker's Compose plugin (docker-compose-plugin).")


class Containers:
    """The stack as its .env describes it.

    Attributes:
        env_file: The .env.
        env: Its variables.
        profiles: Of Compose, that are started.
    """

    def __init__(self, env_file: Path) -> None:
        """Nothing is started.

        Args:
            env_file: The .env, which must be there.

        Raises:
            CannotGoOn: There is no such file, no engine, or no Compose.
        """
        if not env_file.is_file():
            raise CannotGoOn(f"{env_file} is missing: `make up` writes it.")
        self.env_file, self.env = env_file, read_env(env_file)
        self.project = self.env.get("COMPOSE_PROJECT_NAME") or "cxr"
        self.profiles = [name for name in self.env.get("COMPOSE_PROFILES", "").split(",") if name]
        self._compose = [*compose_program(), "--project-name", self.project]
        self._compose += ["--project-directory", str(CHECKOUT), "--file", str(CHECKOUT / "docker-compose.yaml")]
        self._compose += ["--env-file", str(env_file)]
        self._compose += [part for name in self.profiles for part in ("--profile", name)]
        # What lies in the environment would win over .env: PROFILE or DATA of another program, say.
        self._environment = {name: value for name, value in os.environ.items() if name not in self.env}

    def compose(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        """Call Compose.

        Args:
            *arguments: After the names of project and files.
            **options: Of ``subprocess.run``.

        Raises:
            CannotGoOn: It did not succeed.
        """
        try:
            return subprocess.run([*self._compose, *arguments], env=self._environment, check=True, **options)  # type: ignore[call-overload]
        except subprocess.CalledProcessError as error:
            raise CannotGoOn(f"`compose {arguments[0]}` did not succeed: its message above says why.") from error

    def check_env(self) -> None:
        """See whether the folder of the X-rays is there, and whether a GPU that is to work is given work.

        Raises:
            CannotGoOn: It is not. Docker would make a new and empty folder, and the GPU's worker would idle.
        """
        if "gpu" in self.profiles and not self.env.get("CXR_GPU_QUEUE"):
            raise CannotGoOn(
                f"COMPOSE_PROFILES in {self.env_file} starts a worker for the GPU, and no task would go there: add the "
                "line CXR_GPU_QUEUE=gpu."
            )
        data = Path(self.env.get("CXR_DATA", ""))
        if not data.is_absolute() or not data.is_dir():
            raise CannotGoOn(f"CXR_DATA in {self.env_file} is {str(data)!r}, which is no folder: correct the line.")

    def up(self, services: Iterable[str] = ()) -> None:
        """Build, start, and wait until all services are healthy.

        Args:
            services: Only these, and what they need; all by default.

        Raises:
            CannotGoOn: The build failed, or a service did not become healthy.
        """
        self.check_env()
        self.compose("build")
        self._make_phantoms()
        self.compose("up", "--detach", *services)
        self.wait()

    def wait(self, seconds: float = HEALTHY_SECONDS) -> None:
        """Wait until every container is healthy, or has ended well.

        Args:
            seconds: How long.

        Raises:
            CannotGoOn: One is not; its last lines are shown.
        """
        deadline, said = time.monotonic() + seconds, ""
        while True:
            states = self.states()
            waiting = sorted(name for name, state in states.items() if state not in ("healthy", "done"))
            dead = [name for name in waiting if states[name] in ("failed", "unhealthy")]
            if dead or time.monotonic() > deadline:
                name = (dead or waiting)[0]
                self.compose("logs", "--tail", "40", name)
                raise CannotGoOn(f"{name} is {states[name]}: the lines above are its last ones.")
            if states and not waiting:
                return
            if (now := f"Waiting for {', '.join(waiting)}") != said:
                said = now
                print(said, flush=True)
            time.sleep(HEALTH_POLL_SECONDS)

    def states(self) -> dict[str, str]:
        """What each service does: ``healthy``, ``starting``, ``unhealthy``, ``done`` or ``failed``."""
        label = "label=com.docker.compose"
        listed = ["docker", "ps", "--all", "--quiet", "--filter", f"{label}.project={self.project}"]
        listed += ["--filter", f"{label}.oneoff=False"]
        found = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
        if not found:
            return {}
        told = subprocess.run(["docker", "inspect", *found], capture_output=True, text=True, check=False).stdout
        states = {}
        for each in json.loads(told or "[]"):
            state, name = each["State"], each["Config"]["Labels"]["com.docker.compose.service"]
            if state["Status"] == "exited" and each["HostConfig"]["RestartPolicy"]["Name"] in ("no", ""):
                states[name] = "failed" if state["ExitCode"] else "done"
            else:
                states[name] = state.get("Health", {}).get("Status", "starting")
        return states

    def backup(self, folder: Path) -> None:
        """Save databases, objects, logs and .env into a new folder. Nothing stands still meanwhile.

        What names something is read before what it names: pointers, Airflow, MLflow, records of artifacts, files.

        Args:
            folder: Is made, for the owner's eyes only.

        Raises:
            CannotGoOn: The folder is there, or the stack is not up.
        """
        if folder.exists():
            raise CannotGoOn(f"{folder} is there already: name a new folder.")
        states = self.states()
        for name in KEEPERS:
            if states.get(name) != "healthy":
                raise CannotGoOn(f"{name} is not up: start the stack with `make up`, then back up.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        try:
            self._into(partial / "pointers.tar", *self._objects("save-state"))
            for name in DATABASES:
                dump = ["pg_dump", "--username", "postgres", "--format", "custom", "--dbname", name]
                self._into(partial / f"{name}.dump", "exec", "-T", "postgres", *dump)
            self._into(partial / "objects.tar", *self._objects("save"))
            # tar ends with 1 where somebody wrote to a log while it was read.
            script = "tar czf - -C /opt/airflow/logs . || test $? = 1"
            self._into(partial / "logs.tar.gz", *self._airflow("sh", "-c", script))
            shutil.copy(self.env_file, partial / "env")
            (partial / "env").chmod(0o600)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def restore(self, folder: Path) -> None:
        """Fill new volumes from a backup, and start.

        Args:
            folder: That ``backup`` made.

        Raises:
            CannotGoOn: The folder is no backup, volumes are there, or the keys are not those of the backup.
        """
        for name in (*(f"{name}.dump" for name in DATABASES), "pointers.tar", "objects.tar", "logs.tar.gz"):
            if not (folder / name).is_file():
                raise CannotGoOn(f"{folder} is no backup: {name} is missing.")
        saved = read_env(folder / "env")
        for name in ("AIRFLOW_FERNET_KEY", "S3_BUCKET", "CXR_PSEUDONYM_KEY"):
            if saved.get(name) != self.env.get(name):
                raise CannotGoOn(f"{name} is not the one of the backup: take the line from {folder / 'env'}.")
        if volumes := self._volumes():
            raise CannotGoOn(
                f"The volumes {', '.join(volumes)} are there, and a restore fills new ones only: back them up, "
                f"then remove them with `docker volume rm {' '.join(volumes)}` while the stack is down."
            )
        self.check_env()
        self.compose("build")
        self.compose("up", "--detach", *KEEPERS, "s3-bucket")
        self.wait()
        for name in DATABASES:
            fill = ["pg_restore", "--username", "postgres", "--exit-on-error", "--single-transaction", "--dbname", name]
            self._from(folder / f"{name}.dump", "exec", "-T", "postgres", *fill)
        for name in ("objects.tar", "pointers.tar"):
            self._from(folder / name, *self._objects("load"))
        self._from(folder / "logs.tar.gz", *self._airflow("tar", "xzf", "-", "-C", "/opt/airflow/logs"))
        # A backup may be of an older version.
        self.compose("run", "--rm", "--no-deps", "-T", "airflow-init")
        # Who was at work is not any more. Nobody need wait until that is noticed.
        self.compose(*self._airflow("python", "/opt/cxr/infra/airflow/let_go.py", "everywhere"))
        self.up()

    def addresses(self) -> str:
        """Where people find what, and who they are there."""
        return (
            f"Airflow  {self.env.get('AIRFLOW_URL')}   as {self.env.get('AIRFLOW_ADMIN_USERNAME')}\n"
            f"MLflow   {self.env.get('MLFLOW_URL')}   as {self.env.get('MLFLOW_ADMIN_USERNAME')}"
        )

    def _objects(self, what: str) -> list[str]:
        script = ["python", "/infra/s3/objects.py", what, self.env.get("S3_BUCKET") or "cxr"]
        return ["run", "--rm", "--no-deps", "-T", "--entrypoint", script[0], "s3-bucket", *script[1:]]

    def _airflow(self, program: str, *arguments: str) -> list[str]:
        return ["run", "--rm", "--no-deps", "-T", "--entrypoint", program, "scheduler", *arguments]

    def _into(self, file: Path, *arguments: str) -> None:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            self.compose(*arguments, stdin=subprocess.DEVNULL, stdout=out)

    def _from(self, file: Path, *arguments: str) -> None:
        with file.open("rb") as source:
            self.compose(*arguments, stdin=source)

    def _volumes(self) -> list[str]:
        label = f"label=com.docker.compose.project={self.project}"
        listed = ["docker", "volume", "ls", "--quiet", "--filter", label]
        return sorted(subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split())

    def _make_phantoms(self) -> None:
        folder = Path(self.env["CXR_DATA"])
        if folder != PHANTOMS / "data" or any(folder.iterdir()):
            return
        print("No data are given: generating chest phantoms", flush=True)
        code = (
            "from pathlib import Path; from cxr_tasks.data.phantoms import PHANTOM_COUNTS, write_phantoms; "
            "write_phantoms(Path('/to/new'), PHANTOM_COUNTS)"
        )
        image = f"cxr-airflow:{self.env.get('CXR_VERSION') or '0.1.0'}"
        line = ["docker", "run", "--rm", "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}"]
        done = subprocess.run([*line, "--volume", f"{PHANTOMS}:/to", image, "python", "-c", code], check=False)
        if done.returncode:
            raise CannotGoOn("The phantoms could not be made: the message above says why.")
        folder.rmdir()
        (PHANTOMS / "new").rename(folder)


def first_env(path: Path, data: str, profile: str) -> None:
    """Write a .env with secrets of its own.

    Args:
        path: Of the .env.
        data: Folder of the X-rays; empty for phantoms.
        profile: Name of a profile; empty for the one of env.example.

    Raises:
        CannotGoOn: ``data`` is no folder.
    """
    folder = Path(data).expanduser().resolve() if data else PHANTOMS / "data"
    if data and not folder.is_dir():
        raise CannotGoOn(f"{data} is no folder: give the one that holds a folder for each class.")
    folder.mkdir(parents=True, exist_ok=True)
    runtimes = ["docker", "info", "--format", "{{json .Runtimes}}"]
    knows = shutil.which("docker") and subprocess.run(runtimes, capture_output=True, text=True, check=False).stdout
    gpu = "nvidia" in (knows or "")
    queues = {"COMPOSE_PROFILES": "gpu", "CXR_GPU_QUEUE": "gpu"} if gpu else {}
    drawn = {name: draw() for name, draw in DRAWN.items()}
    write_env(path, {**drawn, **queues, "CXR_DATA": str(folder), **({"CXR_PROFILE": profile} if profile else {})})
    print(f"{path} was written, with secrets of its own. Keep it: without it a backup cannot be read.")


def do(arguments: list[str]) -> None:
    """Do what the first argument says."""
    parser = argparse.ArgumentParser(prog="infra/containers.py", description=__doc__)
    parser.add_argument("--env-file", type=Path, default=CHECKOUT / ".env")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up")
    verbs.add_parser("env")
    verbs.add_parser("down")
    verbs.add_parser("logs").add_argument("service", nargs="*")
    verbs.add_parser("backup").add_argument("folder", nargs="?", type=Path)
    verbs.add_parser("restore").add_argument("folder", type=Path)
    asked = parser.parse_args(arguments)

    env_file, fresh = asked.env_file.absolute(), False
    if asked.verb == "env":
        first_env(env_file, os.environ.get("DATA", ""), os.environ.get("PROFILE", ""))
        return
    if asked.verb == "up":
        compose_program()
        if not env_file.exists():
            first_env(env_file, os.environ.get("DATA", ""), os.environ.get("PROFILE", ""))
            fresh = True
    if asked.verb == "restore" and not env_file.exists() and (asked.folder / "env").is_file():
        shutil.copy(asked.folder / "env", env_file)
        env_file.chmod(0o600)
    stack = Containers(env_file)
    if asked.verb == "up":
        stack.up()
        print(stack.addresses())
        if fresh:
            print(f"The administrator's password, shown this once: Airflow {stack.env['AIRFLOW_ADMIN_PASSWORD']}")
            print(f"                                               MLflow  {stack.env['MLFLOW_ADMIN_PASSWORD']}")
    elif asked.verb == "down":
        stack.compose("down", "--remove-orphans")
    elif asked.verb == "logs":
        with contextlib.suppress(KeyboardInterrupt):
            stack.compose("logs", "--follow", "--tail", "100", *asked.service)
    elif asked.verb == "backup":
        folder = asked.folder or CHECKOUT / "backup" / f"{datetime.now():%Y-%m-%dT%H-%M-%S}"
        stack.backup(folder.absolute())
        print(f"Saved in {folder}. It holds keys and passwords: keep it where nobody else reads.")
    else:
        stack.restore(asked.folder.absolute())
        print(stack.addresses())


if __name__ == "__main__":
    try:
        do(sys.argv[1:])
    except CannotGoOn as error:
        sys.exit(str(error))
