"""The package ``evaluation`` needs saved predictions and nothing else: no network, no server, no pipeline."""

import subprocess
import sys
from pathlib import Path

REFUSED = ("tensorflow", "keras", "mlflow", "cxr_tasks.pipeline", "cxr_tasks.store", "cxr_tasks.tracking")
IMPORT_ALL = """
import importlib, pkgutil, sys
from cxr_tasks import evaluation

for module in pkgutil.walk_packages(evaluation.__path__, evaluation.__name__ + "."):
    importlib.import_module(module.name)
print(*sorted(sys.modules), sep="\\n")
"""


def test_no_module_of_evaluation_loads_what_it_must_not() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=root, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert {"cxr_tasks.evaluation.findings", "cxr_tasks.evaluation.plots_gallery"} <= set(loaded)
    assert [name for name in loaded if name.startswith(REFUSED)] == []
