"""Decision requests from a file: one JSON object, an array of them, or JSON lines.

Each is what `POST /v1/decisions` takes, or that under `request` with what is supposed of it beside it: see `supposed`.
"""

from dataclasses import dataclass
from typing import Any, Literal

from fleetward.cli.output import CliError
from fleetward.cli.supposed import NOTHING, Question, Supposed
from fleetward.decision.action import DecisionRequest
from fleetward.decision.request import RequestError, parse_json, read

Form = Literal["object", "array", "lines"]


@dataclass(frozen=True)
class Request:
    """A request, and where it was found, such as `action.json:3` or `action.json[2]`."""

    where: str
    request: DecisionRequest
    supposed: Supposed


def read_requests(file: str, data: bytes) -> tuple[Form, list[Request]]:
    """Read all requests. CliError with every mistake: where, which field, what was found, what is allowed.

    A text that is one JSON value is that; otherwise, where its first line is a JSON value, each line is a request.
    """
    form, values = _values(file, data)
    requests, mistakes = [], []
    for where, value in values:
        if not isinstance(value, dict):
            mistakes.append(f"{where}: found {_kind(value)}, allowed a request as POST /v1/decisions takes it")
            continue
        try:
            requests.append(_request(where, value))
        except RequestError as error:
            mistakes.append(f"{where}: {error}")
    if mistakes:
        raise CliError("\n".join(mistakes))
    return form, requests


def _request(where: str, value: dict[str, Any]) -> Request:
    if "request" not in value:
        return Request(where, read(value, DecisionRequest), NOTHING)
    question = read(value, Question)
    return Request(where, question.request, question.supposed)


def _values(file: str, data: bytes) -> tuple[Form, list[tuple[str, Any]]]:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise CliError(f"{file}: found nothing, allowed a request, an array of requests, or one on each line")
    try:
        value = parse_json(data)
    except RequestError as error:
        return "lines", _lines(file, data, error)
    if not isinstance(value, list):
        return "object", [(file, value)]
    if not value:
        raise CliError(f"{file}: found an empty array, allowed at least one request")
    return "array", [(f"{file}[{index}]", each) for index, each in enumerate(value)]


def _lines(file: str, data: bytes, whole: RequestError) -> list[tuple[str, Any]]:
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    values, mistakes = [], []
    for number, line in lines:
        try:
            values.append((f"{file}:{number}", parse_json(line)))
        except RequestError as error:
            if number == lines[0][0]:  # no JSON lines, but one value with a mistake
                raise CliError(f"{file}: {whole}") from None
            mistakes.append(f"{file}:{number}: {error}")
    if mistakes:
        raise CliError("\n".join(mistakes))
    return values


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
