"""How many clicks people need in MLflow's own pages for three questions, in a real browser, with few and many runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cxr_tasks import tracking
from cxr_tasks.artifacts import Dataset, RunContext
from cxr_tasks.config import resolve
from cxr_tasks.steps.mlflow_views import VIEWS
from cxr_tasks.store import FolderStore
from tests.browser import HAS_BROWSER, NO_BROWSER, open_browser
from tests.steps.compared_runs import dag_run, multiply, set_days_ago

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_BROWSER, reason=NO_BROWSER),
    pytest.mark.usefixtures("mlflow_uri"),
]
DATASET = Dataset.model_construct(version="00ab", source="/data/hospital", data_docs="")
NOW = {("vgg16", "none"): 0.81, ("vgg16", "synthetic"): 0.93, ("cnn", "none"): 0.7, ("cnn", "synthetic"): 0.6}
A_MONTH_AGO = {key: score - 0.2 for key, score in NOW.items()}


class People:
    """Somebody at MLflow's pages, who counts clicks."""

    def __init__(self, browser: Chrome) -> None:
        self.browser, self.clicks = browser, 0

    def open(self, address: str) -> None:
        """Follow a link of ours from elsewhere."""
        self.browser.get("about:blank")
        self.browser.get(address)

    def click(self, path: str) -> None:
        """Click on the first thing that is shown at an XPath, as soon as nothing lies over it."""
        from selenium.common.exceptions import WebDriverException

        def clicked(_: Chrome) -> bool:
            found = self._shown(path)
            self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
            found.click()
            return True

        self._wait(clicked, f"{path} cannot be clicked on", (WebDriverException,))
        self.clicks += 1

    def dismiss(self, words: str) -> None:
        """Close what MLflow tells once in each browser."""
        self.click(f"//button[normalize-space(.)='{words}']")
        self.clicks -= 1

    def to_new_tab(self) -> None:
        """Go on where a link has opened another tab."""
        self.browser.switch_to.window(self.browser.window_handles[-1])

    def sees(self, words: str) -> None:
        """Wait until the words are shown."""
        self._shown(f"//*[contains(normalize-space(text()), {words!r})]")

    def sees_column(self, name: str, begins: list[str]) -> None:
        """Wait until the table of runs shows these in a column, from the top."""
        cells = f".//div[@role='row']//div[@col-id=\"{name}\"][@role='gridcell']"

        def is_shown(_: Chrome) -> bool:
            rows = sorted(self.browser.find_elements("xpath", cells), key=lambda row: row.location["y"])
            return [row.text for row in rows[: len(begins)]] == begins

        from selenium.common.exceptions import StaleElementReferenceException

        self._wait(is_shown, f"the column {name} does not begin with {begins}", (StaleElementReferenceException,))

    def _shown(self, path: str) -> WebElement:
        def visible(_: Chrome) -> WebElement | None:
            return next((each for each in self.browser.find_elements("xpath", path) if each.is_displayed()), None)

        return self._wait(visible, f"nothing is shown at {path}")

    def _wait(self, until: Callable[[Chrome], Any], otherwise: str, ignored: tuple[type[Exception], ...] = ()) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 90, ignored_exceptions=ignored).until(until, otherwise)


@pytest.fixture
def person() -> Iterator[People]:
    with open_browser(3200, 1000) as browser:
        yield People(browser)


@pytest.fixture
def database(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return max(tmp_path_factory.getbasetemp().glob("mlflow*/mlflow.db"), key=lambda path: path.stat().st_mtime)


@pytest.fixture
def begin(store: FolderStore, mlflow_uri: str) -> Callable[[], RunContext]:
    """Begins DAG runs in one experiment with the views of trainings."""
    with store.publish("settings/quick", {}) as folder:
        (folder / "settings.json").write_text(resolve("quick").model_dump_json())
    experiment = tracking.experiment_id(f"cxr-{uuid.uuid4().hex}")
    tracking.keep_views(experiment, VIEWS["cxr_training"], "What it is.")

    def begun() -> RunContext:
        name = f"manual__{uuid.uuid4().hex}"
        identity = {tracking.TAG_DAG_RUN: name, tracking.TAG_WORK: "dag run"}
        run_id = tracking.find_or_create(experiment, name, identity, {"cxr.profile": "quick"})
        url = tracking.run_url(experiment, run_id)
        given = {"experiment_id": experiment, "mlflow_run_id": run_id, "url": url}
        return RunContext(dag_run=name, settings="settings/quick", **given)

    return begun


@pytest.mark.parametrize("number", [3, 300])
def test_three_questions_take_one_click_or_four(
    begin: Callable[[], RunContext], database: Path, person: People, number: int
) -> None:
    old, newer, last = begin(), begin(), begin()
    dag_run(old, DATASET, A_MONTH_AGO, "old")
    arms = dag_run(newer, DATASET, NOW, "new")
    taken = dag_run(last, DATASET, NOW, "new")
    set_days_ago(database, old.dag_run, 31)
    set_days_ago(database, newer.dag_run, 1)
    multiply(database, old.dag_run, lambda copy: 1.0 + copy, number - 3)
    assert not any(arm.shown_here for arm in taken) and taken[1].mlflow_run_id == arms[1].mlflow_run_id
    model = f"cxr-overall-{uuid.uuid4().hex[:8]}"
    tracking.client().create_registered_model(model)
    for _ in range(3):
        tracking.client().create_model_version(model, "s3://bucket/model", arms[1].mlflow_run_id)
    page = tracking.runs_url(last.experiment_id)

    # Which arm was best in the last run? Did VGG16 get better since last month?
    person.open(page)
    person.click("//a[normalize-space(.)='Answers: a line a run']")
    person.to_new_tab()
    person.sees_column("tags.`cxr.best`", ["VGG16 · synthetic · seed 0"] * 2)
    person.sees_column("metrics.`VGG16_synthetic_macro_f1`", ["0.93", "0.93", "0.73"])
    assert person.clicks == 1

    # Which data was version 3 trained on?
    person.clicks = 0
    person.click("//a[normalize-space(.)='Model registry']")
    person.dismiss("Try it now")
    person.click(f"//a[normalize-space(.)='{model}']")
    person.click("//a[normalize-space(.)='Version 3']")
    person.click("//a[normalize-space(.)='VGG16 · synthetic · seed 0']")
    person.sees("00ab")
    assert person.clicks == 4


def test_the_same_views_are_in_the_menu_of_views(begin: Callable[[], RunContext], person: People) -> None:
    run = begin()
    dag_run(run, DATASET, {("cnn", "none"): 0.7, ("cnn", "synthetic"): 0.6}, "new")

    person.open(tracking.runs_url(run.experiment_id))
    person.click("//button[normalize-space(.)='Views']")
    person.click("//*[@data-testid='saved-views-item-trainings']")

    person.sees_column("params.`arm`", ["none", "synthetic"])
    assert person.clicks == 2


def test_who_lands_on_traces_is_one_link_away_from_the_answers(
    begin: Callable[[], RunContext], mlflow_uri: str, person: People
) -> None:
    run = begin()
    dag_run(run, DATASET, {("cnn", "none"): 0.7, ("cnn", "synthetic"): 0.6}, "new")

    # As MLflow's own list of experiments does.
    person.open(f"{mlflow_uri}/#/experiments/{run.experiment_id}")
    person.dismiss("Got it")
    person.click("//a[normalize-space(.)='Answers: a line a run']")
    person.to_new_tab()

    person.sees_column("tags.`cxr.best`", ["CNN · none · seed 0"])
    assert "workflowType=machine_learning" in person.browser.current_url
