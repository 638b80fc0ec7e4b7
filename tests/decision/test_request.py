"""Malformed requests are refused by field, with what was found and what is allowed; the rest is read as written."""

import json
from typing import Any

import pytest
from decision.build import agent, engine_of, policy
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetward.decision.action import Action, DecisionRequest, DeclaredEstimate, OutcomeRequest
from fleetward.decision.canonical import digest
from fleetward.decision.request import RequestError, parse_outcome, parse_request
from fleetward.registry.text import MAX_COUNT

ACTION = {"kind": "ToolCall", "name": "crm.read"}
NAMED = "a dotted name of letters, digits and _ : / @ + -, such as crm.customers.read"
TAGGED = "letters, digits and . _ : / - within, such as customer"
FIELDS = "kind, name, riskTags, dataClasses, target, estimate, arguments, argumentsDigest, labels, model"
TOP = "action, agent, run, grant, parent, traceparent"
AMOUNTS = "inputTokens, outputTokens, costMicroUsd, calls, records"


def _refused(body: bytes, read: Any = parse_request) -> tuple[str, str]:
    with pytest.raises(RequestError) as caught:
        read(body)
    error = caught.value
    assert str(error) == (f"{error.field}: {error.message}" if error.field else error.message)
    return error.field, error.message


def of_action(**fields: Any) -> bytes:
    return json.dumps({"action": {**ACTION, **fields}}).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON: EOF while parsing a value at line 1 column 0"),
        (b"{", "not valid JSON: EOF while parsing an object at line 1 column 1"),
        (b"kind: ToolCall", "not valid JSON: expected value at line 1 column 1"),
        (b'{"action":{}} x', "not valid JSON: trailing characters at line 1 column 15"),
        (b'\xef\xbb\xbf{"action":{}}', "not valid JSON: expected value at line 1 column 1"),
        (b"{'action': 1}", "not valid JSON: key must be a string at line 1 column 2"),
        (b'{"a":"\xff"}', "not valid JSON: invalid unicode code point at line 1 column 7"),
        (b'{"a":"\\ud800"}', "not valid JSON: unexpected end of hex escape at line 1 column 13"),
        (b'{"a":"\x00"}', "not valid JSON: control character (\\u0000-\\u001F) found while parsing a string"),
        (b'{"a":NaN}', "not valid JSON: expected value at line 1 column 6"),
        (b'{"a":-Infinity}', "not valid JSON: "),
        (b'{"a":1,"a":1}', 'not valid JSON: Detected duplicate key "a" at line 1 column 12'),
        (b'{"action":{"x":{"b":1,"b":2}}}', 'not valid JSON: Detected duplicate key "b"'),
        (b"[" * 10_000, "not valid JSON: recursion limit exceeded at line 1 column 202"),
        (b'{"a":' * 10_000, "not valid JSON: recursion limit exceeded at line 1 column 1006"),
        (b"[" * 10_000 + b"]" * 10_000, "not valid JSON: recursion limit exceeded"),
        (b"[]", "found a list; allowed: an object"),
        (b"null", "found null; allowed: an object"),
        (b'"x"', 'found "x"; allowed: an object'),
        (b"1e309", "found Infinity; allowed: an object"),
    ],
)
@pytest.mark.parametrize("read", [parse_request, parse_outcome])
def test_a_body_that_is_no_json_object(body: bytes, message: str, read: Any) -> None:
    field, said = _refused(body, read)
    assert field == ""
    assert said.startswith(message)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b"{}", "action", "is missing"),
        (b'{"action":null}', "action", "found null; allowed: an object"),
        (b'{"action":[]}', "action", "found a list; allowed: an object"),
        (b'{"action":{}}', "action.kind", "is missing"),
        (b'{"action":{"kind":"Plan"}}', "action.name", "is missing"),
        (b'{"actoin":{}}', "actoin", f"unknown field; did you mean action? allowed: {TOP}"),
        (b'{"action":{},"zzz":1}', "action.kind", "is missing"),
        (of_action(knd=1), "action.knd", f"unknown field; did you mean kind? allowed: {FIELDS}"),
        (of_action(risk_tags=[]), "action.risk_tags", f"unknown field; did you mean riskTags? allowed: {FIELDS}"),
        (of_action(zzz=[]), "action.zzz", f"unknown field; allowed: {FIELDS}"),
        (of_action(**{"x" * 500: 1}), f"action.{'x' * 193}", f"unknown field; allowed: {FIELDS}"),
        (
            of_action(kind="toolcall"),
            "action.kind",
            'found "toolcall"; allowed: ToolCall, ModelCall, Delegation, Plan, Message',
        ),
        (of_action(kind=3), "action.kind", "found 3; allowed: text"),
        (of_action(kind=None), "action.kind", "found null; allowed: text"),
        (of_action(name=""), "action.name", f'found ""; allowed: {NAMED}'),
        (of_action(name="a..b"), "action.name", f'found "a..b"; allowed: {NAMED}'),
        (of_action(name=".a"), "action.name", f'found ".a"; allowed: {NAMED}'),
        (of_action(name="a.*"), "action.name", f'found "a.*"; allowed: {NAMED}'),
        (of_action(name="a b"), "action.name", f'found "a b"; allowed: {NAMED}'),
        (of_action(name="a\n"), "action.name", f'found "a\\n"; allowed: {NAMED}'),
        (of_action(name="a\0"), "action.name", f'found "a\\u0000"; allowed: {NAMED}'),
        (of_action(name="d\u00e9j\u00e0"), "action.name", f'found "d\u00e9j\u00e0"; allowed: {NAMED}'),
        (of_action(name="x" * 257), "action.name", f'found "{"x" * 56}...; allowed: text of length <= 256'),
        (of_action(name={}), "action.name", "found an object; allowed: text"),
        (of_action(riskTags="pii"), "action.riskTags", 'found "pii"; allowed: a list'),
        (of_action(riskTags=None), "action.riskTags", "found null; allowed: a list"),
        (of_action(riskTags=[1]), "action.riskTags[0]", "found 1; allowed: text"),
        (of_action(riskTags=["a", "-b"]), "action.riskTags[1]", f'found "-b"; allowed: {TAGGED}'),
        (of_action(riskTags=["a"] * 65), "action.riskTags", "allowed: a list of length <= 64"),
        (
            of_action(dataClasses=["x" * 64]),
            "action.dataClasses[0]",
            f'found "{"x" * 56}...; allowed: text of length <= 63',
        ),
        (of_action(labels=[""]), "action.labels[0]", f'found ""; allowed: {TAGGED}'),
        (of_action(labels=["a\0"]), "action.labels[0]", f'found "a\\u0000"; allowed: {TAGGED}'),
        (
            of_action(target="-x"),
            "action.target",
            'found "-x"; allowed: letters, digits and . _ : / @ - within, such as crm',
        ),
        (of_action(target="x" * 254), "action.target", f'found "{"x" * 56}...; allowed: text of length <= 253'),
        (of_action(estimate=[]), "action.estimate", "found a list; allowed: an object or null"),
        (
            of_action(estimate={"record": 1}),
            "action.estimate.record",
            f"unknown field; did you mean records? allowed: {AMOUNTS}",
        ),
        (of_action(estimate={"records": -1}), "action.estimate.records", "found -1; allowed: a whole number >= 0"),
        (
            of_action(estimate={"calls": MAX_COUNT + 1}),
            "action.estimate.calls",
            f"found {MAX_COUNT + 1}; allowed: a whole number <= {MAX_COUNT}",
        ),
        (
            of_action(estimate={"calls": 10**30}),
            "action.estimate.calls",
            f"found {10**30}; allowed: a whole number <= {MAX_COUNT}",
        ),
        (of_action(estimate={"records": 1.5}), "action.estimate.records", "found 1.5; allowed: a whole number or null"),
        (of_action(estimate={"records": "1"}), "action.estimate.records", 'found "1"; allowed: a whole number or null'),
        (
            of_action(estimate={"records": True}),
            "action.estimate.records",
            "found true; allowed: a whole number or null",
        ),
        (
            of_action(estimate={"records": float("inf")}).replace(b"Infinity", b"1e309"),
            "action.estimate.records",
            "found Infinity; allowed: a whole number or null",
        ),
        (of_action(arguments=[]), "action.arguments", "found a list; allowed: an object or null"),
        (of_action(arguments="{}"), "action.arguments", 'found "{}"; allowed: an object or null'),
        (
            of_action(argumentsDigest="sha256:12"),
            "action.argumentsDigest",
            'found "sha256:12"; allowed: sha256: and 64 hexadecimal digits',
        ),
        (
            of_action(argumentsDigest="sha256:" + "A" * 64),
            "action.argumentsDigest",
            f'found "sha256:{"A" * 49}...; allowed: sha256: and 64 hexadecimal digits',
        ),
        (
            json.dumps({"action": ACTION, "agent": "worker"}).encode(),
            "agent",
            'found "worker"; allowed: an agent as namespace/name, such as reports/data-worker',
        ),
        (
            json.dumps({"action": ACTION, "agent": "a/b/c"}).encode(),
            "agent",
            'found "a/b/c"; allowed: an agent as namespace/name, such as reports/data-worker',
        ),
        (
            json.dumps({"action": ACTION, "run": "a b"}).encode(),
            "run",
            'found "a b"; allowed: letters, digits and . _ : / -',
        ),
        (
            json.dumps({"action": ACTION, "run": "a" * 129}).encode(),
            "run",
            f'found "{"a" * 56}...; allowed: text of length <= 128',
        ),
        (
            json.dumps({"action": ACTION, "parent": ""}).encode(),
            "parent",
            'found ""; allowed: letters, digits and . _ : / -',
        ),
        (
            json.dumps({"action": ACTION, "traceparent": "00-1-2-3"}).encode(),
            "traceparent",
            'found "00-1-2-3"; allowed: a traceparent of W3C Trace Context',
        ),
    ],
)
def test_a_malformed_decision_request(body: bytes, field: str, message: str) -> None:
    assert _refused(body) == (field, message)


