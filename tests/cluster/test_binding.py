"""A sidecar is let in by what the API server says of its token, for its own pod, and for nothing else."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client import ApiClient
from support.clusterpods import apply, get_pod, make_pod, pod_token, set_phase
from support.clusterview import View, resource
from support.controlplane.plane import ControlPlane, connected
from support.streams import until

from fleetward_operator.cluster.podbinding import PodBinding
from fleetward_operator.view.pods import read_pod

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

GOVERNED = {"role": "Worker", "workload": {"selector": {"matchLabels": {"app": "alpha"}}}}


class World:
    """A namespace with one agent and its pod, and a binding that sees both."""

    def __init__(self, plane: ControlPlane, api: ApiClient, namespace: str) -> None:
        self.plane, self.api, self.namespace = plane, api, namespace
        self.view = View()
        self.now = 0.0
        self.binding = PodBinding(api, self.view.pods, lambda: self.view.registry, clock=lambda: self.now)

    def key(self, pod: str = "alpha-1") -> str:
        return f"{self.namespace}/{pod}"

    def token(self, pod: str | None = "alpha-1", **asked: str) -> str:
        return pod_token(self.plane, self.namespace, pod, **asked)

    def make_pod(self, name: str = "alpha-1", app: str = "alpha") -> str:
        return make_pod(self.plane, self.namespace, name, app)

    async def see(self) -> None:
        await self.view.read(self.api, self.namespace)

    async def refusal(self, token: str | None, workload: str = "") -> str:
        with pytest.raises(PermissionError) as refused:
            await self.binding.authenticate(workload or self.key(), token)
        assert type(refused.value) is PermissionError
        return str(refused.value)

    def agents(self, pod: str = "alpha-1") -> list[str]:
        return sorted(self.binding.agents(self.key(pod), self.view.registry))


@pytest.fixture
async def world(plane: ControlPlane, namespace: str) -> AsyncIterator[World]:
    apply(plane, resource("Agent", "alpha", GOVERNED, namespace=namespace))
    async with plane.api() as api:
        world = World(plane, api, namespace)
        world.make_pod()
        await world.see()
        yield world


async def test_a_pod_speaks_for_its_agents(world: World) -> None:
    await world.binding.authenticate(world.key(), world.token())
    assert world.agents() == [f"{world.namespace}/alpha"]
    apply(world.plane, resource("Agent", "beta", GOVERNED, namespace=world.namespace))
    await world.see()
    assert world.agents() == [f"{world.namespace}/alpha", f"{world.namespace}/beta"]
    assert world.binding.refused == 0


async def test_without_a_token_nobody_is_let_in(world: World) -> None:
    assert "no bearer token" in await world.refusal(None)
    assert "no bearer token" in await world.refusal("")
    assert world.binding.refused == 2


async def test_what_the_api_server_did_not_issue_is_refused(world: World) -> None:
    for forged in ("forged", _altered(world.token())):
        assert "the API server does not accept the token" in await world.refusal(forged)


async def test_a_token_for_another_audience_is_refused(world: World) -> None:
    said = await world.refusal(world.token(audience="https://kubernetes.default.svc"))
    assert "audience fleetward" in said
    assert "https://kubernetes.default.svc" in said


async def test_a_token_bound_to_no_pod_is_refused(world: World) -> None:
    assert "is bound to no pod" in await world.refusal(world.token(None))


async def test_a_pod_cannot_speak_for_another(world: World) -> None:
    world.make_pod("alpha-2")
    await world.see()
    said = await world.refusal(world.token("alpha-2"))
    assert said == f"the token is the pod {world.key('alpha-2')}'s, and cannot speak for '{world.key()}'"


async def test_a_token_dies_with_its_pod_and_is_not_the_next_one_s_of_that_name(world: World) -> None:
    token = world.token()
    await world.binding.authenticate(world.key(), token)
    await _delete(world, "alpha-1")
    await world.see()
    # The API server itself goes on believing a token for up to ten seconds after it judged it.
    gone = "there is no pod", "the API server does not accept the token"
    assert (await world.refusal(token)).startswith(gone)

    world.make_pod()
    await world.see()
    replaced = "the token is for an earlier pod", "the API server does not accept the token"
    assert (await world.refusal(token)).startswith(replaced)
    await world.binding.authenticate(world.key(), world.token())


async def test_a_sidecar_of_a_pod_that_is_gone_or_replaced_serves_nothing_more(world: World) -> None:
    await world.binding.authenticate(world.key(), world.token())
    await _delete(world, "alpha-1")
    world.make_pod()
    await world.see()
    with pytest.raises(LookupError, match="was replaced by another one of its name"):
        world.agents()

    await world.binding.authenticate(world.key(), world.token())
    await _delete(world, "alpha-1")
    await world.see()
    with pytest.raises(LookupError, match="is gone"):
        world.agents()
    with pytest.raises(LookupError, match="no sidecar of the pod"):
        world.agents()


async def test_a_fresh_pod_is_let_in_before_the_watch_has_shown_it(world: World) -> None:
    world.make_pod("alpha-2")
    assert world.view.pods.get(world.namespace, "alpha-2") is None
    await world.binding.authenticate(world.key("alpha-2"), world.token("alpha-2"))
    assert world.agents("alpha-2") == [f"{world.namespace}/alpha"]
    world.now = 31.0
    with pytest.raises(LookupError, match="is gone"):
        world.agents("alpha-2")


async def test_a_fresh_pod_in_an_old_one_s_place_is_let_in_before_the_watch_has_shown_it(world: World) -> None:
    old = get_pod(world.plane, world.namespace, "alpha-1")
    assert old is not None
    await _delete(world, "alpha-1")
    uid = world.make_pod()
    assert world.view.pods.get(world.namespace, "alpha-1") == read_pod(old)
    await world.binding.authenticate(world.key(), world.token())
    assert world.agents() == [f"{world.namespace}/alpha"]
    await world.see()
    known = world.view.pods.get(world.namespace, "alpha-1")
    assert known is not None
    assert known.uid == uid
    assert world.agents() == [f"{world.namespace}/alpha"]


async def test_a_pod_that_no_agent_selects_is_refused(world: World) -> None:
    world.make_pod("other", app="other")
    said = await world.refusal(world.token("other"), world.key("other"))
    assert f"no Agent selects the pod {world.key('other')} (service account default)" in said


async def test_a_pod_of_an_excluded_namespace_is_refused(world: World) -> None:
    world.plane.kubectl("label", "namespace", world.namespace, "fleetward.dev/injection=disabled")
    await world.see()
    assert "is labelled fleetward.dev/injection: disabled" in await world.refusal(world.token())


async def test_a_pod_that_is_over_is_refused(world: World) -> None:
    token = world.token()
    set_phase(world.plane, world.namespace, "alpha-1", "Failed")
    await world.see()
    assert "is over (Failed)" in await world.refusal(token)


async def test_where_the_api_server_does_not_tell_nobody_is_let_in(world: World, plane: ControlPlane) -> None:
    token = world.token()
    async with connected(plane.kubeconfig_for(world.namespace, "default")) as powerless:
        binding = PodBinding(powerless, world.view.pods, lambda: world.view.registry)
        with pytest.raises(ConnectionError, match=r"create tokenreviews\): 403") as refused:
            await binding.authenticate(world.key(), token)
        assert not isinstance(refused.value, PermissionError)
    await world.binding.authenticate(world.key(), token)


async def test_many_at_once_are_all_answered(world: World) -> None:
    token = world.token()
    async with asyncio.timeout(30):
        await asyncio.gather(*(world.binding.authenticate(world.key(), token) for _ in range(100)))
    assert world.agents() == [f"{world.namespace}/alpha"]


async def _delete(world: World, pod: str) -> None:
    world.plane.request("DELETE", f"/api/v1/namespaces/{world.namespace}/pods/{pod}?gracePeriodSeconds=0")
    await until(lambda: get_pod(world.plane, world.namespace, pod) is None)


def _altered(token: str) -> str:
    """Claim another pod under the signature of the first."""
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["kubernetes.io"]["pod"]["name"] = "alpha-2"
    altered = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"{head}.{altered}.{signature}"
