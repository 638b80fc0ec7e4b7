"""What an action, a delegation or a plan must stay within, as far as it is kept with its run."""

from collections.abc import Callable

from fleetward.delegation.grant import Grant
from fleetward.delegation.narrowing import DepthError, WiderError, expiry, narrow
from fleetward.delegation.scope import Violation
from fleetward.run.amounts import Six
from fleetward.run.bounds import Bounds
from fleetward.run.calls import Propose
from fleetward.run.plan import Ceilings
from fleetward.run.standing import Place, Refusal, go_beyond


def check_asks(place: Place, bounds: Bounds) -> None:
    """Bound how often a run may ask, whatever the answers are. Raises Refusal."""
    if place.run.last_seq >= bounds.asks:
        raise Refusal(f"run {place.run.id} has asked {place.run.last_seq} times, more than any run may", (), place)


def too_much(place: Place, amounts: Six, bounds: Bounds, joining: str | None = None) -> tuple[Violation, ...]:
    """Say which limits, of the mandate and of each grant in the chain, would be gone beyond.

    An agent counts from when work is handed to it, so a grant that is given keeps it its place; `joining` is one that
    would be new.
    """
    run, limit = place.run, place.run.mandate.limits.agents
    found = run.account.beyond(amounts)
    for account in place.holding.accounts if place.holding else ():
        found += account.beyond(amounts)
    known = joining is None or (joining in run.members and run.members[joining].claims > 0)
    agents = run.agents + (not known)
    if limit is not None and agents > limit:
        found.append(Violation(total="agents", found=str(agents), allowed=str(limit), by="mandate"))
    elif agents > bounds.agents:
        found.append(Violation(total="agents", found=str(agents), allowed=str(bounds.agents), by="any run"))
    return tuple(found)


def grant_for(place: Place, request: Propose, now: float, bounds: Bounds, ids: Callable[[str], str]) -> Grant:
    """Give the grant that a delegation asks for, without its cause. Raises Refusal."""
    run, holding = place.run, place.holding
    path = (*run.path(holding), request.agent)
    if request.to in path:
        chain = " → ".join((*path, request.to))
        raise Refusal(f"the delegation would go round in a circle: {chain}", (), place)
    if len(path) > run.max_depth:
        by = "any run" if run.mandate.limits.depth is None else "mandate"
        wrong = Violation(total="depth", found=str(len(path)), allowed=str(run.max_depth), by=by)
        go_beyond("the delegation", (wrong,), place)
    try:
        scope = narrow(
            holding.grant.scope if holding else run.scope, request.scope, by=holding.by if holding else "mandate"
        )
    except DepthError as error:
        go_beyond("the delegation", error.violations, place)
    except WiderError as error:
        go_beyond("the scope of the delegation", error.violations, place)
    if len(run.holdings) >= bounds.grants:
        raise Refusal(f"run {run.id} has given {len(run.holdings)} grants, more than any run may", (), place)
    brought = holding.labels if holding and not holding.begun else 0
    carried = run.labels.names(place.member.reached_by | brought)
    ends = holding.grant.expires_at if holding else int(run.expires_at)
    if ends <= now:
        raise Refusal(f"less than a second is left of {'the grant' if holding else 'the run'}", (), place)
    return Grant(
        id=ids("g-"),
        run=run.id,
        path=path,
        to=request.to,
        scope=scope,
        labels=tuple(sorted({*carried, *request.labels})),
        parent=holding.grant.id if holding else None,
        issued_at=int(now),
        expires_at=expiry(request.scope, int(now), parent_expires_at=ends),
    )


def ceilings_of(place: Place, bounds: Bounds, now: float) -> Ceilings:
    """Give what a plan has to stay within.

    Handing on is needed for agents that neither handed the work down to the planner nor hold a grant of the run.
    """
    run, holding = place.run, place.holding
    limit = run.mandate.limits.agents
    path = run.path(holding)
    reached = {key for key, member in run.members.items() if member.granted_until > now}
    return Ceilings(
        mandate=run.mandate,
        accounts=(run.account, *(holding.accounts if holding else ())),
        grant=place.scope,
        handed_on=len(path),
        max_depth=run.max_depth,
        agents=[key for key, member in run.members.items() if member.claims],
        max_agents=bounds.agents if limit is None else min(limit, bounds.agents),
        reached=reached | {place.member.key, *path},
    )
