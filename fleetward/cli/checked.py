"""Documents that are no resources (policy tests, rules of other systems), checked as strictly as resources are."""

from typing import TypeVar

from pydantic import BaseModel

from fleetward.resources.document import Document
from fleetward.resources.finding import Finding
from fleetward.resources.manifest import document_problems, validate
from fleetward.resources.yamlvalue import describe

M = TypeVar("M", bound=BaseModel)


def read_as(document: Document, model: type[M]) -> M | list[Finding]:
    """Give the document's data as `model`, or its findings in line order."""
    findings = document_problems(document)
    if not isinstance(document.data, dict):
        return findings or [document.finding((), f"found {describe(document.root)}, allowed a mapping")]
    value = validate(document, document.data, model)
    if isinstance(value, list):
        return sorted(findings + value, key=lambda finding: finding.line)
    return findings or value
