# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""The one way by which modules speak to a plane: the `croft` command with `-o json`.

The command is a documented contract (exit codes, proto JSON, `apply`, `--dry-run`); a second client in Python
would be a second thing to keep true. The token is read from a file and handed on in the environment of the one
process that needs it: never in an argument, a log or a result.
"""

from __future__ import annotations

import json
import os

NOT_FOUND = 3

CONNECTION = dict(
    executable=dict(type="str", default="croft"),
    server=dict(type="str"),
    ca_file=dict(type="path"),
    token_file=dict(type="path", no_log=False),
    context=dict(type="str"),
)


class Refused(Exception):
    """The command failed; says why as the command did."""

    def __init__(self, arguments, code, error):
        self.code = code
        self.reason = error.get("reason", "")
        said = error.get("message", "it said nothing")
        word = self.reason or error.get("status", "")
        Exception.__init__(self, "croft %s: %s%s" % (" ".join(arguments), word + ": " if word else "", said))


def environment(params, read=None):
    """What the command finds in its environment, and the token, so that a caller can keep it out of every log."""
    given = {"NO_COLOR": "1"}
    if params.get("server"):
        given["CROFT_SERVER"] = params["server"]
    if params.get("ca_file"):
        given["CROFT_CA_FILE"] = params["ca_file"]
    token = None
    if params.get("token_file"):
        token = (read or read_text)(params["token_file"]).strip()
        given["CROFT_TOKEN"] = token
    return given, token


def read_text(path):
    with open(path, "r", encoding="utf-8") as file:
        return file.read()


def error_of(text):
    """The JSON object that ends stderr; notes may stand before it."""
    for line in reversed(text.strip().splitlines()):
        try:
            return json.loads(line)["error"]
        except (ValueError, KeyError, TypeError):
            continue
    return {"message": text.strip() or "it said nothing"}


class Cli:
    """`runner(argv, environment, stdin) -> (exit code, stdout, stderr)`."""

    def __init__(self, runner, params):
        self.runner = runner
        self.environment, self.token = environment(params)
        self.before = [params.get("executable") or "croft", "-o", "json"]
        if params.get("context"):
            self.before += ["--context", params["context"]]

    def call(self, *arguments, stdin=None):
        """What the command printed, parsed. Raises Refused."""
        code, out, err = self.runner(self.before + list(arguments), self.environment, stdin)
        if code != 0:
            raise Refused(arguments, code, error_of(err))
        return json.loads(out) if out.strip() else {}

    def get(self, *arguments):
        """None where the plane knows no such thing."""
        try:
            return self.call(*arguments)
        except Refused as refused:
            if refused.code == NOT_FOUND:
                return None
            raise

    def apply(self, documents, dry_run):
        """One result for each document: created, updated with its fields, or unchanged."""
        text = "\n---\n".join(json.dumps(document) for document in documents)
        dry = ["--dry-run"] if dry_run else []
        return self.call("apply", "-f", "-", *dry, stdin=text)["results"]


def of_module(module):
    """A Cli that runs by way of the module, which keeps the token out of everything that it prints."""

    def runner(argv, given, stdin):
        return module.run_command(argv, environ_update=given, data=stdin, check_rc=False)

    executable = module.params["executable"]
    if os.sep not in executable:
        module.params["executable"] = module.get_bin_path(executable, required=True)
    try:
        cli = Cli(runner, module.params)
    except (OSError, UnicodeDecodeError) as error:
        module.fail_json(msg="token_file: %s" % error)
    if cli.token:
        module.no_log_values.add(cli.token)
    return cli


def bring(module, croft, documents):
    """`croft apply`. In check mode something may be missing that an earlier task would have made: then it is not checked yet."""
    try:
        return croft.apply(documents, module.check_mode)
    except Refused as refused:
        if not (module.check_mode and refused.code == NOT_FOUND):
            raise
        module.warn("not checked before that exists: %s" % refused)
        return [dict(result="created") for document in documents]


def fail(module, refused):
    module.fail_json(msg=str(refused), exit_code=refused.code, reason=refused.reason)


def overlay(live, declared):
    """What a resource will be: lists and labels are one value each, as for `croft apply`."""
    whole = dict(live)
    for key, value in declared.items():
        if isinstance(value, dict) and key == "metadata":
            value = overlay(live.get(key) or {}, value)
        if value is None:
            whole.pop(key, None)
        else:
            whole[key] = value
    return whole


def shown(resource, fields):
    """The part of a resource that a diff is about; server-made fields would only be noise."""
    picked = dict((field, resource.get(field)) for field in fields)
    picked.update((key, (resource.get("metadata") or {}).get(key)) for key in ("labels", "annotations"))
    return without_empty(picked)


def without_empty(value):
    """Fields at their default are shown by the command and left out by people: the same thing."""
    if not isinstance(value, dict):
        return value
    inner = dict((key, without_empty(one)) for key, one in value.items())
    return dict((key, one) for key, one in inner.items() if one not in (None, "", {}, []))


def metadata(params):
    """Labels and annotations of a document; what is not given is not spoken of."""
    said = dict((key, params[key]) for key in ("labels", "annotations") if params.get(key) is not None)
    return {"metadata": said} if said else {}
