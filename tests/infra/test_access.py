"""Who comes in: every door of docker-compose.yaml asks for credentials, and TLS before Airflow and MLflow leaves them
working as they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest

from infra.embedded.services import Service
from infra.people import PEOPLES_ROLES
from tests.infra.celery_stack import SECRETS, missing, shows_secrets
from tests.infra.compose import ROOT, environment, filled
from tests.infra.entrances import Entrances
from tests.infra.tls import AIRFLOW_NAME, HAS_NGINX, MLFLOW_NAME

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]
behind_tls = pytest.mark.skipif(not HAS_NGINX, reason="not installed: nginx")

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None, is_paused_upon_creation=False)
def errand():
    task(lambda: None, task_id="works")()

errand()
"""


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors")
    (folder / "dags").mkdir()
    (folder / "dags" / "errand.py").write_text(DAG, encoding="utf-8")
    stack = Entrances(folder / "stack", folder / "dags")
    try:
        stack.api = stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def browser(doors):
    with doors.browser() as client:
        yield client


ADMINISTRATOR = (
    environment("mlflow")["MLFLOW_AUTH_ADMIN_USERNAME"],
    environment("mlflow")["MLFLOW_AUTH_ADMIN_PASSWORD"],
)


class TestRefused:
    @pytest.mark.parametrize(
        "path", ["dags", "dags/errand/dagRuns", "connections", "variables", "pools", "assets", "config"]
    )
    @pytest.mark.parametrize("token", ["", "Bearer nonsense", "Basic YWRtaW46YWRtaW4="])
    def test_airflow(self, doors, path, token):
        headers = {"Authorization": token} if token else {}
        asked = httpx.get(f"{doors.airflow}/api/v2/{path}", headers=headers, timeout=60)

        assert asked.status_code in (401, 403), asked.text
        assert httpx.get(f"{doors.airflow}/api/v2/dags", headers=doors.api.http.headers, timeout=60).status_code == 200

    def test_the_tasks_door_of_airflow(self, doors):
        run = f"{doors.airflow}/execution/task-instances/00000000-0000-7000-8000-000000000000/run"

        assert httpx.patch(run, json={}, timeout=60).status_code in (401, 403)
        # A person's token is none of a task's.
        assert httpx.patch(run, json={}, headers=doors.api.http.headers, timeout=60).status_code in (401, 403)

    def test_a_wrong_password_of_airflow(self, doors):
        for account in ({"username": "admin", "password": "admin"}, {"username": "nobody", "password": ""}):
            assert httpx.post(f"{doors.airflow}/auth/token", json=account, timeout=60).status_code in (400, 401)

    @pytest.mark.parametrize("login", [None, ("admin", "password1234"), ("admin", "")])
    def test_mlflow(self, doors, login):
        for method, path in (
            ("GET", "api/2.0/mlflow/experiments/get?experiment_id=0"),
            ("POST", "api/2.0/mlflow/runs/search"),
            ("GET", "api/2.0/mlflow-artifacts/artifacts"),
            ("PUT", "api/2.0/mlflow-artifacts/artifacts/a.txt"),
            ("GET", "ajax-api/2.0/mlflow/registered-models/search"),
            ("GET", "graphql"),
            ("GET", "signup"),
            ("POST", "api/2.0/mlflow/users/create"),
            ("POST", "api/2.0/mlflow/users/create-ui"),
            ("GET", ""),
        ):
            asked = httpx.request(method, f"{doors.mlflow}/{path}", auth=login, timeout=60)
            assert asked.status_code == 401, (path, asked.status_code)
        known = httpx.get(
            f"{doors.mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0", auth=ADMINISTRATOR, timeout=60
        )
        assert known.status_code == 200

    def test_mlflow_of_another_name(self, doors):
        asked = httpx.get(
            f"{doors.mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0",
            auth=ADMINISTRATOR,
            headers={"Host": "evil.example"},
            timeout=60,
        )

        assert asked.status_code == 403

    @pytest.mark.parametrize("password", ["", "postgres", "filled"])
    @pytest.mark.parametrize("user", ["postgres", "airflow", "mlflow"])
    def test_postgresql(self, doors, user, password):
        line = [
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(doors.postgres_port),
            "-U",
            user,
            "-d",
            "airflow",
            "-w",
            "-c",
            "select 1",
        ]

        def enter(known: str) -> int:
            login = {"PATH": os.environ["PATH"], "PGPASSWORD": known, "PGPASSFILE": "/dev/null"}
            return subprocess.run(line, env=login, capture_output=True, check=False, timeout=60).returncode

        assert enter(password) != 0
        assert enter(filled()["AIRFLOW_DB_PASSWORD"]) == (0 if user == "airflow" else 2)

    def test_redis(self, doors):
        def say(*lines: str) -> list[str]:
            with socket.create_connection(("127.0.0.1", doors.redis_port), timeout=30) as door:
                door.sendall("".join(f"{line}\r\n" for line in lines).encode())
                return [door.recv(4096).decode().strip() for _ in lines[-1:]]

        assert say("PING")[0].startswith("-NOAUTH") and say("LLEN default")[0].startswith("-NOAUTH")
        assert say("AUTH wrong")[0].startswith("-WRONGPASS")
        assert "+PONG" in say(f"AUTH {environment('redis')['REDISCLI_AUTH']}\r\nPING")[0]