ACTUAL = f"{AMOUNTS}, cachedInputTokens, reasoningTokens, durationMs"


@pytest.mark.parametrize(
    ("data", "field", "message"),
    [
        ({"actual": 1}, "actual", "found 1; allowed: an object or null"),
        ({"status": "Done"}, "status", 'found "Done"; allowed: Running, Succeeded, Failed'),
        (
            {"status": "Failed", "eror": ""},
            "eror",
            "unknown field; did you mean error? allowed: status, actual, argumentsDigest, result, error, labels",
        ),
        ({"status": "Failed", "error": "x" * 4097}, "error", f'found "{"x" * 56}...; allowed: text of length <= 4096'),
        (
            {"status": "Failed", "actual": {"durationMs": -1}},
            "actual.durationMs",
            "found -1; allowed: a whole number >= 0",
        ),
        (
            {"status": "Failed", "actual": {"duration": 1}},
            "actual.duration",
            f"unknown field; did you mean durationMs? allowed: {ACTUAL}",
        ),
        (
            {"status": "Failed", "actual": {"inputTokens": -1}},
            "actual.inputTokens",
            "found -1; allowed: a whole number >= 0",
        ),
        (
            {"actual": {"inputTokens": 5, "cachedInputTokens": 6}},
            "actual.cachedInputTokens",
            "found 6, allowed at most 5: it is a part of inputTokens",
        ),
        (
            {"actual": {"outputTokens": 0, "reasoningTokens": 1}},
            "actual.reasoningTokens",
            "found 1, allowed at most 0: it is a part of outputTokens",
        ),
        ({"status": "Failed", "labels": ["a b"]}, "labels[0]", f'found "a b"; allowed: {TAGGED}'),
        (
            {"status": "Failed", "argumentsDigest": "x"},
            "argumentsDigest",
            'found "x"; allowed: sha256: and 64 hexadecimal digits',
        ),
    ],
)
def test_a_malformed_outcome(data: Any, field: str, message: str) -> None:
    assert _refused(json.dumps(data).encode(), parse_outcome) == (field, message)


