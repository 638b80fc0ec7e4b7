"""The stream over TLS: whom a sidecar trusts, what it presents, and how both are replaced while it runs."""

import re
import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from support import make
from support.certificates import Authority
from support.gate import Gate
from support.streams import Sidecar, World, until

from fleetward.registry.registry import Upsert
from fleetward_operator.hub.server import HubServer
from fleetward_operator.hub.tls import load_certificate, server_context
from fleetward_webhook.sidecar.credentials import Credentials

TOKEN = "the-first-token"  # noqa: S105 - guards nothing


class Secured:
    """A world whose hub is reached over TLS, and the files that its sidecars read."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ca = Authority(world.directory / "ca")
        self.gate = Gate()
        self.gate.tokens[TOKEN] = "alpha"
        self.credentials = Credentials(world.directory / "ca.crt", world.directory / "token")
        self.credentials.ca_file.write_bytes(self.ca.pem)
        self.credentials.token_file.write_text(TOKEN + "\n")
        self.context = self.ca.context("localhost")

    async def up(self, **options: object) -> None:
        if not self.world.address.startswith("https"):
            self.world.address = "https://localhost:0"
        await self.world.hub_up(make.registry(), binding=self.gate, server={"ssl": self.context}, **options)

    def sidecar(self, **where: str) -> Sidecar:
        return self.world.sidecar(credentials=self.credentials, **where)

    async def connected(self, **where: str) -> Sidecar:
        return await self.world.connected(credentials=self.credentials, **where)


@pytest.fixture
def secured(world: World) -> Secured:
    return Secured(world)


async def test_all_that_a_stream_does_it_does_over_tls(secured: Secured) -> None:
    world = secured.world
    await secured.up(ttl=1.0)
    sidecar = await secured.connected()
    assert secured.gate.asked == [TOKEN]
    sidecar.write(100)
    await until(lambda: world.stored(sidecar.spool.writer) == list(range(1, 101)))
    world.hub.publish(world.registry.apply([Upsert(make.agent("alpha", operatingMode="Paused"))]))
    await until(lambda: sidecar.slices[-1].items.agents["reports/alpha"].mode.operating_mode == "Paused")
    token = sidecar.authority._token
    await until(lambda: sidecar.authority._token > token)
    await world.hub_down()
    await until(lambda: not sidecar.authority.live())
    await secured.up()
    await until(sidecar.authority.live)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("another CA", "certificate is not accepted, by .*ca.crt: "),
        ("another host", "Hostname mismatch, certificate is not valid for 'localhost'"),
        ("only the common name", "certificate is not accepted"),
        ("expired", "certificate has expired"),
    ],
)
async def test_a_hub_that_is_not_the_one_meant_gets_no_token(secured: Secured, case: str, said: str) -> None:
    match case:
        case "another CA":
            secured.context = Authority(secured.world.directory / "other").context("localhost")
        case "another host":
            secured.context = secured.ca.context("hub.example", "127.0.0.1")
        case "only the common name":
            secured.context = secured.ca.context("fleetward test hub")
        case "expired":
            secured.context = secured.ca.context("localhost", days=-1)
    await secured.up()
    sidecar = secured.sidecar()
    await until(lambda: sidecar.link.problem)
    assert re.search(said, sidecar.link.problem)
    assert sidecar.link.problem in sidecar.authority.lost_reason()
    assert secured.gate.asked == []
    assert not sidecar.authority.live()


async def test_a_hub_that_speaks_an_old_tls_is_not_spoken_to(secured: Secured) -> None:
    secured.context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        secured.context.maximum_version = ssl.TLSVersion.TLSv1_1
    await secured.up()
    sidecar = secured.sidecar()
    await until(lambda: "cannot reach https://localhost" in sidecar.link.problem)
    assert secured.gate.asked == []


def test_a_hub_takes_no_old_tls(secured: Secured) -> None:
    assert secured.context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_certificate_replaced_while_the_hub_runs_is_shown_to_new_connections_only(secured: Secured) -> None:
    await secured.up()
    first = await secured.connected(name="first")
    next_ca = Authority(secured.world.directory / "next", "next")
    # As in a rotation: both CAs are trusted before the certificate is replaced, the old one goes after it.
    secured.credentials.ca_file.write_bytes(secured.ca.pem + next_ca.pem)
    second = await secured.connected(name="second")
    next_ca.rotate(secured.context, "localhost")
    third = await secured.connected(name="third")
    secured.credentials.ca_file.write_bytes(next_ca.pem)
    fourth = await secured.connected(name="fourth")
    assert all(sidecar.link.connected for sidecar in (first, second, third, fourth))
    secured.credentials.ca_file.write_bytes(secured.ca.pem)
    fifth = secured.sidecar(name="fifth")
    await until(lambda: "certificate is not accepted" in fifth.link.problem)
    assert first.link.connected


async def test_a_certificate_that_does_not_fit_its_key_changes_nothing(secured: Secured) -> None:
    await secured.up()
    chain, _ = secured.ca.issue("localhost", file="one")
    _, key = secured.ca.issue("localhost", file="two")
    with pytest.raises(ValueError, match=r"one\.crt with the key .*two\.key cannot be used"):
        load_certificate(secured.context, chain, key)
    with pytest.raises(ValueError, match=r"none\.crt"):
        server_context(secured.world.directory / "none.crt", key)
    assert (await secured.connected()).link.connected


async def test_a_new_token_is_presented_at_the_next_connection(secured: Secured) -> None:
    await secured.up()
    sidecar = await secured.connected()
    secured.gate.tokens = {"the-second-token": "alpha"}
    secured.credentials.token_file.write_text("the-second-token")
    secured.world.hub.close_workload("alpha", "come again")
    await until(lambda: secured.gate.asked == [TOKEN, "the-second-token"])
    await until(sidecar.authority.live)


@pytest.mark.parametrize(
    ("which", "content", "said"),
    [
        ("ca", None, "cannot read the hub's CA certificates from .*ca.crt: No such file"),
        ("ca", b"", "ca.crt, for the hub's CA certificates, is empty"),
        ("ca", b"hello", "ca.crt holds no CA certificates in PEM form"),
        ("ca", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ca.crt holds no CA certificates"),
        ("ca", b"\xff\xfe", "ca.crt, .* holds bytes that are not ASCII"),
        ("token", None, "cannot read the token for the hub from .*token: No such file"),
        ("token", b" \n", "token, for the token for the hub, is empty"),
        ("token", b"one\nX-Admin: yes", "token holds more than a token"),
        ("token", b"t" * 8000, "token holds a token of 8000 characters"),
        ("token", b"t" * (2**20 + 1), "is longer than 1048576 bytes"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named_and_tried_again(
    secured: Secured, which: str, content: bytes | None, said: str
) -> None:
    await secured.up()
    file: Path = getattr(secured.credentials, f"{which}_file")
    right = _put(file, content)
    sidecar = secured.sidecar()
    await until(lambda: sidecar.link.problem)
    assert re.search(said, sidecar.link.problem)
    assert secured.gate.asked == []
    _put(file, right)
    await until(sidecar.authority.live)
    assert sidecar.link.problem == ""


def _put(file: Path, content: bytes | None) -> bytes | None:
    """Give the file this content, or take it away; return what it held."""
    held = file.read_bytes() if file.exists() else None
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    return held


async def test_who_speaks_no_tls_gets_nowhere_and_harms_nobody(secured: Secured) -> None:
    await secured.up()
    plain = secured.world.address.replace("https", "http")
    async with aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await session.get(f"{plain}/v1/stream")
    assert (await secured.connected()).link.connected


async def test_routes_of_the_caller_are_served_beside_the_stream(secured: Secured) -> None:
    async def status(request: web.Request) -> web.Response:
        return web.json_response({"version": secured.world.hub.status().version})

    hub = await secured.world.hub_up(make.registry())
    async with HubServer(
        hub,
        "https://localhost:0",
        ssl=secured.context,
        routes=[web.get("/v1/status", status)],
    ) as server:
        trusting = ssl.create_default_context(cafile=str(secured.ca.file))
        async with aiohttp.ClientSession() as session, session.get(f"{server.address}/v1/status", ssl=trusting) as got:
            assert await got.json() == {"version": secured.world.registry.version}


@pytest.mark.parametrize("address", ["unix:///tmp/hub.sock", "http://127.0.0.1:0"])
async def test_a_certificate_goes_with_https_only(secured: Secured, address: str) -> None:
    hub = await secured.world.hub_up(make.registry())
    with pytest.raises(ValueError, match="a certificate is of use with https only"):
        HubServer(hub, address, ssl=secured.context)
    with pytest.raises(ValueError, match="https needs a certificate"):
        HubServer(hub, "https://localhost:0")


async def test_no_more_streams_than_allowed(world: World) -> None:
    await world.hub_up(make.registry(("alpha", "beta")), server={"max_links": 1})
    await world.connected()
    other = world.sidecar("beta")
    await until(lambda: "503" in other.link.problem)
