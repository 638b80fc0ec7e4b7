"""ActionCatalog: what actions are, whoever performs them."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleetward.resources.base import (
    AGE,
    READY,
    REASON,
    WHY,
    ActionGlob,
    Count,
    Model,
    Resource,
    Tag,
    Target,
    column,
)
from fleetward.resources.status import ActionCatalogStatus

Reversibility = Literal["Reversible", "Irreversible"]


class Estimate(Model):
    """What one action is expected to use."""

    input_tokens: Count | None = None
    """Tokens sent to a model."""
    output_tokens: Count | None = None
    """Tokens a model returns."""
    cost_micro_usd: Count | None = None
    """Cost in millionths of a US dollar."""
    calls: Count | None = None
    """Calls to the target."""
    records: Count | None = None
    """Data records touched."""


class CatalogEntry(Model):
    """Facts about the actions whose name one of the globs matches. Facts of several entries add up."""

    names: Annotated[list[ActionGlob], Field(min_length=1, max_length=64)]
    """Globs over action names."""
    risk_tags: Annotated[list[Tag], Field(max_length=64)] = []
    """Risk tags the actions carry."""
    data_classes: Annotated[list[Tag], Field(max_length=64)] = []
    """Data classes the actions touch."""
    target: Target | None = None
    """What the actions touch. Two entries that name different targets for one action leave it denied."""
    estimate: Estimate | None = None
    """What one such action is taken to use when nothing larger is declared; of several, the larger."""
    reversibility: Reversibility | None = None
    """Whether the actions can be undone; of several entries, Irreversible wins."""
    result_labels: Annotated[list[Tag], Field(max_length=64)] = []
    """Provenance labels of what the actions give: an agent that was allowed one carries them on, in its run."""


class ActionCatalogSpec(Model):
    """What actions are. Several catalogs add up."""

    entries: Annotated[list[CatalogEntry], Field(min_length=1, max_length=512)]
    """The actions described."""


class ActionCatalog(Resource):
    """What actions are by name: risk tags, data classes, target, default estimate, reversibility, labels of results."""

    SCOPE: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    PLURAL: ClassVar[str] = "actioncatalogs"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("actcat",)
    STATUS = ActionCatalogStatus
    PRINTER_COLUMNS = (
        READY,
        column("Entries", ".status.entries", "integer"),
        column("Generation", ".metadata.generation", "integer", wide=True),
        column("In force", ".status.generationInForce", "integer", wide=True),
        REASON,
        AGE,
        WHY,
    )

    kind: Literal["ActionCatalog"]
    spec: ActionCatalogSpec