def test_a_part_may_be_the_whole_or_stand_alone() -> None:
    for actual in ({"inputTokens": 5, "cachedInputTokens": 5}, {"cachedInputTokens": 5}, {"reasoningTokens": 5}):
        assert parse_outcome(json.dumps({"actual": actual}).encode()).actual is not None


@pytest.mark.parametrize(
    ("arguments", "field", "message"),
    [
        (b'{"a":1e309}', "action.arguments.a", "found inf, allowed finite numbers"),
        (b'{"a":[-1e999]}', "action.arguments.a", "found -inf, allowed finite numbers"),
        (
            b'{"a":9007199254740992}',
            "action.arguments.a",
            "found 9007199254740992, allowed whole numbers up to 2^53 - 1; send it as a string",
        ),
        (
            b'{"a":' + b"9" * 400 + b"}",
            "action.arguments.a",
            f"found {'9' * 24}, allowed whole numbers up to 2^53 - 1; send it as a string",
        ),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "action.arguments.a.a.a", "nested deeper than 32 levels"),
    ],
)
def test_arguments_that_have_no_digest(arguments: bytes, field: str, message: str) -> None:
    """They are found when the action is judged, whatever becomes of it: an unknown or a paused agent's, too."""
    paused = agent("paused", operatingMode="Paused")
    engine = engine_of(agent(), paused, policy({"decision": "Allow"}))
    for key in ("reports/worker", "reports/paused", "reports/unknown"):
        body = b'{"agent":"%s","action":{"kind":"ToolCall","name":"a","arguments":%s}}' % (key.encode(), arguments)
        with pytest.raises(RequestError) as caught:
            engine.decide(parse_request(body))
        assert (caught.value.field, caught.value.message) == (field, message)


