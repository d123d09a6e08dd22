"""What was filled into the trigger form: read, checked, and turned into settings that are laid over a profile.

Airflow's pages and its API hold each field against its own schema. An asset's event can hold anything, and what two
fields say together no schema knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr_tasks.addresses import check_whole
from cxr_tasks.arms import is_control, needs_synthetic
from cxr_tasks.artifacts import STEPS
from cxr_tasks.config import Settings, merge, resolve
from cxr_tasks.errors import SettingsError, nearest
from cxr_tasks.form import DESIGNS, FIELDS, OWN_FIELDS

# The fields that say nothing where no arm trains with synthetic images.
COUNT = "synthetic_per_class"
OF_SYNTHETIC = ("gan_epochs", "synthetic_source", COUNT)


def read_form(dag: str, form: Any) -> dict[str, Any]:
    """A value for each field that both DAGs have, and for those of the DAG; empty fields have what they hold at first.

    Airflow's own page and its API check a form before a run begins. An event of the asset can hold anything.

    Args:
        dag: The DAG's name.
        form: What was filled in.

    Raises:
        SettingsError: There is no such field, or it holds what it cannot hold. Fields that stand for a setting are
            checked with the settings.
    """
    if not isinstance(form, Mapping):
        raise SettingsError(f'The form is to be an object, such as {{"profile": "quick"}}, and not {_shown(form)}.')
    fields = {**OWN_FIELDS.get(dag, {}), **FIELDS}
    for name in form:
        if name not in fields:
            raise SettingsError(f"The form has no field {name!r}: {nearest(str(name), fields)}")
    filled = {name: each.default for name, each in fields.items()}
    filled |= {name: value for name, value in form.items() if value is not None}
    for name in {"profile", "source", "dataset"} & filled.keys():
        if not isinstance(filled[name], str | None):
            raise SettingsError(f"The field {name!r} of the form is to be a text, and not {_shown(filled[name])}.")
    read: dict[str, Any] = {"settings": _read_settings(filled["settings"]), "force": _read_force(filled["force"])}
    if "design" in filled:
        read |= {"design": _read_design(filled["design"]), "seeds": _read_seeds(filled["seeds"])}
    return {**filled, **read}


def _read_design(given: Any) -> str | None:
    """The field ``design``: one of them, or nothing."""
    if given in (None, ""):
        return None
    if not isinstance(given, str) or given not in DESIGNS:
        raise SettingsError(f"The field 'design' of the form has no {_shown(given)}: {nearest(str(given), DESIGNS)}")
    return str(given)


def _read_seeds(given: Any) -> Any:
    """The field ``seeds``: Airflow's form gives chosen numbers as texts. Anything else is left to the settings."""
    if not isinstance(given, list | tuple):
        return given
    return [int(each) if isinstance(each, str) and each.isascii() and each.isdigit() else each for each in given]


def _read_settings(given: Any) -> dict[str, Any]:
    """The field ``settings``: an object, or the JSON text of one."""
    read = given
    if isinstance(given, str):
        try:
            read = json.loads(given or "{}")
        except ValueError:
            read = None
    if not isinstance(read, Mapping):
        raise SettingsError(
            'The field \'settings\' of the form is to be an object, such as {"gan": {"epochs": 10}}, and not '
            f"{_shown(given)}."
        )
    return dict(read)


def _read_force(given: Any) -> list[str]:
    """The field ``force``: a list of steps."""
    if not isinstance(given, list | tuple):
        raise SettingsError(
            f"The field 'force' of the form is to be a list of steps, such as [\"train_arm\"], and not {_shown(given)}."
        )
    for step in given:
        if step not in STEPS:
            raise SettingsError(
                f"The field 'force' of the form names {_shown(step)}, which is no step: {nearest(str(step), STEPS)}"
            )
    return list(given)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def form_overrides(form: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from the design and the fields that were filled in; the field ``settings`` has the last word."""
    overrides: dict[str, Any] = {}
    design = DESIGNS[form["design"]].fields if form.get("design") else {}
    filled = {**design, **{name: form[name] for name in _filled_in(form)}}
    for name, each in FIELDS.items():
        if each.setting and name in filled:
            section, key = each.setting.split(".")
            overrides = merge(overrides, {section: {key: filled[name]}})
    return merge(overrides, form.get("settings") or {})


def _filled_in(form: Mapping[str, Any]) -> list[str]:
    return [name for name, value in form.items() if value not in (None, [], "")]


def settings_of(filled: Mapping[str, Any]) -> Settings:
    """The settings of the run that a form asks for, as :func:`read_form` gives it.

    Raises:
        SettingsError: The profile or a value is wrong, names a relative path, or fields contradict each other.
    """
    overrides = form_overrides(filled)
    check_for_a_run(overrides)
    settings = resolve(filled["profile"], overrides)
    check_whole(settings.model_dump(mode="json"))
    _check_together(_filled_in(filled), settings)
    return settings


def _check_together(filled_in: list[str], settings: Settings) -> None:
    """Look for fields that say nothing, since another says that there is nothing for them to say."""
    arms = settings.arms.names
    wanted = settings.evaluation.reproduce_leak or any(map(needs_synthetic, arms))
    if not wanted and (idle := [name for name in filled_in if name in OF_SYNTHETIC]):
        # A control shows as many real images again as synthetic ones would be added.
        idle = [name for name in idle if name != COUNT or not any(map(is_control, arms))]
        if idle:
            raise SettingsError(
                f"The field {FIELDS[idle[0]].title!r} is filled in, and no arm of {', '.join(arms)} trains with "
                "synthetic images: leave it empty, or choose the arm synthetic or both."
            )
    if settings.synthetic.is_imported and "gan_epochs" in filled_in:
        raise SettingsError(
            f"The field {FIELDS['gan_epochs'].title!r} is filled in, and the synthetic images come from "
            f"{settings.synthetic.source}, so that no GAN is trained: leave one of the two empty."
        )


def check_form(dag: str, form: Mapping[str, Any]) -> None:
    """Look whether a run can begin with what was filled in, before there is the run.

    Only profiles of the project, and that of the stack, are read. A file that a person names is for the workers to
    read.

    Args:
        dag: The DAG's name.
        form: A value for each field.

    Raises:
        SettingsError: It cannot.
    """
    filled = read_form(dag, form)
    profile = str(filled["profile"])
    is_of_stack = profile == FIELDS["profile"].default and Path(profile).is_file()
    if profile.endswith((".yaml", ".yml")) and not is_of_stack:
        return
    settings = settings_of(filled)
    if dag == "cxr_data":
        settings.data.one_source(filled["source"] or "")


def check_for_a_run(overrides: Mapping[str, Any]) -> None:
    """Look whether settings that are laid over a profile are for one run.

    Raises:
        SettingsError: They say where tasks run, which is fixed before there is a run.
    """
    if "gpu" in overrides:
        raise SettingsError(
            "The section gpu is not for one run, since Airflow places tasks when it reads the DAGs: write it into the "
            "profile of the stack (CXR_PROFILE, or PROFILE=/path/to/mine.yaml)."
        )
