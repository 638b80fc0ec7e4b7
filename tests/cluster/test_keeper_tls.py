"""The Secrets on a real API server: made, renewed, and put right, by however many who think that they lead."""

import asyncio
import base64
import datetime as dt
import json
import socket
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import verification
from kubernetes.aio.client import ApiClient
from support.controlplane.plane import ControlPlane
from support.streams import until

from fleetward_operator.cluster.hubtls import HubCertificate, hub_tls
from fleetward_operator.keeper.certificates import AUTHORITY_LIFE, PUBLISHED, read_certificates
from fleetward_operator.keeper.settings import KeeperSettings
from fleetward_operator.keeper.tls import keep_tls
from fleetward_operator.kube.objects import NotLeadingError, Objects

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
CA, HUB, ADMISSION = "fleetward-ca", "fleetward-hub-tls", "fleetward-admission-tls"


def secret(plane: ControlPlane, namespace: str, name: str) -> dict[str, bytes]:
    body = json.loads(plane.kubectl("get", "secret", name, "-n", namespace, "-o", "json"))
    return {key: base64.b64decode(value) for key, value in body["data"].items()}


def versions(plane: ControlPlane, namespace: str) -> list[str]:
    path = "jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion},{end}"
    return plane.kubectl("get", "secrets", "-n", namespace, "-o", path).split(",")


def edit(plane: ControlPlane, namespace: str, name: str, **data: bytes) -> None:
    encoded = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
    patch = json.dumps({"data": encoded})
    plane.kubectl("patch", "secret", name, "-n", namespace, "--type", "merge", "-p", patch)


async def keep(api: ApiClient, namespace: str, now: dt.datetime = NOW, **settings: Any) -> bytes:
    return await keep_tls(Objects(api), KeeperSettings("image", namespace=namespace, **settings), now)


def verify(plane: ControlPlane, namespace: str, bundle: bytes, now: dt.datetime = NOW) -> None:
    for name in (HUB, ADMISSION):
        data = secret(plane, namespace, name)
        store = verification.Store(read_certificates(bundle))
        service = x509.DNSName(f"{name.removesuffix('-tls')}.{namespace}.svc")
        verifier = verification.PolicyBuilder().store(store).time(now).build_server_verifier(service)
        verifier.verify(read_certificates(data["tls.crt"])[0], [])


async def test_made_once_and_left_alone(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        bundle = await keep(api, namespace)
        verify(plane, namespace, bundle)
        for name in (CA, HUB, ADMISSION):
            assert secret(plane, namespace, name)["ca.crt"] == bundle
        before = versions(plane, namespace)
        assert await keep(api, namespace, NOW + 30 * DAY) == bundle
        assert versions(plane, namespace) == before
        await keep(api, namespace, NOW + 61 * DAY)
        assert versions(plane, namespace) != before
        verify(plane, namespace, bundle, NOW + 100 * DAY)


async def test_the_cas_key_is_in_its_own_secret_alone(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        await keep(api, namespace)
    key = secret(plane, namespace, CA)["tls.key"]
    assert key not in {*secret(plane, namespace, HUB).values(), *secret(plane, namespace, ADMISSION).values()}


async def test_many_who_think_they_lead_agree(plane: ControlPlane, namespace: str) -> None:
    """Each reads, decides and writes at once; who was slower takes over what the other one wrote."""
    async with plane.api() as api:
        for now in (NOW, NOW + 61 * DAY, NOW + 0.8 * AUTHORITY_LIFE, NOW + 0.8 * AUTHORITY_LIFE + PUBLISHED):
            bundles = await asyncio.gather(*(keep(api, namespace, now) for _ in range(3)))
            assert len(set(bundles)) == 1
            before = versions(plane, namespace)
            assert await keep(api, namespace, now) == bundles[0]
            assert versions(plane, namespace) == before
            verify(plane, namespace, bundles[0], now)


async def test_more_names(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        await keep(api, namespace)
        before = secret(plane, namespace, ADMISSION)
        await keep(api, namespace, hub_names=("10.1.2.3", "hub.example"))
        names = read_certificates(secret(plane, namespace, HUB)["tls.crt"])[0].extensions
        text = str(names.get_extension_for_class(x509.SubjectAlternativeName).value)
        assert "10.1.2.3" in text
        assert "hub.example" in text
        assert f"fleetward-hub.{namespace}.svc.cluster.local" in text
        assert secret(plane, namespace, ADMISSION) == before


async def test_the_ca_is_rotated_with_both_trusted(plane: ControlPlane, namespace: str) -> None:
    late = NOW + 0.8 * AUTHORITY_LIFE
    async with plane.api() as api:
        first = await keep(api, namespace)
        both = await keep(api, namespace, late)
        assert both.startswith(first)
        assert len(read_certificates(both)) == 2
        old = secret(plane, namespace, CA)["tls.key"]
        after = await keep(api, namespace, late + PUBLISHED)
        assert set(read_certificates(after)) == set(read_certificates(both))
        data = secret(plane, namespace, CA)
        assert data["tls.key"] != old
        assert data.keys() == {"tls.crt", "tls.key", "ca.crt"}
        verify(plane, namespace, first, late + PUBLISHED)
        assert len(read_certificates(await keep(api, namespace, NOW + AUTHORITY_LIFE + DAY))) == 1


@pytest.mark.parametrize("name", [HUB, ADMISSION])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"tls_crt": b"garbage"}, "no certificate in PEM"),
        ({"tls_key": b"garbage"}, "no private key in PEM"),
        ({"tls_key": b""}, "no private key in PEM"),
        ({"ca_crt": b"garbage"}, "the bundle of CAs put right"),
        ({}, "there was none"),
    ],
)
async def test_damage_to_a_leaf_is_put_right_and_told(
    plane: ControlPlane,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
    *,
    name: str,
    damage: dict[str, bytes],
    told: str,
) -> None:
    caplog.set_level("INFO")
    async with plane.api() as api:
        bundle = await keep(api, namespace)
        if damage:
            edit(plane, namespace, name, **damage)
        else:
            plane.kubectl("delete", "secret", name, "-n", namespace)
        caplog.clear()
        assert await keep(api, namespace) == bundle
        verify(plane, namespace, bundle)
        assert secret(plane, namespace, name)["ca.crt"] == bundle
        said = [record.getMessage() for record in caplog.records if "Secret" in record.getMessage()]
        assert len(said) == 1
        assert f"Secret {namespace}/{name}" in said[0]
        assert told in said[0]


