"""What pydantic refuses, in words: what was found, what is allowed, what was probably meant."""

import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from fleetward.resources import actioncatalog, auditsink, base, budget, rule, status
from fleetward.resources.finding import Path, did_you_mean, shorten


def explain(error: ErrorDetails, model: type[BaseModel], found: str, text: str | None) -> str:
    """Say one validation error in words.

    `found` names the value as the file has it; `text` is the value where it is or could be a text.
    """
    if error["type"] == "missing":
        about = _description(model, error["loc"])
        return f"is missing; it is required{f': {about}' if about else ''}"
    if error["type"] == "extra_forbidden":
        return _unknown_field(model, error["loc"])
    key = "as a key, " if error["loc"][-1:] == ("[key]",) else ""
    return key + _WORDS.get(error["type"], _other)(_Case(error, error.get("ctx", {}), found, text))


class _Case:
    def __init__(self, error: ErrorDetails, ctx: Mapping[str, Any], found: str, text: str | None) -> None:
        self.ctx = ctx
        self.found = found
        self.text = text
        self.message = error["msg"]
        self.type = error["type"]

    def allowed(self, allowed: str) -> str:
        return f"found {self.found}, allowed {allowed}"


def _string(case: _Case) -> str:
    quote = f'; quote it: "{shorten(case.text)}"' if case.text else ""
    return case.allowed(f"a text (string){quote}")


def _choices(case: _Case) -> str:
    choices = re.findall(r"'([^']*)'", str(case.ctx.get("expected", "")))
    meant = did_you_mean(case.text, choices) if case.text else ""
    return case.allowed(one_of(choices) + meant)


def one_of(choices: Sequence[str]) -> str:
    """Join to `A`, `A or B`, `A, B or C`."""
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else "".join(choices)


def _pattern(case: _Case) -> str:
    pattern = str(case.ctx.get("pattern", ""))
    return case.allowed(PATTERNS.get(pattern, f"a text that matches {pattern}"))


def _too_few(case: _Case) -> str:
    least = case.ctx.get("min_length")
    return case.allowed(f"at least {least} item{'' if least == 1 else 's'}")


def _too_many(case: _Case) -> str:
    actual = case.ctx.get("actual_length")
    return f"found {case.found} with {actual} items, allowed at most {case.ctx.get('max_length')}"


def _too_long_text(case: _Case) -> str:
    return f"found {case.found}{_length(case)}, allowed at most {case.ctx.get('max_length')} characters"


def _too_short_text(case: _Case) -> str:
    least = case.ctx.get("min_length")
    return f"found {case.found}{_length(case)}, allowed at least {least} character{'' if least == 1 else 's'}"


def _length(case: _Case) -> str:
    return f" ({len(case.text)} characters)" if case.text else ""


def _bound(words: str, name: str) -> Callable[[_Case], str]:
    return lambda case: case.allowed(f"{words} {case.ctx.get(name)}")


def _type(allowed: str) -> Callable[[_Case], str]:
    return lambda case: case.allowed(allowed)


def _own(case: _Case) -> str:
    return case.message.partition(", ")[2] or case.message


def _other(case: _Case) -> str:
    return f"found {case.found}: {case.message[:1].lower()}{case.message[1:]}"


_WHOLE = _type("a whole number without quotes")
_MAPPING = _type("a mapping (fields, each as 'name: value')")
_LIST = _type("a list (items, each after '- ')")

_WORDS: dict[str, Callable[[_Case], str]] = {
    "string_type": _string,
    "string_unicode": _type("text in whole Unicode characters"),
    "string_pattern_mismatch": _pattern,
    "string_too_short": _too_short_text,
    "string_too_long": _too_long_text,
    "literal_error": _choices,
    "enum": _choices,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _type("a whole number"),
    "int_parsing_size": _type("a smaller whole number"),
    "float_type": _type("a number without quotes"),
    "float_parsing": _type("a number without quotes"),
    "finite_number": _type("a finite number"),
    "bool_type": _type("true or false, without quotes"),
    "bool_parsing": _type("true or false, without quotes"),
    "none_required": _type("nothing here; leave the field out"),
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "too_short": _too_few,
    "too_long": _too_many,
    "greater_than_equal": _bound("at least", "ge"),
    "greater_than": _bound("more than", "gt"),
    "less_than_equal": _bound("at most", "le"),
    "less_than": _bound("less than", "lt"),
    "multiple_of": _bound("a multiple of", "multiple_of"),
    "value_error": _own,
    "assertion_error": _own,
}


