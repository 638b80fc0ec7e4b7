"""The loop that keeps everything right: level-triggered, by the leader alone."""

import asyncio
import contextlib
import datetime as dt
import logging
import time
from collections.abc import Callable, Collection

from kubernetes.aio.client import ApiClient

from fleetward.resources.names import GOVERNED_PODS_POLICY, INJECTED_PODS_POLICY, OPERATOR, WEBHOOK_CONFIGURATION
from fleetward_operator.cluster.election import Election
from fleetward_operator.keeper import governedpods, injectedpods, webhooks
from fleetward_operator.keeper.ensure import Ensure, owner_reference
from fleetward_operator.keeper.problems import Problems
from fleetward_operator.keeper.proof import Proof, tell, try_validation
from fleetward_operator.keeper.quarantine import keep_quarantine
from fleetward_operator.keeper.settings import KeeperSettings
from fleetward_operator.keeper.tls import keep_tls
from fleetward_operator.keeper.trust import keep_trust
from fleetward_operator.kube.objects import (
    BINDING,
    CLUSTER_ROLE,
    CRD,
    MUTATING,
    POLICY,
    VALIDATING,
    Body,
    NotLeadingError,
    Objects,
)
from fleetward_operator.view.quarantine import Cuts, Quarantines

GAP = 1.0
"""Seconds between rounds at least, however often it is woken."""

FIRST_RETRY = 1.0
"""Seconds until the next round after one that failed; twice as long after each further one, up to the period."""

PROOF_RETRY = 5.0
"""Seconds at most until validation is tried again that did not refuse."""

PROOF_SETTLES = 10.0
"""Seconds for which validation may fail before that is a problem: configurations take a moment to be in force."""

OWNER = f"ClusterRole {OPERATOR}"
QUARANTINE = "quarantine"
CERTIFICATES = "certificates"
TRUST = "trust"
WEBHOOKS = "webhook configurations"
VALIDATION = "validation"
GOVERNED_PODS = "governed pods"

_log = logging.getLogger(__name__)


