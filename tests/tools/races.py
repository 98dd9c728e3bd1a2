"""Races by the command, and what two of them have to have alike."""

import json

import pytest

from fallline.cli import main


def same_bytes(result):
    """All of a result but what was measured."""
    return json.dumps({name: value for name, value in result.document.items() if name != "measured"})


def command(*arguments):
    """The exit code of `fallline race` in this process."""
    with pytest.raises(SystemExit) as ended:
        main(["race", *arguments])
    return ended.value.code or 0
