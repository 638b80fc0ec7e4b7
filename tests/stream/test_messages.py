import subprocess
import sys
from typing import Any

import msgspec
import pytest

from fleetward.registry.slice import Agent, Change, Items, Slice
from fleetward.stream import messages


def agent(**changes: Any) -> Agent:
    fields: dict[str, Any] = {"name": "a", "namespace": "n", "role": "Worker", "owner": "", "risk_tier": "Low"}
    return Agent(**fields | changes)


TO_HUB = [
    messages.Hello(
        protocol=messages.PROTOCOL, workload="w", writer="x", spooled=3, held=messages.Held("v", {"agents": {}})
    ),
    messages.Renew(token=1.25, spooled=0),
    messages.Applied(version="v"),
]
TO_SIDECAR = [
    messages.Snapshot(slice=Slice(version="v", items=Items(agents={"n/a": agent()}))),
    messages.Update(base="u", change=Change(version="v")),
    messages.Renewed(token=12345.678901, ttl=5.0, version="v"),
    messages.Withheld(token=0.1, reason="r"),
    messages.Acknowledged(seq=7),
    messages.Refused(reason="r"),
    messages.Reconnect(reason="r"),
]


@pytest.mark.parametrize("message", TO_HUB)
def test_to_hub_and_back(message: messages.ToHub) -> None:
    assert messages.decode_to_hub(messages.encode(message)) == message


@pytest.mark.parametrize("message", TO_SIDECAR)
def test_to_sidecar_and_back(message: messages.ToSidecar) -> None:
    assert messages.decode_to_sidecar(messages.encode(message)) == message


def test_records_travel_byte_for_byte() -> None:
    lines = [b'{"b":1, "a" : [1e3]}', b'{"\\u0061":"\xc3\xa9"}']
    sent = messages.encode(messages.Records(records=tuple(map(msgspec.Raw, lines))))
    received = messages.decode_to_hub(sent.decode())
    assert isinstance(received, messages.Records)
    assert [bytes(record) for record in received.records] == lines


def test_a_digest_depends_on_the_content_and_not_on_the_order_of_keys() -> None:
    one, other = agent(labels={"a": "1", "b": "2"}), agent(labels={"b": "2", "a": "1"})
    assert messages.digest(one) == messages.digest(other)
    assert messages.digest(one) != messages.digest(agent(labels={"a": "1", "b": "3"}))
    again = msgspec.json.decode(messages.encode(one), type=Agent)
    assert messages.digest(again) == messages.digest(one)


def test_what_is_held_names_every_part() -> None:
    slice_ = Slice(version="v", items=Items(agents={"n/a": agent()}, roles={"n/b": "Planner"}))
    held = messages.held(slice_)
    assert held.version == "v"
    assert set(held.digests) == {"agents", "policies", "catalogs", "roles", "principals", "budgets"}
    assert held.digests["agents"] == {"n/a": messages.digest(agent())}


def test_a_sidecars_side_of_the_stream_loads_no_heavy_library() -> None:
    code = (
        "import sys, fleetward_webhook.sidecar.link;"
        "heavy = {'pydantic', 'yaml', 'click', 'rich', 'sqlite3', 'google.protobuf', 'fleetward.resources'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
