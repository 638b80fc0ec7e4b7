"""ActionCatalog: what actions are, whoever performs them."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

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
    Validation,
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


ModelGlob = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:/@*-]+$")]
"""A glob over model names, which have no segments: `*` stands for any text."""

Price = Annotated[int, Field(ge=0, le=10**12)]


class ModelPrice(Model):
    """What models cost, in millionths of a US dollar for a million tokens: 3000000 is 3 dollars for a million."""

    models: Annotated[list[ModelGlob], Field(min_length=1, max_length=64)]
    """Globs over model names. A price for the very name counts first, then the glob that says most of it."""
    input_micro_usd_per_million: Price
    """Tokens sent to the model."""
    output_micro_usd_per_million: Price
    """Tokens the model returns."""
    cached_input_micro_usd_per_million: Price | None = None
    """Tokens sent that the provider had in its cache; left out, as the others that are sent."""
    reasoning_micro_usd_per_million: Price | None = None
    """Tokens that the model spends on reasoning; left out, as the others it returns."""


class ActionCatalogSpec(Model):
    """What actions are, and what models cost. Several catalogs add up."""

    VALIDATIONS = (
        Validation(
            "(has(self.entries) && self.entries.size() > 0) || (has(self.models) && self.models.size() > 0)",
            "entries are missing; a catalog needs at least one of entries and models",
            ".entries",
            "FieldValueRequired",
        ),
    )

    entries: Annotated[list[CatalogEntry], Field(max_length=512)] = []
    """The actions described."""
    models: Annotated[list[ModelPrice], Field(max_length=256)] = []
    """The prices of models."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.entries and not self.models:
            raise ValueError("entries are missing; a catalog needs at least one of entries and models")
        return self


class ActionCatalog(Resource):
    """What actions are by name: risk tags, data classes, target, estimate, reversibility, labels; what models cost."""

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