def _unknown_field(model: type[BaseModel], loc: Path) -> str:
    name = str(loc[-1])
    owner = annotation_at(model, loc[:-1])
    fields = aliases(owner) if isinstance(owner, type) and issubclass(owner, BaseModel) else []
    allowed = f", allowed {one_of(fields)}" if fields else ""
    return f"found the unknown field {shorten(name)}{allowed}{did_you_mean(name, fields)}"


def aliases(model: type[BaseModel]) -> list[str]:
    """List the model's fields as they are written in a file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _description(model: type[BaseModel], loc: Path) -> str:
    owner = annotation_at(model, loc[:-1])
    if isinstance(owner, type) and issubclass(owner, BaseModel):
        for name, field in owner.model_fields.items():
            if loc[-1] in (field.alias, name):
                return " ".join((field.description or "").split())
    return ""


def annotation_at(model: Any, loc: Path) -> Any:
    """Return the type the model gives the place, without Annotated and None; None outside the model."""
    here = _bare(model)
    for step in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in here.model_fields.items()}
            here = _bare(fields.get(str(step)))
        elif get_origin(here) in (list, tuple, dict):
            here = _bare(get_args(here)[-1])
        else:
            return None
    return here


def _bare(annotation: Any) -> Any:
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            branches = [branch for branch in get_args(annotation) if branch is not type(None)]
            if len(branches) != 1:
                return None
            annotation = branches[0]
        else:
            return annotation


def _pattern_of(metadata: Any) -> str:
    """Find the pattern among an annotation's metadata, so that it is written once, in the model."""
    for part in metadata:
        if isinstance(pattern := getattr(part, "pattern", None), str):
            return pattern
        if inner := _pattern_of(getattr(part, "metadata", ())):
            return inner
    return ""


def _in_type(annotation: Any) -> str:
    return _pattern_of(annotation.__metadata__)


def _in_field(model: type[BaseModel], name: str) -> str:
    return _pattern_of(model.model_fields[name].metadata)


_NAME = "lower-case letters, digits and '-', beginning and ending with a letter or digit"
PATTERNS: dict[str, str] = {
    _in_type(base.ObjectName): _NAME,
    _in_type(base.AgentName): f"an agent as name or namespace/name, each of {_NAME}",
    _in_type(base.ActionGlob): (
        "a glob of dotted segments of letters, digits and '_:/@+*-', where ** stands alone as a segment, "
        "such as crm.*.export or **.send.*"
    ),
    _in_type(base.Tag): ("letters, digits and '._:/-', beginning and ending with a letter or digit"),
    _in_type(base.Target): ("letters, digits and '._:/@-', beginning and ending with a letter or digit"),
    _in_type(base.LabelKey): (
        "a label key: letters, digits and '_.-', beginning and ending with a letter or digit, "
        "with an optional prefix such as example.com/"
    ),
    _in_type(base.LabelValue): (
        "a label value: letters, digits and '_.-', beginning and ending with a letter or digit"
    ),
    _in_type(actioncatalog.ModelGlob): "a glob of letters, digits and '._:/@*-', such as example-large-*",
    _in_type(
        budget.Duration
    ): "a duration in h, m and s, in this order and with their units, such as 24h, 90m or 1h30m",
    _in_type(budget.TimeZone): "a time zone of the IANA database, such as Europe/Berlin or UTC",
    _in_type(status.ConditionType): "a type of condition, such as Ready, with an optional prefix such as example.com/",
    _in_type(status.ConditionReason): "a word in CamelCase, such as PodsWithoutWebhook",
    _in_field(auditsink.JsonLinesSink, "path"): (
        "a relative file path of letters, digits and '._-', without '..', such as audit/records.jsonl"
    ),
    _in_field(auditsink.CloudEventsSink, "url"): "a URL that begins with http:// or https://",
    _in_field(rule.Obligation, "field"): (
        "a dotted path that begins with arguments. or result., such as arguments.limit or result.rows.*.email"
    ),
}
"""Each pattern of the models, in words."""