def test_a_digest_that_does_not_fit_the_arguments() -> None:
    engine = engine_of(agent(), policy({"decision": "Allow"}))
    body = {"action": {**ACTION, "arguments": {"a": 1}, "argumentsDigest": "sha256:" + "0" * 64}}
    with pytest.raises(RequestError) as caught:
        engine.decide(parse_request(json.dumps(body).encode()))
    assert caught.value.field == "action.argumentsDigest"
    assert caught.value.message == f"does not fit the arguments, whose digest is {digest({'a': 1})}"
    body["action"]["argumentsDigest"] = digest({"a": 1})
    evaluation = engine.decide(parse_request(json.dumps(body).encode()))
    assert evaluation.recorded_action().arguments_digest == digest({"a": 1})


def test_the_agent_may_be_left_out_where_there_is_one() -> None:
    request = parse_request(of_action())
    assert engine_of(agent(), policy({"decision": "Allow"})).decide(request).agent == "reports/worker"
    for resources, known in (((agent(), agent("b")), "reports/b, reports/worker"), ((), "no agents")):
        with pytest.raises(RequestError) as caught:
            engine_of(*resources).decide(request)
        assert (caught.value.field, caught.value.message) == ("agent", f"is missing; name one of {known}")


def test_everything_given_is_read() -> None:
    action = {
        **ACTION,
        "riskTags": ["pii"],
        "dataClasses": ["customer"],
        "target": "crm",
        "estimate": {"inputTokens": 1, "outputTokens": 2, "costMicroUsd": 3, "calls": 4, "records": 5},
        "arguments": {"a": [None, True, 1.5, "x\u00e9\u0000"]},
        "argumentsDigest": "sha256:" + "0" * 64,
        "labels": ["web"],
    }
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"action": action, "agent": "a/b", "run": "r:1", "parent": "p/1", "traceparent": traceparent}
    assert parse_request(json.dumps(body).encode()) == DecisionRequest(
        action=Action(
            kind="ToolCall",
            name="crm.read",
            risk_tags=("pii",),
            data_classes=("customer",),
            target="crm",
            estimate=DeclaredEstimate(1, 2, 3, 4, 5),
            arguments={"a": [None, True, 1.5, "x\u00e9\u0000"]},
            arguments_digest="sha256:" + "0" * 64,
            labels=("web",),
        ),
        agent="a/b",
        run="r:1",
        parent="p/1",
        traceparent=traceparent,
    )


def test_a_result_of_null_is_a_result() -> None:
    assert parse_outcome(b'{"status":"Succeeded","result":null}').result is None
    assert parse_outcome(b'{"status":"Succeeded"}') == OutcomeRequest(status="Succeeded")


@given(
    st.one_of(
        st.binary(max_size=40),
        st.text(max_size=40).map(str.encode),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(
                    st.sampled_from(["action", "kind", "name", "estimate", "records", "labels", "` - at `$.a", "$"]),
                    inner,
                    max_size=4,
                ),
            ),
            max_leaves=8,
        ).map(lambda data: json.dumps(data).encode()),
    )
)
@settings(max_examples=300)
def test_whatever_the_body_only_a_request_error_comes_of_it(body: bytes) -> None:
    for read in (parse_request, parse_outcome):
        try:
            read(body)
        except RequestError as error:
            said = error
        else:
            continue
        assert said.message
        assert len(said.field) <= 200
