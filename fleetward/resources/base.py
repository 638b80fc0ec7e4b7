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
    found: str = ""
    """A CEL expression for the text that was found; left out where the message says it already."""

    def as_crd(self) -> dict[str, str]:
        """Return it as a CRD writes it."""
        written = {"rule": self.rule, "message": self.message}
        if self.found:
            written["messageExpression"] = f"{cel_text(f'{self.message}, found ')} + {self.found}"
        if self.field_path:
            written["fieldPath"] = self.field_path
        if self.reason != "FieldValueInvalid":
            written["reason"] = self.reason
        return written


def cel_text(text: str) -> str:
    """Write a text as a literal of CEL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


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
            written = [each.as_crd() for each in cls.VALIDATIONS]
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = written
        return schema


MAX_NAME = 63
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"

ObjectName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=rf"^{_LABEL}$")]
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
Decision = Literal["Allow", "Constrain", "Throttle", "RequireApproval", "Deny"]
MAX_COUNT = 2**53 - 1
"""The largest number that every JSON parser reads exactly."""

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]

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
            "self.operator",
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


def column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
    """Return a column of `kubectl get`; a wide one is shown with `-o wide` only.

    Of a path that leads to several values the API server prints the first alone.
    """
    return {"name": name, "type": kind, "jsonPath": path} | ({"priority": 1} if wide else {})


_READY = '.status.conditions[?(@.type=="Ready")]'
READY = column("Ready", f"{_READY}.status")
AGE = column("Age", ".metadata.creationTimestamp", "date")
REASON = column("Reason", f"{_READY}.reason", wide=True)
WHY = column("Why", f"{_READY}.message")
"""The last of the columns, since it may be long."""


class Resource(Model):
    """A resource of the group fleetward.dev."""

    SCOPE: ClassVar[Literal["Namespaced", "Cluster"]] = "Namespaced"
    PLURAL: ClassVar[str]
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ()
    STATUS: ClassVar[type[Model]]
    """What Fleetward writes under `status`. No field of the model: whoever writes a resource writes no status."""
    PRINTER_COLUMNS: ClassVar[tuple[dict[str, Any], ...]] = ()
    """What `kubectl get` shows: is it working, and if not why."""
    SELECTABLE_FIELDS: ClassVar[tuple[str, ...]] = ()
    VALIDATIONS: ClassVar[tuple[Validation, ...]] = (
        Validation(
            f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('^{_LABEL}$')",
            f"metadata.name may have at most {MAX_NAME} characters: lower-case letters, digits and '-', "
            "beginning and ending with a letter or digit",
            ".metadata.name",
            found="'\"' + self.metadata.name + '\"'",
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
