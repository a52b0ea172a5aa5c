# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""How modules speak to the command: its arguments, its exit codes, and where the token is."""

from __future__ import annotations

import json

import pytest
from ansible_collections.croft.fleet.plugins.module_utils import cli


class Command:
    """A `croft` that remembers how it was called."""

    def __init__(self, code=0, out="", err=""):
        self.answer, self.calls = (code, out, err), []

    def __call__(self, argv, environment, stdin):
        self.calls.append((argv, environment, stdin))
        return self.answer


def test_the_token_is_in_the_environment_alone(tmp_path):
    token = tmp_path / "admin.token"
    token.write_text("secret-token\n")
    command = Command(out="{}")
    cli.Cli(command, dict(server="plane:7443", ca_file="/ca.pem", token_file=str(token))).call("host", "list")
    argv, environment, stdin = command.calls[0]
    assert argv == ["croft", "-o", "json", "host", "list"] and stdin is None
    assert environment == dict(NO_COLOR="1", CROFT_SERVER="plane:7443", CROFT_CA_FILE="/ca.pem", CROFT_TOKEN="secret-token")


def test_not_found_is_an_answer():
    error = json.dumps({"error": {"message": "no host h9", "reason": "NOT_FOUND", "exitCode": 3}})
    assert cli.Cli(Command(3, err="a note\n" + error), {}).get("host", "get", "h9") is None


@pytest.mark.parametrize("code, err, said", [
    (1, json.dumps({"error": {"message": "it has web", "reason": "HOST_NOT_EMPTY"}}), "croft host get h1: HOST_NOT_EMPTY: it has web"),
    (2, "error: unexpected argument\n", "croft host get h1: error: unexpected argument"),
    (6, "", "croft host get h1: it said nothing"),
])
def test_everything_else_is_a_refusal_in_the_words_of_the_command(code, err, said):
    with pytest.raises(cli.Refused) as refused:
        cli.Cli(Command(code, err=err), {}).get("host", "get", "h1")
    assert str(refused.value) == said and refused.value.code == code


def test_documents_are_one_stream():
    command = Command(out=json.dumps({"results": [{"result": "unchanged"}]}))
    assert cli.Cli(command, dict(context="prod")).apply([dict(kind="Tenant"), dict(kind="Quota")], True) == [{"result": "unchanged"}]
    argv, _environment, stdin = command.calls[0]
    assert argv == ["croft", "-o", "json", "--context", "prod", "apply", "-f", "-", "--dry-run"]
    assert [json.loads(part) for part in stdin.split("\n---\n")] == [dict(kind="Tenant"), dict(kind="Quota")]


def test_a_diff_shows_what_people_write():
    live = dict(name="pools/p", match=dict(kind="USB", ids=[], classes=["0200"]), description="", metadata=dict(uid="u", labels={"a": "b"}))
    assert cli.shown(live, ("description", "match")) == dict(match=dict(kind="USB", classes=["0200"]), labels={"a": "b"})


def test_what_is_not_spoken_of_stays():
    live = dict(displayName="A", metadata=dict(labels={"a": "b"}, annotations={"c": "d"}))
    after = cli.overlay(live, dict(metadata=dict(labels={"x": "y"})))
    assert after == dict(displayName="A", metadata=dict(labels={"x": "y"}, annotations={"c": "d"}))
