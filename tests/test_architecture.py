"""Arrows point one way, one name is one thing, and DAG files are wiring: read from the source, without running it."""

import ast
import io
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOWEST = (
    "arms",
    "cache",
    "config",
    "data_settings",
    "durations",
    "gate_settings",
    "layouts",
    "image_settings",
    "errors",
    "keras_file",
    "keras_graph",
    "markdown",
    "outages",
    "pictures",
    "progress",
    "randomness",
    "s3",
    "store",
    "strict",
    "tracking",
)
DOMAIN = ("classifiers", "data", "evaluation", "gan", "monitoring")
# The modules that may know the pipeline, the store and MLflow, beside these themselves.
KNOWING = (
    "steps",
    "pipeline",
    "artifacts",
    "local",
    "cli",
    "classifiers.feature_store",
    "how_far",
    "overview",
    "retention",
    "serving",
    "store",
    "tracking",
)
# A task of a DAG that is the step of this name, and the loggers of modules.
SHARED_NAMES = {"clean_up", "configure", "publish", "finish", "roll_back", "ask_server", "log"}
HEAVY = ("tensorflow", "keras", "mlflow", "pandas", "great_expectations", "matplotlib", "sklearn")
MOST_CODE_LINES = 80
# What the files of DAGs share.
NO_DAGS = ("wiring", "announced", "gate", "failures", "notices", "pages")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sources("cxr_tasks")}


