"""A champion that a person approves in a real browser, and one that nobody answers for, both by ``cxr run``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from infra.embedded.airflow_api import ENDED, AirflowApi
from tests.browser import HAS_BROWSER, NO_BROWSER, open_browser
from tests.servers import free_port
from tests.small_runs import ONE_PAIR

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1800)]
CXR = str(Path(sys.executable).with_name("cxr"))
# A third of a minute.
SOON = 20 / 86_400


def settings(days: float) -> dict[str, Any]:
    """A run that trains without synthetic images, and asks for that many days."""
    gate = {**ONE_PAIR["gate"], "approval": True, "approval_days": days}
    return {**ONE_PAIR, "arms": {"baseline": "none", "compared": ["classical"]}, "gate": gate}


class Running:
    """``cxr run``, whose pages stay up."""

    def __init__(self, home: Path, data: Path) -> None:
        self.home, self.ports = home, (free_port(), free_port())
        given = [f"--set={section}={json.dumps(value)}" for section, value in settings(SOON).items()]
        line = [CXR, "run", "--no-estimate", "--home", str(home), "--data", str(data), *given]
        line += ["--airflow-port", str(self.ports[0]), "--mlflow-port", str(self.ports[1])]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(line, cwd=home, env={**os.environ, "COLUMNS": "200"}, **pipes)
        self.printed = ""

    def read_until(self, words: str) -> str:
        """What is printed up to a line with ``words``, which is returned."""
        for line in self.process.stdout or ():
            self.printed += line
            if words in line:
                return line
        pytest.fail(f"it ended without {words!r}:\n{self.printed[-4000:]}")


@pytest.fixture(scope="module")
def running(request, tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Iterator[Running]:
    if request.config.getoption("markexpr") != "stack":
        pytest.skip("it takes minutes: make test-stack")
    if not HAS_BROWSER:
        pytest.skip(NO_BROWSER)
    running = Running(tmp_path_factory.mktemp("home"), phantoms)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGINT)
        running.process.wait(120)


@pytest.fixture
def champion(running: Running) -> Callable[[], Any]:
    client = MlflowClient(f"http://127.0.0.1:{running.ports[1]}")

    def found() -> Any:
        model = client.get_registered_model("cxr-overall")
        version = client.get_model_version("cxr-overall", model.aliases["challenger"])
        return "champion" in model.aliases, dict(version.tags)

    return found


def test_nobody_answers_and_no_champion_is_made(running: Running, champion: Callable[[], Any]) -> None:
    assert "/required_actions" in running.read_until("A person decides")
    running.read_until("The pages stay up")

    is_there, told = champion()
    assert not is_there and "✓ verdict.keep_champion" in running.printed
    assert told["cxr.approval"].startswith("Nobody answered within ")
    assert "Nobody answered" in running.printed and "success" in running.printed
    decided = json.loads((running.home / "last-run.json").read_text())["champions"]
    assert [each["name"] for each in decided] == ["cxr-cnn", "cxr-overall"]
    assert all("Nobody answered within 20 s, and then the answer is no." in each["decision"] for each in decided)


def test_a_person_reads_the_comparison_and_approves(
    running: Running, champion: Callable[[], Any], tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    airflow = f"http://127.0.0.1:{running.ports[0]}"
    api = AirflowApi(airflow)
    run = api.trigger("cxr_training", {"profile": "quick", "settings": settings(1.0)})
    until = time.monotonic() + 600
    while not [task for task in api.tasks("cxr_training", run) if task["state"] == "awaiting_input"]:
        assert time.monotonic() < until and api.run_state("cxr_training", run) not in ENDED
        time.sleep(2)

    with open_browser() as browser:
        browser.get(f"{airflow}/dags/cxr_training/runs/{run}/tasks/verdict.approve/required_actions")
        wait = WebDriverWait(browser, 120)
        button = wait.until(lambda page: page.find_element(By.XPATH, "//button[normalize-space()='Approve']"))
        shown = browser.find_element(By.TAG_NAME, "body").text
        links = {link.text: link.get_attribute("href") for link in browser.find_elements(By.TAG_NAME, "a")}
        browser.save_screenshot(str(tmp_path / "question.png"))
        # Nobody has to give a reason.
        wait.until(lambda _: button.is_enabled())
        browser.find_element(By.ID, "element_reason").send_keys("looked at 20 cases")
        button.click()
        until = time.monotonic() + 300
        while api.run_state("cxr_training", run) not in ENDED and time.monotonic() < until:
            time.sleep(2)

    assert re.search(r"Make the new versions of cxr-cnn, cxr-overall champion\?", shown)
    assert "Validation macro F1" in shown and "First champion" in shown and "every champion stays" in shown
    assert links["The report of this run"].endswith("report.html")
    is_there, told = champion()
    assert is_there and re.match(r".+ approved at .+: looked at 20 cases\.$", told["cxr.approval"]), told
    assert api.run_state("cxr_training", run) == "success"