@behind_tls
class TestTls:
    def test_plain_http_leads_to_https(self, doors):
        for name, url in ((AIRFLOW_NAME, doors.airflow_url), (MLFLOW_NAME, doors.mlflow_url)):
            asked = httpx.get(f"http://127.0.0.1:{doors.http_port}/a?b=c", headers={"Host": name})
            assert (asked.status_code, asked.headers["location"]) == (308, f"{url}/a?b=c")

    def test_another_name_gets_no_answer(self, doors):
        with pytest.raises(httpx.ConnectError), doors.browser() as client:
            client.get(f"https://localhost:{doors.tls_port}/")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://127.0.0.1:{doors.http_port}/", headers={"Host": "evil.example"})

    def test_old_protocols_are_refused(self, doors):
        line = ["openssl", "s_client", "-connect", f"127.0.0.1:{doors.tls_port}", "-servername", MLFLOW_NAME]
        for protocol, works in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            done = subprocess.run([*line, protocol, "-brief"], input=b"", capture_output=True, timeout=60, check=False)
            assert (done.returncode == 0) == works, protocol

    def test_people_sign_in_to_airflow_and_stay_on_https(self, doors, browser):
        assert browser.get(doors.airflow_url).headers["strict-transport-security"]
        page = browser.get(f"{doors.airflow_url}/auth/login/")
        cookies = page.headers.get_list("set-cookie")
        assert page.status_code == 200 and cookies and all("; secure" in each.lower() for each in cookies)

        account = environment("airflow-init")
        form = {"username": account["AIRFLOW_ADMIN_USERNAME"], "password": account["AIRFLOW_ADMIN_PASSWORD"]}
        form["csrf_token"] = page.text.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
        signed_in = browser.post(str(page.url), data=form, headers={"Referer": str(page.url)})
        assert signed_in.status_code == 302, signed_in.text[:500]
        assert signed_in.headers["location"].startswith(("/", doors.airflow_url))
        (token,) = [each for each in signed_in.headers.get_list("set-cookie") if each.startswith("_token=")]
        assert "; secure" in token.lower()
        assert browser.get(f"{doors.airflow_url}/api/v2/dags").status_code == 200

    def test_airflow_redirects_to_https_and_believes_no_browser_on_who_it_is(self, doors, browser):
        # A missing slash is mended by a redirect, whose address is made of what the proxy says.
        forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http", "Forwarded": "host=evil.example"}
        mended = browser.get(f"{doors.airflow_url}/auth/login", headers=forged)

        assert (mended.status_code, mended.headers["location"]) == (308, f"{doors.airflow_url}/auth/login/")

    def test_programs_use_both_apis(self, doors, browser):
        account = environment("airflow-init")
        login = {part: account[f"AIRFLOW_ADMIN_{part.upper()}"] for part in ("username", "password")}
        token = browser.post(f"{doors.airflow_url}/auth/token", json=login).json()["access_token"]
        dags = browser.get(f"{doors.airflow_url}/api/v2/dags", headers={"Authorization": f"Bearer {token}"})
        assert [dag["dag_id"] for dag in dags.json()["dags"]] == ["errand"]

        found = browser.post(
            f"{doors.mlflow_url}/api/2.0/mlflow/experiments/search", json={"max_results": 5}, auth=ADMINISTRATOR
        )
        assert found.status_code == 200 and found.json()["experiments"]

    def test_mlflows_own_pages_may_change_things_and_others_may_not(self, doors, browser):
        def search(origin: str) -> int:
            url = f"{doors.mlflow_url}/ajax-api/2.0/mlflow/runs/search"
            return browser.post(
                url, json={"experiment_ids": ["0"]}, auth=ADMINISTRATOR, headers={"Origin": origin}
            ).status_code

        assert browser.get(f"{doors.mlflow_url}/", auth=ADMINISTRATOR).status_code == 200
        assert (search(doors.mlflow_url), search("https://evil.example")) == (200, 403)

    def test_a_large_artifact_goes_through_both_ways(self, doors, browser):
        size, url = 100 * 2**20, f"{doors.mlflow_url}/api/2.0/mlflow-artifacts/artifacts/large.bin"
        block = os.urandom(2**20)

        put = browser.put(url, content=(block for _ in range(size // len(block))), auth=ADMINISTRATOR)
        assert put.status_code == 200, put.text
        with browser.stream("GET", url, auth=ADMINISTRATOR) as got:
            assert sum(map(len, got.iter_bytes(2**20))) == size
        # It waited on no disk of the proxy.
        assert sum(path.stat().st_size for path in (doors.folder / "nginx").rglob("*") if path.is_file()) < 2**20


PASSWORD = "a-password-of-somebody"


@pytest.fixture(scope="module")
def people(doors):
    """An account of each role, made by the command as people call it; a client of Airflow for each."""
    known = {**doors.variables, "PERSON_PASSWORD": PASSWORD, "MLFLOW_TRACKING_URI": doors.mlflow}
    clients = {}
    for role in PEOPLES_ROLES:
        # Twice: the second call changes nothing.
        for _ in range(2):
            line = [sys.executable, str(ROOT / "infra/people.py"), f"the-{role}", role]
            done = subprocess.run(line, env=known, cwd="/", capture_output=True, text=True, timeout=120)
            assert done.stdout == f"the-{role} is {role} in Airflow and MLflow.\n", done.stderr
        login = {"username": f"the-{role}", "password": PASSWORD}
        token = httpx.post(f"{doors.airflow}/auth/token", json=login, timeout=60).json()["access_token"]
        clients[role] = httpx.Client(
            base_url=f"{doors.airflow}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
    yield clients
    for client in clients.values():
        client.close()


class TestRoles:
    def test_everybody_looks(self, people):
        for client in people.values():
            assert client.get("/dags/errand").status_code == client.get("/dags/errand/dagRuns").status_code == 200

    def test_only_a_trainer_begins_a_run(self, people):
        begun = {
            role: client.post("/dags/errand/dagRuns", json={"logical_date": None}) for role, client in people.items()
        }

        assert {role: answer.status_code for role, answer in begun.items()} == {
            "viewer": 403,
            "trainer": 200,
            "approver": 403,
        }

    def test_only_an_approver_answers_what_a_run_asks(self, people):
        place = "/dags/errand/dagRuns/none/taskInstances/works/-1/hitlDetails"
        answers = {role: client.patch(place, json={"chosen_options": ["Approve"]}) for role, client in people.items()}

        # There is nothing to approve, which only who may approve hears.
        assert {role: answer.status_code for role, answer in answers.items()} == {
            "viewer": 403,
            "trainer": 403,
            "approver": 404,
        }

    @pytest.mark.parametrize("path", ["/connections", "/variables", "/config"])
    def test_nobody_sees_what_is_the_administrators(self, people, path):
        assert {client.get(path).status_code for client in people.values()} == {403}

    def test_nobody_changes_what_a_task_has_returned(self, people):
        place = "/dags/errand/dagRuns/none/taskInstances/works/xcomEntries"
        written = {client.post(place, json={"key": "url", "value": "x"}).status_code for client in people.values()}

        assert written == {403}

    def test_only_an_approver_moves_the_alias_of_a_champion(self, doors, people):
        model, api = {"name": "cxr-overall"}, f"{doors.mlflow}/api/2.0/mlflow"
        httpx.post(f"{api}/registered-models/create", json=model, auth=ADMINISTRATOR, timeout=60).raise_for_status()
        version = {**model, "source": "s3://cxr/mlflow/a"}
        httpx.post(f"{api}/model-versions/create", json=version, auth=ADMINISTRATOR, timeout=60).raise_for_status()

        def tried(role: str, method: str, path: str, **asked: Any) -> int:
            login = (f"the-{role}", PASSWORD)
            return httpx.request(method, f"{api}/{path}", auth=login, timeout=60, **asked).status_code

        moved = {**model, "alias": "champion", "version": "1"}
        looks = {role: tried(role, "GET", "registered-models/get", params=model) for role in people}
        moves = {role: tried(role, "POST", "registered-models/alias", json=moved) for role in people}
        runs = {role: tried(role, "POST", "runs/create", json={"experiment_id": "0"}) for role in people}
        made = {
            role: tried(role, "POST", "users/create", json={"username": "x", "password": PASSWORD}) for role in people
        }

        assert looks == dict.fromkeys(people, 200)
        assert moves == {"viewer": 403, "trainer": 403, "approver": 200}
        assert runs == made == dict.fromkeys(people, 403)

    def test_a_short_password_is_refused(self, doors):
        line = [sys.executable, str(ROOT / "infra/people.py"), "somebody", "viewer"]
        known = {**doors.variables, "PERSON_PASSWORD": "short"}
        done = subprocess.run(line, env=known, cwd="/", capture_output=True, text=True, timeout=60)

        assert done.returncode == 2 and "the password is too short: give at least 12 characters" in done.stderr


class TestPage:
    """The page in Airflow, which Airflow itself leaves open to everybody."""

    @pytest.mark.parametrize("path", ["", "now", "static/overview.css", f"samples/{32 * 'a'}/step-000001.png"])
    def test_nobody_sees_it_without_an_account(self, doors, path):
        for headers in ({}, {"Authorization": "Bearer a.b.c"}, {"Cookie": "_token=a.b.c"}):
            asked = httpx.get(f"{doors.airflow}/cxr/{path}", headers=headers, timeout=60)
            assert asked.status_code in (401, 403) and "Champions" not in asked.text

    def test_everybody_with_an_account_reads_it_and_is_offered_what_the_role_may(self, doors, people):
        pages = {role: people[role].get(f"{doors.airflow}/cxr/") for role in people}
        nobodys = pages["viewer"].text

        assert {page.status_code for page in pages.values()} == {200}
        # MLflow asks Airflow for credentials, and its administrator's are not in the page.
        assert "No model is registered yet" in nobodys or "cxr-overall" in nobodys
        assert ADMINISTRATOR[1] not in nobodys
        assert {role: ">Train<" in page.text for role, page in pages.items()} == {
            "viewer": False,
            "trainer": True,
            "approver": False,
        }

    def test_who_may_read_no_runs_sees_nothing(self, doors, people):
        account = environment("airflow-init")
        login = {part: account[f"AIRFLOW_ADMIN_{part.upper()}"] for part in ("username", "password")}
        token = httpx.post(f"{doors.airflow}/auth/token", json=login, timeout=60).json()["access_token"]
        admin = {"Authorization": f"Bearer {token}"}
        told = {"first_name": "A", "last_name": "B", "email": "a@b.example", "username": "outsider"}
        told |= {"password": PASSWORD, "roles": [{"name": "Public"}]}
        made = httpx.post(f"{doors.airflow}/auth/fab/v1/users", json=told, headers=admin, timeout=60)
        assert made.status_code in (200, 201), made.text
        login = {"username": "outsider", "password": PASSWORD}
        token = httpx.post(f"{doors.airflow}/auth/token", json=login, timeout=60).json()["access_token"]

        asked = httpx.get(f"{doors.airflow}/cxr/", headers={"Authorization": f"Bearer {token}"}, timeout=60)

        assert asked.status_code == 403 and "may read the runs of the DAG cxr_training" in asked.text


class TestSecrets:
    """They are looked for after all that is asked above."""

    def test_none_shows_in_the_list_of_processes(self, doors):
        arguments = doors.arguments()

        assert {place.split()[0] for place in arguments} == set(doors.services)
        assert shows_secrets(arguments) == []

    def test_none_shows_in_a_log(self, doors):
        assert {"api-server.log", "mlflow.log", "postgres.log"} <= {path.rpartition("/")[2] for path in doors.said()}
        assert shows_secrets(doors.said()) == []

    def test_none_lies_plainly_in_a_database(self, doors):
        kept = {name: doors.dump(name) for name in ("airflow", "mlflow", "mlflow_auth")}

        assert "COPY public.ab_user" in kept["airflow"] and "COPY public.users" in kept["mlflow_auth"]
        assert shows_secrets(kept) == []
        assert not any(PASSWORD in text for text in kept.values())

    def test_one_that_shows_is_found(self, doors):
        assert len(SECRETS) > 10
        line = ["sh", "-c", "sleep 60; true", SECRETS["REDIS_PASSWORD"]]
        doors.services["careless"] = Service(
            "careless", line, doors.folder / "careless.log", doors.folder, dict(os.environ)
        )
        (doors.folder / "careless.log").write_text(f"redis://:{SECRETS['REDIS_PASSWORD']}@redis\n")

        (found,) = shows_secrets(doors.arguments())
        (written,) = shows_secrets(doors.said())

        assert found[0] == written[0] == "REDIS_PASSWORD"
