"""Startup, readiness and liveness probes, really made."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

EAGER = 0.1
"""Seconds between two probes until the first one succeeds; the kubelet waits the whole period."""

Probe = Mapping[str, Any]
Run = Callable[[list[str]], Awaitable[int]]


class Prober:
    """Makes the probes of one container at the pod's address."""

    def __init__(self, container: Mapping[str, Any], address: str, run: Run) -> None:
        self._ports = {p["name"]: p["containerPort"] for p in container.get("ports") or () if "name" in p}
        self._address, self._run = address, run

    async def watch(self, probe: Probe, tell: Callable[[bool], None]) -> None:
        """Make a probe again and again, telling each change, until cancelled.

        A failure is told once there were `failureThreshold` in a row, which before the first success is when
        that many periods are over.
        """
        period, threshold = float(probe.get("periodSeconds") or 10), int(probe.get("failureThreshold") or 3)
        await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
        succeeded, failures, told = False, 0.0, None
        while True:
            if await self._once(probe):
                succeeded, failures = True, 0.0
                if told is not True:
                    tell(told := True)
            else:
                failures += 1 if succeeded else EAGER / period
                if failures >= threshold and told is not False:
                    tell(told := False)
            await asyncio.sleep(period if succeeded else EAGER)

    async def _once(self, probe: Probe) -> bool:
        seconds = float(probe.get("timeoutSeconds") or 1)
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(probe)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def _ask(self, probe: Probe) -> bool:
        if "exec" in probe:
            return await self._run(probe["exec"]["command"]) == 0
        if "tcpSocket" in probe:
            target = probe["tcpSocket"]
            _, writer = await asyncio.open_connection(target.get("host") or self._address, self._port(target))
            writer.close()
            return True
        if "httpGet" not in probe:
            return False  # gRPC: a probe that this node cannot make has not succeeded
        target = probe["httpGet"]
        scheme = target.get("scheme", "HTTP").lower()
        url = f"{scheme}://{target.get('host') or self._address}:{self._port(target)}{target.get('path', '/')}"
        headers = {header["name"]: header["value"] for header in target.get("httpHeaders") or ()}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(url, ssl=_unverified(), allow_redirects=False) as answer,
        ):
            return 200 <= answer.status < 400

    def _port(self, target: Mapping[str, Any]) -> int:
        port = target["port"]
        return port if isinstance(port, int) else int(self._ports.get(port, 0))


def _unverified() -> ssl.SSLContext:
    """Probes do not verify certificates, in Kubernetes neither."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
