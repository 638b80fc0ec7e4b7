"""What every Fleetward resource shares: metadata, selectors, bounded types, and the settings of the models.

The models are the only source of the CRDs (`fleetward.resources.crd`), so what they refuse the API server refuses too.
"""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

GROUP = "fleetward.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "fleetward"

SET_BY_ANNOTATION = f"{GROUP}/operating-mode-set-by"
"""Who set the operating mode: `<Mode> by <who>`. Believed only while its mode is the one in force."""


class Validation(NamedTuple):
    """A check across the fields of a model, as the API server makes it; the model makes the same one in Python."""

    rule: str
    """A CEL expression over `self`, the object; it reads an optional field only behind has()."""
    message: str
    """What is wrong and what is allowed."""
    field_path: str = ""
    """The field at fault, such as `.maximum`; left out, the object."""
    reason: Literal["FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"] = "FieldValueInvalid"
    """What the API server answers as the cause."""


class Model(BaseModel):
    """A part of a resource: strict, immutable, camelCase outside, and no field it does not know."""

    VALIDATIONS: ClassVar[tuple[Validation, ...]] = ()
    """The checks across fields; one more validator in Python means one more here."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the validations, as a CRD writes them, to the model's JSON schema."""
        schema = handler(core)
        if cls.VALIDATIONS:
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = [
                {"rule": each.rule, "message": each.message}
                | ({"fieldPath": each.field_path} if each.field_path else {})
                | ({"reason": each.reason} if each.reason != "FieldValueInvalid" else {})
                for each in cls.VALIDATIONS
            ]
        return schema


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

Tag = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?$")]
"""A risk tag, a data class, a provenance label."""

Target = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:/@-]*[A-Za-z0-9])?$")]
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

    VALIDATIONS = (
        Validation(
            "!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)",
            "values are missing; the operators In and NotIn need at least one",
            ".values",
            "FieldValueRequired",
        ),
        Validation(
            "self.operator in ['In', 'NotIn'] || !has(self.values) || self.values.size() == 0",
            "values go with the operators In and NotIn, not with Exists and DoesNotExist",
            ".values",
            "FieldValueForbidden",
        ),
    )

    key: LabelKey
    """The label key the requirement is about."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value relates to the values."""
    values: Annotated[list[LabelValue], Field(max_length=64)] = []
    """The values, for In and NotIn; none for Exists and DoesNotExist."""

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        compares = self.operator in ("In", "NotIn")
        if compares and not self.values:
            raise ValueError(f"values are missing; operator {self.operator} needs at least one")
        if self.values and not compares:
            raise ValueError(f"values go with the operators In and NotIn, found {self.operator}")
        return self


class LabelSelector(Model):
    """A Kubernetes label selector: all that is given must hold; empty, it selects everything."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    match_labels: Labels = {}
    """Labels that must be there with just these values."""
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=32)] = []
    """Requirements that must all hold."""


class Metadata(BaseModel):
    """The standard object metadata; fields Fleetward does not read are left alone.

    How many labels an object may have is the API server's business, and it sets no number.
    """

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)

    name: ObjectName
    namespace: ObjectName | None = None
    labels: dict[LabelKey, LabelValue] = {}
    annotations: dict[str, str] = {}
    uid: str = ""
    generation: int = 1


class Resource(Model):
    """A resource of the group fleetward.dev."""

    SCOPE: ClassVar[Literal["Namespaced", "Cluster"]] = "Namespaced"
    PLURAL: ClassVar[str]
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ()
    PRINTER_COLUMNS: ClassVar[tuple[dict[str, Any], ...]] = ()
    """What `kubectl get` shows. Of a path that leads to several values the API server prints the first alone."""
    SELECTABLE_FIELDS: ClassVar[tuple[str, ...]] = ()
    VALIDATIONS: ClassVar[tuple[Validation, ...]] = (
        Validation(
            f"self.metadata.name.size() <= 63 && self.metadata.name.matches('^{_LABEL}$')",
            "metadata.name may have at most 63 characters: lower-case letters, digits and '-', "
            "beginning and ending with a letter or digit",
        ),
    )

    api_version: Literal["fleetward.dev/v1alpha1"]
    kind: str
    metadata: Metadata

    @property
    def key(self) -> str:
        """`namespace/name`, or `name` for a cluster-scoped resource."""
        namespace = self.metadata.namespace
        return f"{namespace}/{self.metadata.name}" if namespace else self.metadata.name
