"""What every Fleetward resource shares: metadata, selectors, bounded types, and the settings of the models.

The models are the only source of the CRDs (`fleetward.resources.crd`), so what they refuse the API server refuses too.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "fleetward.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "fleetward"

SET_BY_ANNOTATION = f"{GROUP}/operating-mode-set-by"
"""Who set the operating mode: `<Mode> by <who>`. Believed only while its mode is the one in force."""


class Model(BaseModel):
    """A part of a resource: strict, immutable, camelCase outside, and no field it does not know."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"

ObjectName = Annotated[str, Field(min_length=1, max_length=63, pattern=rf"^{_LABEL}$")]
"""A name of a resource or namespace: a DNS label (RFC 1123)."""

AgentName = Annotated[str, Field(min_length=1, max_length=127, pattern=rf"^({_LABEL}/)?{_LABEL}$")]
"""An agent, as `name` or `namespace/name`."""

ActionGlob = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=r"^(\*\*|[A-Za-z0-9_:/@+*-]+)(\.(\*\*|[A-Za-z0-9_:/@+*-]+))*$",
    ),
]
"""A glob over dotted action names: `*` stands for anything within one segment, `**` for any number of segments."""

Tag = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?$")
]
"""A risk tag, a data class, a provenance label."""

Target = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:/@-]*[A-Za-z0-9])?$")
]
"""What an action touches: a system, a host, an agent."""

Role = Literal["Coordinator", "Planner", "Worker"]
OperatingMode = Literal["Running", "Paused", "Stopped", "Quarantined"]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]

_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
LabelKey = Annotated[str, Field(min_length=1, max_length=317, pattern=_LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$")]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]


class LabelSelectorRequirement(Model):
    """One requirement of a label selector."""

    key: LabelKey
    """The label key the requirement is about."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value relates to the values."""
    values: Annotated[list[LabelValue], Field(max_length=64)] = []
    """The values, for In and NotIn; none for Exists and DoesNotExist."""


class LabelSelector(Model):
    """A Kubernetes label selector: all that is given must hold; empty, it selects everything."""

    match_labels: Labels = {}
    """Labels that must be there with just these values."""
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=32)] = []
    """Requirements that must all hold."""


class Metadata(BaseModel):
    """The standard object metadata; fields Fleetward does not read are left alone."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)

    name: ObjectName
    namespace: ObjectName | None = None
    labels: Labels = {}
    annotations: dict[str, str] = {}
    uid: str = ""
    generation: int = 1


class Resource(Model):
    """A resource of the group fleetward.dev."""

    SCOPE: ClassVar[Literal["Namespaced", "Cluster"]] = "Namespaced"
    PLURAL: ClassVar[str]
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ()
    PRINTER_COLUMNS: ClassVar[tuple[dict[str, Any], ...]] = ()
    SELECTABLE_FIELDS: ClassVar[tuple[str, ...]] = ()
    VALIDATIONS: ClassVar[tuple[tuple[str, str], ...]] = ()
    """CEL rules over the whole object for the CRD, each with its message."""

    api_version: Literal["fleetward.dev/v1alpha1"]
    kind: str
    metadata: Metadata

    @property
    def key(self) -> str:
        """`namespace/name`, or `name` for a cluster-scoped resource."""
        namespace = self.metadata.namespace
        return f"{namespace}/{self.metadata.name}" if namespace else self.metadata.name