class Keeper:
    """Keeps quarantine, certificates, trust, webhook configurations and admission policy right while `election` leads.

    `namespaces` gives the namespaces with an Agent that has a workload, `quarantines` where something is quarantined;
    both give None while that is not known yet.
    """

    def __init__(
        self,
        api: ApiClient,
        settings: KeeperSettings,
        election: Election,
        namespaces: Callable[[], Collection[str] | None],
        quarantines: Callable[[], Quarantines | None],
    ) -> None:
        self._objects = Objects(api, may_write=lambda: election.leading)
        self._settings = settings
        self._election = election
        self._namespaces = namespaces
        self._quarantines = quarantines
        self._ensure = Ensure(self._objects)
        self._problems = Problems()
        self._proof: Proof | None = None
        self._owned = False
        self._woken = asyncio.Event()
        self.cuts: Cuts = {}
        """Where the NetworkPolicy for quarantine stands, as far as this replica leads and has looked."""
        self.rounds = 0
        """How many rounds it has made as leader."""
        election.on_change(lambda _: self.wake())

    @property
    def problems(self) -> dict[str, str]:
        """What is not right, by what it is about; empty where all is, or where this replica does not lead."""
        return dict(self._problems.current)

    def wake(self) -> None:
        """Have it look again soon."""
        self._woken.set()

    async def run(self) -> None:
        """Keep everything right until cancelled."""
        failed = 0
        while True:
            self._woken.clear()
            if self._election.leading:
                await self._round()
                failed = failed + 1 if self._problems.current else 0
            else:
                failed, self._proof, self.cuts = 0, None, {}
                self._problems.clear()
            await self._rest(failed)

    async def _rest(self, failed: int) -> None:
        """Wait for the next round."""
        pause = self._settings.period
        if failed:
            pause = min(FIRST_RETRY * 2.0 ** min(failed - 1, 10), pause)
        if self._proof is not None and self._proof.why:
            pause = min(PROOF_RETRY, pause)
        if self._problems.retry_after:  # the API server is overloaded, and being woken would not help it
            await asyncio.sleep(min(self._problems.retry_after, self._settings.period))
            return
        await asyncio.sleep(min(GAP, pause))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(pause - GAP, 0)):
                await self._woken.wait()

    async def _round(self) -> None:
        """Look at everything once. What fails keeps only that from being put right which depends on it."""
        problems = self._problems
        problems.begin()
        try:
            with problems.about(OWNER):
                owner = await owner_reference(self._objects, CLUSTER_ROLE, OPERATOR)
                if owner is None and self._owned:
                    # What was made now would have no owner, and stay behind for ever.
                    problems.note(OWNER, "it is gone, so Fleetward is being uninstalled and nothing is put right")
                else:
                    self._owned = owner is not None
                    await self._keep(owner)
                    problems.end()
            self.rounds += 1
        except NotLeadingError:
            _log.info("keeper: another replica leads; the rest of this round is its business")

    async def _keep(self, owner: Body | None) -> None:
        problems, settings, bundle = self._problems, self._settings, b""
        with problems.about(QUARANTINE):
            if (wanted := self._quarantines()) is not None:
                self.cuts = await keep_quarantine(self._objects, problems, wanted, owner)
        with problems.about(CERTIFICATES):
            bundle = await keep_tls(self._objects, settings, dt.datetime.now(dt.UTC))
        if bundle:
            namespaces = self._namespaces()
            with problems.about(TRUST):
                if namespaces is not None:
                    # In our own namespace too: people who read the audit trail trust the hub by it.
                    trusting = {*namespaces, settings.namespace}
                    await keep_trust(self._objects, problems, bundle, trusting, owner)
            with problems.about(WEBHOOKS):
                configuration = webhooks.mutating(settings, bundle)
                await self._ensure(MUTATING, WEBHOOK_CONFIGURATION, configuration, owner)
            with problems.about(VALIDATION):
                await self._keep_validation(bundle, owner)
        else:
            problems.keep()
        with problems.about(GOVERNED_PODS):
            await self._keep_governed_pods(owner)

    async def _keep_validation(self, bundle: bytes, owner: Body | None) -> None:
        if self._proof is None:
            proof = Proof(self._settings.proof_grace)
            proof.adopt(await self._objects.get(VALIDATING, WEBHOOK_CONFIGURATION), time.monotonic())
            self._proof = proof
        await self._configure_validation(self._proof, bundle, owner)
        changed = self._proof.saw(await try_validation(self._objects), time.monotonic())
        if changed:
            await self._configure_validation(self._proof, bundle, owner)
            await tell(self._objects, self._proof)
        if self._proof.failing_for(time.monotonic()) >= PROOF_SETTLES:
            self._problems.note(VALIDATION, self._proof.why)

    async def _configure_validation(self, proof: Proof, bundle: bytes, owner: Body | None) -> None:
        configuration = webhooks.validating(self._settings, bundle, proof.failure_policy)
        await self._ensure(VALIDATING, WEBHOOK_CONFIGURATION, configuration, owner)

    async def _keep_governed_pods(self, owner: Body | None) -> None:
        """Have both policies and their bindings, but not without the kind Agent: that would refuse every pod.

        For the same reason the bindings belong to the CRD: they go with it, also while no operator runs. The policy of
        injected pods needs no Agents, but without them it has nothing to guard.
        """
        agents = await owner_reference(self._objects, CRD, governedpods.AGENTS_CRD)
        if agents is None:
            for name in (GOVERNED_PODS_POLICY, INJECTED_PODS_POLICY):
                binding = await self._objects.get(BINDING, name)
                if binding is not None:
                    await self._objects.delete(BINDING, binding)
            self._problems.note(GOVERNED_PODS, f"CustomResourceDefinition {governedpods.AGENTS_CRD} is not there")
            return
        # In this order: the policy of governed pods leaves labelled pods to the other one, which has to be there.
        await self._ensure(POLICY, INJECTED_PODS_POLICY, injectedpods.policy(self._settings), owner)
        await self._ensure(BINDING, INJECTED_PODS_POLICY, injectedpods.binding(), agents)
        await self._ensure(POLICY, GOVERNED_PODS_POLICY, governedpods.policy(self._settings), owner)
        await self._ensure(BINDING, GOVERNED_PODS_POLICY, governedpods.binding(), agents)