def imports(path: Path) -> set[str]:
    """All modules that a file names, also inside functions and for types alone."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno} imports relative to itself"
            # ``from cxr_tasks import tracking`` names a module, and not the package alone.
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner or {node.module}
    return found


def within(module: str, packages: Iterable[str]) -> bool:
    """Whether ``module`` is one of ``packages`` of ``cxr_tasks``, or in one."""
    return any(f"{module}.".startswith(f"cxr_tasks.{package}.") for package in packages)


def arrows(modules: Iterable[str], targets: Iterable[str]) -> list[str]:
    """The imports that lead from ``modules`` to ``targets``, which are packages of ``cxr_tasks``."""
    return [f"{name} → {to}" for name in modules for to in sorted(imports(MODULES[name])) if within(to, targets)]


def test_the_source_is_found() -> None:
    assert {"cxr_tasks.config", "cxr_tasks.steps.compare", "cxr_tasks.tracking"} < MODULES.keys()
    assert "cxr_tasks.tracking" in imports(MODULES["cxr_tasks.pipeline"])
    assert "cxr_tasks.evaluation.plots" in imports(MODULES["cxr_tasks.steps.common"])


class TestArrows:
    def test_the_domain_knows_neither_the_pipeline_nor_the_store_nor_mlflow(self) -> None:
        below = [name for name in MODULES if not within(name, KNOWING)]

        assert arrows(below, ("pipeline", "store", "tracking")) == []
        assert [name for name in below if any(to.split(".")[0] == "mlflow" for to in imports(MODULES[name]))] == []

    def test_only_tracking_serving_and_the_step_promote_know_mlflow(self) -> None:
        knowing = {name for name in MODULES if any(to.split(".")[0] == "mlflow" for to in imports(MODULES[name]))}

        of_promote = {
            f"cxr_tasks.steps.{name}" for name in ("approve", "cards", "contest", "promote", "roll_back", "standing")
        }
        assert {name for name in knowing if not within(name, ("serving", "tracking"))} <= of_promote

    def test_nothing_knows_airflow(self) -> None:
        assert [name for name in MODULES if any(to.split(".")[0] == "airflow" for to in imports(MODULES[name]))] == []

    def test_nothing_below_knows_the_steps(self) -> None:
        below = [name for name in MODULES if not within(name, ("steps", "local", "cli"))]

        assert arrows(below, ("steps", "local", "cli")) == []

    def test_what_everything_stands_on_knows_nothing_of_what_stands_on_it(self) -> None:
        lowest = [name for name in MODULES if within(name, LOWEST)]

        found = arrows(lowest, (*DOMAIN, "artifacts", "form", "pipeline", "registry", "report", "steps"))
        assert found == ["cxr_tasks.config → cxr_tasks.classifiers.registry"]

    def test_the_domain_knows_neither_report_nor_registry(self) -> None:
        domain = [name for name in MODULES if within(name, DOMAIN)]

        assert arrows(domain, ("report", "registry", "artifacts", "form", "serving")) == []

    def test_data_and_evaluation_know_no_networks(self) -> None:
        plain = [name for name in MODULES if within(name, ("data", "evaluation"))]

        assert arrows(plain, ("classifiers", "gan")) == []

    def test_no_two_modules_know_each_other(self) -> None:
        known = {name: {to for to in imports(path) if to in MODULES} - {name} for name, path in MODULES.items()}
        # The handles load their files with functions of the domain, and name the domain's types.
        known["cxr_tasks.artifacts"] = {"cxr_tasks.store", "cxr_tasks.strict"}

        assert list(circles(known)) == []

    def test_dags_know_steps_and_their_handles_and_the_form(self) -> None:
        for path in sources("dags"):
            project = {to for to in imports(path) if to.split(".")[0] == "cxr_tasks"}
            assert project <= {f"cxr_tasks.{name}" for name in ("steps", "artifacts", "form", "errors", "outages")}, (
                path
            )


def circles(known: dict[str, set[str]]) -> Iterator[str]:
    """Modules that lead back to themselves. A package stands for what it imports and not for what is in it."""
    for name in known:
        seen, ahead = set(), list(known[name])
        while ahead:
            if (to := ahead.pop()) not in seen:
                seen.add(to)
                ahead += known[to]
        if name in seen:
            yield name


def definitions(path: Path) -> Iterator[tuple[str, int]]:
    """Functions, classes and constants of a module, with their lines."""
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.Assign):
            names = (each for target in node.targets for each in ast.walk(target))
            yield from ((each.id, node.lineno) for each in names if isinstance(each, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.lineno


class TestNames:
    def test_one_name_is_one_thing(self) -> None:
        found: dict[str, list[str]] = defaultdict(list)
        for path in sources("cxr_tasks", "dags", "plugins", "infra"):
            for name, line in definitions(path):
                found[name].append(f"{path.relative_to(ROOT)}:{line}")

        twice = {name: places for name, places in found.items() if len(places) > 1}
        assert {name: places for name, places in twice.items() if name not in SHARED_NAMES | {"__all__"}} == {}

    def test_a_shared_name_is_a_step_and_its_task(self) -> None:
        for name in SHARED_NAMES - {"log"}:
            places = [path for path in sources("cxr_tasks") for each, _ in definitions(path) if each == name]
            assert places == [ROOT / "cxr_tasks" / "steps" / f"{name}.py"]

    def test_no_handle_is_read_like_the_dictionaries_of_before(self) -> None:
        for path in sources("cxr_tasks", "dags", "plugins", "infra"):
            keys = (node.slice for node in ast.walk(tree(path)) if isinstance(node, ast.Subscript))
            assert not [key.lineno for key in keys if isinstance(key, ast.Constant) and key.value == "summary"], path

    def test_the_folder_mlflow_does_not_hide_the_package(self) -> None:
        assert not (ROOT / "mlflow" / "__init__.py").exists()


def code_lines(path: Path) -> int:
    """Lines with code on them: no blank lines, comments or docstrings."""
    text, told = path.read_text(encoding="utf-8"), set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            told |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for token in tokens if token.type not in nothing for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - told)


def test_code_lines_are_those_with_code(tmp_path: Path) -> None:
    path = tmp_path / "counted.py"
    path.write_text('"""Two\nlines."""\n\n# A comment.\nA = (\n    1,\n)\n\n\ndef f():\n    """One."""\n    return A\n')

    assert code_lines(path) == 5


@pytest.mark.parametrize("path", sources("dags"), ids=lambda path: path.name)
def test_a_dag_file_is_wiring(path: Path) -> None:
    calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    is_dag = any(isinstance(call, ast.Name) and call.id == "dag" for call in calls)

    assert is_dag == (path.name not in {f"cxr_{part}.py" for part in NO_DAGS})
    assert not is_dag or code_lines(path) <= MOST_CODE_LINES


@pytest.mark.parametrize(
    "module",
    [
        "cxr_tasks.steps",
        "cxr_tasks.artifacts",
        "cxr_tasks.form",
        "cxr_tasks.overview.gathering",
        "cxr_tasks.overview.render",
    ],
)
def test_what_a_dag_file_or_the_page_loads_is_no_heavy_library(module: str) -> None:
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert module.split(".")[0] in loaded and not loaded & set(HEAVY)
