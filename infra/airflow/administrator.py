"""Makes the account of Airflow's administrator from ``AIRFLOW_ADMIN_*``, unless it is there.

Airflow's own command takes the password as an argument, which everybody on the machine can read in the list of
processes.
"""

from __future__ import annotations

import os

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.providers_manager import ProvidersManager


def make_administrator(username: str, email: str, password: str) -> bool:
    """Make the account; a user of this name is left alone: a password that was changed must survive a restart.

    Returns:
        Whether the account was made.
    """
    ProvidersManager().initialize_providers_configuration()
    with get_application_builder() as builder:
        accounts = builder.sm
        if accounts.find_user(username):
            return False
        if not accounts.add_user(username, "Airflow", "Administrator", email, accounts.find_role("Admin"), password):
            raise SystemExit(f"The administrator {username} could not be made: the log above says why.")
    return True


if __name__ == "__main__":
    account = [os.environ[f"AIRFLOW_ADMIN_{part}"] for part in ("USERNAME", "EMAIL", "PASSWORD")]
    print(f"Administrator {account[0]}: {'made' if make_administrator(*account) else 'is there'}.")
