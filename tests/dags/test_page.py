"""The page in Airflow: who may see it, what it offers to whom, and what it says where MLflow is away."""

import json

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

# The app of Airflow's API server with the plugin, asked as people of each role, with a token and with a cookie.
VISITS = """
import json, time
from fastapi.testclient import TestClient
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

client = TestClient(create_app(apps="core"), raise_server_exceptions=False)
PATHS = ["/cxr/", "/cxr/now", "/cxr/samples/" + 32 * "a" + "/step-000001.png", "/cxr/static/overview.css"]
PATHS += ["/cxr/samples/" + 32 * "a" + "/..%2f..%2fsettings.png", "/cxr/static/..%2frender.py", "/cxr/openapi.json"]
said = {}
for role in ("nobody", "no role", "VIEWER", "USER"):
    known = {"name": role, "statuses": {}}
    token = ""
    if role != "nobody":
        who = SimpleAuthManagerUser(username=role, role=None if role == "no role" else role)
        token = get_auth_manager().generate_jwt(who)
    for path in PATHS:
        client.cookies.clear()
        began = time.monotonic()
        answer = client.get(path, headers={"Authorization": f"Bearer {token}"} if token else {})
        known["statuses"][path] = answer.status_code
        if path == "/cxr/":
            known |= {"page": answer.text, "headers": dict(answer.headers), "seconds": time.monotonic() - began}
    client.cookies.set("_token", token)
    known["by cookie"] = client.get("/cxr/").status_code
    said[role] = known
client.cookies.clear()
said["forged"] = client.get("/cxr/", headers={"Authorization": "Bearer " + "a.b.c"}).status_code
said["plugins"] = client.get("/api/v2/plugins", headers={"Authorization": f"Bearer {token}"}).json()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def visits(in_airflow):
    # Nobody listens there.
    return json.loads(in_airflow(VISITS, timeout=180, MLFLOW_TRACKING_URI="http://someone:secret@127.0.0.1:9"))


def statuses(visit):
    """What each path was answered with; the last three lead to nothing."""
    return list(visit["statuses"].values())


def test_who_is_not_signed_in_sees_nothing(visits):
    assert statuses(visits["nobody"]) == [*[401] * 4, *[404] * 3] and visits["nobody"]["by cookie"] == 401
    assert visits["forged"] == 403
    assert "Sign in to Airflow" in visits["nobody"]["page"] and "Champions" not in visits["nobody"]["page"]


def test_who_may_not_read_the_runs_sees_nothing(visits):
    assert statuses(visits["no role"]) == [*[403] * 4, *[404] * 3] and visits["no role"]["by cookie"] == 403
    assert "may read the runs of the DAG cxr_training" in visits["no role"]["page"]


def test_who_may_read_sees_the_page_and_no_file_beside_it(visits):
    for role in ("VIEWER", "USER"):
        # MLflow is away: there is no picture now.
        assert statuses(visits[role]) == [200, 200, 503, 200, *[404] * 3] and visits[role]["by cookie"] == 200


def test_only_who_may_begin_runs_is_offered_that(visits):
    assert ">Train<" in visits["USER"]["page"] and ">Train<" not in visits["VIEWER"]["page"]


def test_that_mlflow_is_away_is_said_soon_and_without_a_password(visits):
    page = visits["USER"]["page"]

    assert "MLflow at http://127.0.0.1:9 does not answer" in page and "secret" not in page
    assert "Nothing runs now" in page and visits["USER"]["seconds"] < 5


def test_the_page_stands_in_airflow_alone_and_runs_nothing_of_others(visits):
    headers = visits["USER"]["headers"]

    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and "no-store" in headers["cache-control"]


def test_the_menu_leads_to_it(visits):
    (ours,) = [each for each in visits["plugins"]["plugins"] if each["name"] == "cxr"]

    views = {view["name"]: view["href"] for view in ours["external_views"]}
    assert views == {"Chest X-rays": "cxr/", "MLflow": "http://127.0.0.1:9/#/experiments?workflowType=machine_learning"}
    assert [app["url_prefix"] for app in ours["fastapi_apps"]] == ["/cxr"]


def test_other_processes_of_airflow_do_not_load_it(in_airflow):
    script = (
        "import sys\n"
        "from airflow import plugins_manager\n"
        "names = [plugin.name for plugin in plugins_manager._get_plugins()[0]]\n"
        "heavy = {'cxr_page', 'cxr_running', 'cxr_tasks', 'mlflow', 'tensorflow', 'pandas'} & sys.modules.keys()\n"
        "print('cxr' in names, plugins_manager.get_import_errors(), sorted(heavy))"
    )

    assert in_airflow(script) == "True {} []"
