"""One policy changed among many that hold for every stream: how long until the last stream has it, in how many bytes.

The streams are real links over TLS, of real pods with their tokens, in this process; no engine is behind them. Bytes
are those that the kernel counted at this process's sockets, TLS and all.
"""

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.cluster.api import Api, connected
from bench.cluster.cluster import Cluster, Others, cluster, cpu_seconds, peak_mib, process
from bench.cluster.result import Result, millis, percentile_ms
from bench.cluster.sidecars import connected_sidecars, pods
from bench.stats import Samples
from bench.world import manifest
from fleetward.registry.slice import Slice
from fleetward.resources.names import OPERATOR
from fleetward.stream import messages

NAMESPACE = "bench"
AGENTS = 100
LEASE_SECONDS = 60
"""Longer than usual, so that hardly a renewal falls among the bytes of a change."""

WITHIN = 60.0
REST_SECONDS = 1.0
CHANGED = f"AgentPolicy/{NAMESPACE}/policy-0"
_BYTES_ACKED = 120
"""Where in Linux's `tcp_info` the bytes sent and acknowledged are, and after them the bytes received."""


class _Stream:
    """What one stream has come to have."""

    def __init__(self) -> None:
        self.slice: Slice | None = None
        self.text = ""
        """The message of the policy that is changed."""
        self.changed = asyncio.Event()
        self.changed_at = 0.0

    def take(self, slice_: Slice) -> None:
        """Take a slice as it comes into force."""
        self.slice = slice_
        if (policy := slice_.items.policies.get(CHANGED)) is not None and policy.rules[0].message != self.text:
            self.text, self.changed_at = policy.rules[0].message, time.perf_counter()
            self.changed.set()

    async def until(self, text: str) -> None:
        """Wait until it has the policy with this message."""
        while self.text != text:
            await asyncio.wait_for(self.changed.wait(), WITHIN)
            self.changed.clear()


def measure(streams: int, policies: int, rounds: int, note: Callable[[str], None]) -> Result:
    """Change one policy so often, on a control plane of their own."""
    with cluster() as own:
        own.make_namespace(NAMESPACE)
        with own.fleetward("--lease-seconds", str(LEASE_SECONDS)) as fleetward:
            return asyncio.run(_measure(own, fleetward.hub, (streams, policies, rounds), note))


def _policy(number: int, text: str = "Not in this service") -> dict[str, Any]:
    rules = [
        {"name": "deny", "match": {"names": [f"service-{number}.delete.*"]}, "decision": "Deny", "message": text},
        {"name": "read", "match": {"names": [f"service-{number}.read.*"]}, "decision": "Allow"},
    ]
    return manifest("AgentPolicy", f"policy-{number}", {"rules": rules}, NAMESPACE)


def _agent(number: int) -> dict[str, Any]:
    workload = {"selector": {"matchLabels": {"app": f"worker-{number}"}}}
    return manifest("Agent", f"worker-{number}", {"role": "Worker", "owner": "bench", "workload": workload}, NAMESPACE)


async def _measure(own: Cluster, hub: str, counts: tuple[int, int, int], note: Callable[[str], None]) -> Result:
    streams, policies, rounds = counts
    async with connected(own.plane) as api:
        await api.apply_all(map(_agent, range(AGENTS)))
        await api.apply_all(map(_policy, range(policies)))
        note(f"{streams:,} pods and streams, to which {policies:,} policies are sent ...")
        labels = [{"app": f"worker-{number % AGENTS}"} for number in range(streams)]
        async with pods(own, api, NAMESPACE, labels) as names:
            all_streams = {name: _Stream() for name in names}
            takers = {name: stream.take for name, stream in all_streams.items()}
            begun = time.perf_counter()
            async with connected_sidecars(own, api, hub, takers):
                connecting = time.perf_counter() - begun
                note(f"connected after {connecting:.1f} s; {rounds} changes ...")
                result = await _changes(api, list(all_streams.values()), int(hub.rpartition(":")[2]), rounds)
                result.add("operator's memory at most", peak_mib(process(OPERATOR)), "MiB")
                result.add("pods' tokens made and all streams opened", connecting, "s")
                return result


async def _changes(api: Api, streams: list[_Stream], port: int, rounds: int) -> Result:
    each, last, answered, received, sent, used = [], [], [], [], [], []
    operator, others = process(OPERATOR), Others()
    for number in range(rounds):
        await _quiet(port)
        before, busy, text = _socket_bytes(port), cpu_seconds(operator), f"Not in this service, since change {number}"
        start = time.perf_counter()
        await api.apply(_policy(0, text))
        answered.append(time.perf_counter() - start)
        await asyncio.gather(*(stream.until(text) for stream in streams))
        changed = [stream.changed_at - start for stream in streams]
        await asyncio.sleep(REST_SECONDS)  # the answers to the change are on their way
        after = _socket_bytes(port)
        each += changed
        last.append(max(changed))
        received.append((after[1] - before[1]) / len(streams))
        sent.append((after[0] - before[0]) / len(streams))
        used.append(cpu_seconds(operator) - busy)
    result = Result()
    result.samples = [
        millis("apply sent to its answer", answered),
        millis("apply sent to change, each stream", each),
        millis("apply sent to change, last stream", last),
    ]
    for percent in (50, 99):
        result.add(f"apply sent to change, last stream, p{percent}", percentile_ms(result.samples[2], percent), "ms")
    held = streams[0].slice
    assert held is not None
    policy, whole = (len(messages.encode(what)) for what in (held.items.policies[CHANGED], messages.Snapshot(held)))
    result.add("bytes to a stream for a change, median", _median(received), "bytes")
    result.add("bytes from a stream for a change, median", _median(sent), "bytes")
    result.add("the changed policy itself", policy, "bytes")
    result.add("all of a stream's policies, as sent once", whole, "bytes")
    result.add("operator's processor time for a change, median", _median(used) * 1000, "ms")
    result.add_others(others.processors())
    result.facts = {"streams": len(streams), "bytes to a stream": received, "bytes from a stream": sent}
    return result


async def _quiet(port: int) -> None:
    """Wait until nothing but renewals crosses the sockets."""
    before = _socket_bytes(port)
    for _ in range(int(WITHIN)):
        await asyncio.sleep(1.0)
        now = _socket_bytes(port)
        if now[1] - before[1] < 100_000:
            return
        before = now
    raise TimeoutError(f"the streams are not quiet after {WITHIN:.0f} s")


def _socket_bytes(port: int) -> tuple[int, int]:
    """Give the bytes sent (and acknowledged) and received over this process's connections to a port."""
    sent = received = 0
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            copy = os.dup(int(entry.name))
        except OSError:  # the listing's own, closed by now
            continue
        try:
            found = socket.socket(fileno=copy)
        except OSError:  # no socket
            os.close(copy)
            continue
        with found:
            if found.family == socket.AF_INET and _peer_port(found) == port:
                info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                acked, got = struct.unpack_from("QQ", info, _BYTES_ACKED)
                sent, received = sent + acked, received + got
    return sent, received


def _peer_port(found: socket.socket) -> int:
    try:
        return int(found.getpeername()[1])
    except OSError:  # it listens, or is not connected any more
        return 0


def _median(values: list[float]) -> float:
    return Samples("", values).percentile(50)