@pytest.mark.parametrize("damage", [{}, {"tls_crt": b"garbage"}, {"tls_key": b""}])
async def test_a_lost_ca_leaves_what_it_signed_trusted(
    plane: ControlPlane, namespace: str, damage: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with plane.api() as api:
        old = await keep(api, namespace)
        leaf = secret(plane, namespace, HUB)["tls.crt"]
        if damage:
            edit(plane, namespace, CA, **damage)
        else:
            plane.kubectl("delete", "secret", CA, "-n", namespace)
        new = await keep(api, namespace)
        assert new.endswith(old)
        assert len(read_certificates(new)) == 2
        assert secret(plane, namespace, HUB)["tls.crt"] == leaf, "who trusts the old CA still reaches the hub"
        assert "a new CA, as" in caplog.text
        verify(plane, namespace, new)


async def test_immutable_secrets_are_replaced(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        await keep(api, namespace)
        edit(plane, namespace, HUB, tls_crt=b"garbage")
        plane.kubectl("patch", "secret", HUB, "-n", namespace, "--type", "merge", "-p", '{"immutable":true}')
        verify(plane, namespace, await keep(api, namespace))


async def test_who_does_not_lead_writes_nothing(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        with pytest.raises(NotLeadingError):
            await keep_tls(Objects(api, lambda: False), KeeperSettings("image", namespace=namespace), NOW)
    assert CA not in plane.kubectl("get", "secrets", "-n", namespace, "-o", "name")


async def test_every_replica_serves_the_newest_certificate(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api:
        assert await hub_tls(api, namespace) is None
        certificate = HubCertificate(api, namespace, period=0.1)
        running = asyncio.create_task(certificate.run())
        await until(lambda: "holds no certificate" in certificate.problem)
        await keep(api, namespace, hub_names=("localhost",))
        server = await asyncio.start_server(_hang_up, "127.0.0.1", 0, ssl=await certificate.ready())
        port = server.sockets[0].getsockname()[1]
        try:
            served = await _served(port, certificate.trust)
            assert certificate.problem == ""
            edit(plane, namespace, HUB, tls_crt=b"garbage")
            await until(lambda: "no usable certificate" in certificate.problem)
            assert await _served(port, certificate.trust) == served, "what was good stays"

            await keep(api, namespace, hub_names=("localhost",))
            await until(lambda: not certificate.problem)
            assert await _served(port, certificate.trust) != served

            nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            with pytest.raises(ssl.SSLCertVerificationError):
                await _served(port, nobody)
        finally:
            running.cancel()
            server.close()


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _served(port: int, trust: ssl.SSLContext) -> bytes | None:
    def connect() -> bytes | None:
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            return tls.getpeercert(binary_form=True)

    return await asyncio.to_thread(connect)
