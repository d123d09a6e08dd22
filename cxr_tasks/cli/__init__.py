"""The command ``cxr``: the whole pipeline on this machine, each step by hand, and what lies around them."""

from cxr_tasks.cli.app import app

__all__ = ["app"]
