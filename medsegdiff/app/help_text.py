"""How options look in the help of a command."""

from __future__ import annotations

import argparse
import typing

from jsonargparse import DefaultHelpFormatter

from medsegdiff.app.option_files import ConfigFile
from medsegdiff.base.errors import flag, spelled

_METAVARS = {int: "N", float: "X"}


class HelpFormatter(DefaultHelpFormatter):
    """For each option its text, and its default if that says something; fields in backquotes become flags."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = spelled(action.help or "", flag), action.default
        if "--print-config" in action.option_strings:
            return "print all options as YAML, as --config reads them, and exit"
        silent = default is None or default is False or default in ("", [], argparse.SUPPRESS) or "default" in text
        return text if silent else f"{text} (default: {default})"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if "--print-config" in action.option_strings:
            return ""
        if action.nargs == "?" and action.const is True:
            return "false" if action.default else ""
        return super()._format_args(action, default_metavar)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return super()._format_action_invocation(action).rstrip()

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        if isinstance(action, ConfigFile):
            return "FILE"
        kind = getattr(action, "_typehint", None)
        for plain in (kind, *typing.get_args(kind)):
            if plain in _METAVARS:
                return _METAVARS[plain]
        return action.dest.split("_")[-1].upper()
