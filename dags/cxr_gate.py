"""The gate as a branch of the DAG, and how a person is asked on Airflow's page of required actions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLBranchOperator
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from cxr_notices import TellQuestion
from cxr_wiring import going_on, step

from cxr_tasks import steps
from cxr_tasks.artifacts import Challenge, Report, RunContext

APPROVE, DECLINE = "Approve", "Decline"
PROMOTE, KEEP = "verdict.promote", "verdict.keep_champion"


def after_gate(challenge: Any, given: dict[str, Any]) -> str:
    """The task that follows the gate: a champion stays, is made, or a person is asked and reads the report before.

    Args:
        challenge: What the step ``challenge`` returned, as JSON.
        given: What it was given.
    """
    if not steps.passes_gate(Challenge.model_validate(challenge)):
        return KEEP
    asks = steps.asks_a_person(RunContext.model_validate(given["run"]))
    return "verdict.draft_report" if asks else PROMOTE


class AskPerson(HITLBranchOperator):
    """Asks whether the challengers that pass the gate may become champions, and waits without a slot.

    Nobody answering means no.
    """

    template_fields = ("subject", "body", "run", "challenge", "report")

    def __init__(self, *, run: Any, challenge: Any, report: Any, yes: str, no: str, **kwargs: Any) -> None:
        """Take the handles as XComs; ``yes`` and ``no`` are the tasks that follow."""
        self.run, self.challenge, self.report = run, challenge, report
        # The time that a person takes is limited by the settings of the run.
        kwargs |= {"params": _fields([]), "execution_timeout": None}
        branches = {APPROVE: yes, DECLINE: no}
        super().__init__(subject="", options=list(branches), defaults=DECLINE, options_mapping=branches, **kwargs)

    def execute(self, context: Any) -> Any:
        """Write the question, and wait for the reply."""
        asked = steps.question(*self._handles())
        self.subject, self.body = asked.subject, asked.body
        self.params = ParamsDict(_fields(list(asked.models)))
        self.response_timeout = timedelta(days=asked.days)
        self.notifiers = [TellQuestion(asked)]
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Hand on the answer, and go where it leads."""
        who = (event.get("responded_by_user") or {}).get("name") or ""
        at = event["responded_at"].isoformat(timespec="seconds")
        run, given = self._handles()[0], event.get("params_input") or {}
        reply = steps.read_reply(run, event["chosen_options"] == [APPROVE], who, at, given)
        # Airflow skips the other branch by an exception, which what is returned does not survive.
        context["ti"].xcom_push(key="return_value", value=reply.model_dump(mode="json"))
        return super().execute_complete(context, event)

    def _handles(self) -> tuple[RunContext, Challenge, Report | None]:
        report = None if self.report is None else Report.model_validate(self.report)
        return RunContext.model_validate(self.run), Challenge.model_validate(self.challenge), report


def decide(compared: dict[str, Any], write_report: Any, told: dict[str, Any]) -> list[Any]:
    """Register challengers and ask the gate. Then promote, keep the champion, or ask a person which of both.

    Args:
        compared: What the step ``challenge`` is given.
        write_report: The task of the report, which a person reads before.
        told: What that is given.

    Returns:
        The tasks ``promote`` and ``keep_champion``, of which one runs, and ``challenge``.
    """
    challenge = going_on(step(steps.challenge, choose=after_gate))(**compared)
    draft = write_report.override(task_id="draft_report")(**told, ruled=[challenge])
    asked = {"run": compared["run"], "challenge": challenge}
    reply = AskPerson(task_id="approve", **asked, report=draft, yes=PROMOTE, no=KEEP).output
    # One at a time, or two runs could each find the other's champion absent.
    promote = going_on(step(steps.promote, max_active_tis_per_dag=1))
    keep = going_on(step(steps.keep_champion))
    return [promote(**compared, challenge=challenge, reply=reply), keep(**asked, reply=reply), challenge]


def _fields(models: list[str]) -> dict[str, Param]:
    """What is asked beside yes and no: of the models all are proposed."""
    return {
        "models": Param(
            models,
            type="array",
            items={"type": "string"},
            examples=models,
            title="Models",
            description="Which models an approval is for.",
        ),
        "reason": Param(None, type=["null", "string"], title="Reason", description="Why. It stays with the versions."),
    }
