"""Facts about an action: what the catalog says of it, what its agent declares, and how the two come together."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec

from fleetward.decision.action import Action, DeclaredEstimate
from fleetward.decision.glob import GlobIndex
from fleetward.decision.situation import Situation
from fleetward.registry.slice import Catalog, CatalogEntry, Estimate, Reversibility
from fleetward.registry.text import Target

ESTIMATE_FIELDS = ("input_tokens", "output_tokens", "cost_micro_usd", "calls", "records")
MAX_MODEL = 253
"""Characters in the name of a model."""

_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FactSets:
    """Facts in the form rules are matched on."""

    risk_tags: frozenset[str] = _NOTHING
    data_classes: frozenset[str] = _NOTHING
    labels: frozenset[str] = _NOTHING
    target: str | None = None
    reversibility: Reversibility | None = None
    estimate: Estimate | None = None
    result_labels: frozenset[str] = _NOTHING


@dataclass(frozen=True, slots=True)
class Classified:
    """What the catalogs say of an action, and whether they contradict each other about its target."""

    facts: FactSets
    conflict: str | None = None


class CatalogIndex:
    """All catalogs of a slice, asked by action name."""

    def __init__(self, catalogs: Iterable[Catalog]) -> None:
        self._entries: GlobIndex[tuple[str, CatalogEntry]] = GlobIndex()
        for catalog in catalogs:
            for entry in catalog.entries:
                for glob in entry.names:
                    self._entries.add(glob, (catalog.name, entry))

    def classify(self, name: str) -> Classified:
        """Add up what every matching entry says of the action called `name`."""
        found = self._entries.find(name)
        if not found:
            return Classified(FactSets())
        targets = {entry.target: catalog for catalog, entry in found if entry.target is not None}
        conflict = None
        if len(targets) > 1:
            said = " and ".join(f"{target} (ActionCatalog {targets[target]})" for target in sorted(targets))
            conflict = f"the catalog gives {name} more than one target: {said}; leave one"
        undo = {entry.reversibility for _, entry in found}
        facts = FactSets(
            risk_tags=frozenset().union(*(entry.risk_tags for _, entry in found)),
            data_classes=frozenset().union(*(entry.data_classes for _, entry in found)),
            target=min(targets) if targets else None,
            reversibility="Irreversible" if "Irreversible" in undo else next(iter(undo - {None}), None),
            estimate=larger(*(entry.estimate for _, entry in found)),
            result_labels=frozenset().union(*(entry.result_labels for _, entry in found)),
        )
        return Classified(facts, conflict)


def larger(*estimates: Estimate | DeclaredEstimate | None) -> Estimate | None:
    """Give, field by field, the largest of the estimates; None where there is none at all."""
    given = [estimate for estimate in estimates if estimate is not None]
    if not given:
        return None
    if len(given) == 1 and isinstance(given[0], Estimate):
        return given[0]
    return Estimate(
        **{
            field: max((v for e in given if (v := getattr(e, field)) is not None), default=None)
            for field in ESTIMATE_FIELDS
        }
    )


def overridden(known: Estimate | None, told: Estimate | None) -> Estimate | None:
    """Give the catalog's estimate with what the agent tells in its place, field by field."""
    if known is None or told is None:
        return known if told is None else told
    return Estimate(
        **{field: getattr(known, field) if (v := getattr(told, field)) is None else v for field in ESTIMATE_FIELDS}
    )


def declared_estimate(action: Action) -> Estimate | None:
    """Give the estimate an agent declares, as the catalogs' kind of estimate; None where it declares nothing."""
    told = action.estimate
    if told is None:
        return None
    return Estimate(told.input_tokens, told.output_tokens, told.cost_micro_usd, told.calls, told.records)


def model_of(action: Action) -> str | None:
    """Give the model that a model call names, in its arguments or, where these are not sent, beside them."""
    if action.kind != "ModelCall":
        return None
    said = action.model if action.arguments is None else action.arguments.get("model", action.model)
    # Anything else is no name of a model: none that a price could be found by, or that could be kept.
    return said if isinstance(said, str) and len(said) <= MAX_MODEL and _is_model(said) else None


@lru_cache(maxsize=1024)
def _is_model(name: str) -> bool:
    try:
        msgspec.convert(name, Target)
    except msgspec.ValidationError:
        return False
    return True


def with_declared(trusted: FactSets, action: Action) -> FactSets:
    """Give the trusted facts with the declared ones added, save for the estimate."""
    return replace(
        trusted,
        risk_tags=trusted.risk_tags.union(action.risk_tags),
        data_classes=trusted.data_classes.union(action.data_classes),
        labels=trusted.labels.union(action.labels),
        target=trusted.target if trusted.target is not None else action.target,
    )


def with_situation(known: FactSets, situation: Situation) -> FactSets:
    """Give what the catalogs say of an action with what the hub knows of it added."""
    if not (situation.labels or situation.data_classes or situation.target):
        return known
    return replace(
        known,
        data_classes=known.data_classes.union(situation.data_classes),
        labels=known.labels.union(situation.labels),
        target=situation.target or known.target,
    )


def describe_declared(trusted: FactSets, declared: FactSets) -> str:
    """Name, in words, what `declared` has beyond `trusted`."""
    parts = [
        f"{name} {', '.join(sorted(extra))}"
        for name, extra in (
            ("riskTags", declared.risk_tags - trusted.risk_tags),
            ("dataClasses", declared.data_classes - trusted.data_classes),
            ("labels", declared.labels - trusted.labels),
        )
        if extra
    ]
    if declared.target != trusted.target:
        parts.append(f"target {declared.target}")
    if declared.estimate != trusted.estimate:
        parts.append("estimate")
    return "; ".join(parts)
