"""Cuts processes off from everything: by a rule of the kernel's packet filter for their group."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

# No group of this machine has this number.
GROUP = 54321
TABLE = "inet cxr_faults"
# Packets of the group are marked, and so are the answers that come to its connections.
MARKS_PACKETS = f"""
table {TABLE} {{
    chain marks {{ type filter hook output priority -10; meta skgid {GROUP} ct mark set {GROUP}; }}
    chain sent {{ type filter hook output priority 0; }}
    chain received {{ type filter hook input priority 0; }}
}}
"""
# Every connection that matters is used at least as often: Redis each second, the API server every five.
USED_SECONDS = 8.0


def in_group(program: list[str]) -> list[str]:
    """A program that :func:`cut_off` cuts off."""
    return ["setpriv", "--regid", str(GROUP), "--clear-groups", *program]


def cannot_cut() -> str:
    """Why nothing can be cut off here; empty where it can."""
    try:
        done = subprocess.run(["nft", "--check", "--file", "-"], input=MARKS_PACKETS, text=True, capture_output=True)
    except FileNotFoundError:
        return "not installed: nftables"
    return f"the kernel takes no rule: {done.stderr[:200]}" if done.returncode else ""


@contextmanager
def cut_off() -> Iterator[None]:
    """Drop every packet that the group sends and all that come to it."""
    _filter(MARKS_PACKETS)
    try:
        time.sleep(USED_SECONDS)
        _filter(f"add rule {TABLE} sent ct mark {GROUP} drop\nadd rule {TABLE} received ct mark {GROUP} drop\n")
        yield
    finally:
        _filter(f"delete table {TABLE}\n")


def _filter(rules: str) -> None:
    subprocess.run(["nft", "--file", "-"], input=rules, text=True, check=True)
