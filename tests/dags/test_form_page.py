"""The trigger form in Airflow's own page, in a real browser: what people see of it, and what it refuses."""

import os
import subprocess
from itertools import count

import httpx
import pytest

from infra.embedded.airflow_api import AirflowApi
from infra.embedded.services import Service
from tests.browser import HAS_BROWSER, NO_BROWSER, open_browser
from tests.servers import free_port

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def airflow(airflow_environment, tmp_path_factory):
    """A client of an Airflow whose scheduler never runs: what is triggered stays queued."""
    home, port = tmp_path_factory.mktemp("form"), free_port()
    environment = {
        **airflow_environment,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "true",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "CXR_PROFILE": "quick",
    }
    for command in ("db migrate", "dags reserialize"):
        subprocess.run(["airflow", *command.split()], env=environment, check=True, capture_output=True, timeout=200)
    server = Service("api-server", ["airflow", "api-server"], home / "api.log", home, environment)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in count():
            assert not server.has_ended(), (home / "api.log").read_text()[-3000:]
            try:
                httpx.get(f"{address}/api/v2/monitor/health", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                pass
        yield AirflowApi(address)
    finally:
        os.killpg(server.process.pid, 9)


def runs_of(airflow, dag):
    return airflow.get(f"/dags/{dag}/dagRuns")["dag_runs"]


@pytest.mark.parametrize(
    ("dag", "form", "sentence"),
    [
        ("cxr_training", {"baseline": "none", "arms": ["none"]}, "'none' is the baseline"),
        ("cxr_training", {"design": "no_gan", "gan_epochs": 3}, "The field 'GAN epochs' is filled in, and no arm"),
        ("cxr_training", {"gan_epoch": 3}, "The form has no field 'gan_epoch': did you mean 'gan_epochs'?"),
        ("cxr_data", {"profile": "quick"}, "No data source is given"),
    ],
)
def test_a_run_that_no_task_could_begin_is_refused_at_once_and_there_is_none(airflow, dag, form, sentence):
    before = runs_of(airflow, dag)

    with pytest.raises(ValueError, match="did not accept the trigger") as refused:
        airflow.trigger(dag, form)

    assert sentence in str(refused.value) and runs_of(airflow, dag) == before


def test_a_run_that_was_begun_is_cleared_again_and_again(airflow):
    """Airflow asks the policy of its tasks then, too. The form was looked at when the run was made."""
    run = airflow.trigger("cxr_training", {})
    for _ in range(3):
        answer = airflow.http.post(f"/dags/cxr_training/dagRuns/{run}/clear", json={"dry_run": False})
        assert answer.status_code == 200, answer.text
    assert airflow.get(f"/dags/cxr_training/dagRuns/{run}")["state"] == "queued"


def test_lists_of_numbers_and_of_chosen_texts_are_both_taken(airflow):
    for seeds in ([0, 3], ["0", "3"]):
        run = airflow.trigger("cxr_training", {"seeds": seeds, "approval": True, "classifiers": ["cnn"]})
        assert airflow.get(f"/dags/cxr_training/dagRuns/{run}")["conf"]["seeds"] == seeds


@pytest.mark.skipif(not HAS_BROWSER, reason=NO_BROWSER)
def test_a_person_sees_words_chooses_from_lists_and_is_refused_in_a_sentence(airflow):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def button(words):
        return f"//button[normalize-space(.)='{words}']"

    with open_browser(1300, 1500) as browser:
        wait = WebDriverWait(browser, 60)
        browser.get(f"{airflow.url}/dags/cxr_training")
        wait.until(lambda page: page.find_element(By.XPATH, button("Trigger"))).click()
        dialog = wait.until(lambda page: page.find_element(By.XPATH, "//*[@role='dialog'][contains(., 'Trigger Dag')]"))
        wait.until(lambda _: "Seeds" in dialog.text)
        seen = dialog.text
        for words in ("as the profile says (none in quick; classical in paper)", "none: the profile and the fields"):
            assert words in seen
        assert "null" not in seen and "GAN epochs" not in seen
        for section in ("Synthetic images", "Gate and report", "Everything else"):
            assert section in seen
        dialog.find_element(By.XPATH, f".{button('Synthetic images')}").click()
        wait.until(lambda _: "Empty: as the profile says (8 in quick; 1500 in paper)." in dialog.text)
        dialog.find_element(By.XPATH, f".{button('Run Parameters')}").click()
        for field, choice in (("seeds", "3"), ("seeds", "5"), ("design", "Evidence")):
            box = wait.until(lambda _, name=field: dialog.find_element(By.CSS_SELECTOR, f"#element_{name} input"))
            box.send_keys(choice, Keys.ENTER)
        field = dialog.find_element(By.ID, "element_profile")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys("papr")
        dialog.find_element(By.XPATH, f".{button('Trigger')}").click()
        refused = "Profile 'papr' does not exist: choose one of paper, quick or give the path of a YAML file."
        wait.until(lambda page: refused in page.find_element(By.TAG_NAME, "body").text)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys("quick")
        before = len(runs_of(airflow, "cxr_training"))
        # A notice lies over the button for some seconds.
        browser.execute_script("arguments[0].click()", dialog.find_element(By.XPATH, f".{button('Trigger')}"))
        wait.until(lambda _: len(runs_of(airflow, "cxr_training")) > before)

    conf = max(runs_of(airflow, "cxr_training"), key=lambda run: run["queued_at"])["conf"]
    assert (conf["seeds"], conf["design"], conf["profile"]) == (["3", "5"], "evidence", "quick")
