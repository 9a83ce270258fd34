"""Pages for people: the reference at /docs, made from the OpenAPI document, and what each problem means.

French first, then English. No script and nothing from outside: what is read here is what this server says.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from flask import Blueprint, Response, render_template
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from api.words.problems import CATALOGUE, ENTRIES

Spec = Mapping[str, Any]

INTRODUCTION = """\
Deux adresses peuvent-elles échanger des données de santé, maintenant, et avec quel certificat ?
Chaque demande porte un jeton (`Authorization: Bearer sceau_…`) dont le rôle dit ce qu'il permet. Les instants
sont en UTC (RFC 3339), les refus des documents de problème (RFC 9457) dont `code` ne change jamais de sens.
Les CRL, OCSP et certificats d'autorité sont ouverts à tous : /crl/…, /ocsp, /ca/….

May two mailbox addresses exchange health data, now, and with which certificate? Each request carries a token
(`Authorization: Bearer sceau_…`) whose role says what it may do. Instants are in UTC (RFC 3339), refusals are
problem documents (RFC 9457) whose `code` never changes its meaning. CRLs, OCSP and authority certificates are
open to all: /crl/…, /ocsp, /ca/….
"""
_DEEPEST = 4
_NOTHING: Spec = {"": {"schema": {}}}


@dataclass(frozen=True)
class Row:
    """One member of a shape, as a line of a table; `name` is the path to it."""

    name: str
    type: str
    required: bool
    description: str
    example: str


def pages(document: Callable[[], Spec], release: str) -> Blueprint:
    """/docs, /openapi.json and /problems/<code>, on an OpenAPI document that is made when first asked for."""
    known = cache(document)
    serialised = cache(lambda: orjson.dumps(known(), option=orjson.OPT_INDENT_2))
    made = Blueprint("pages", __name__)
    made.add_app_template_filter(_marked, "marked")

    @made.get("/openapi.json")
    def openapi() -> Response:
        return Response(serialised(), mimetype="application/json")

    @made.get("/")
    @made.get("/docs")
    def docs() -> str:
        return render_template(
            "docs.html", chapters=list(_chapters(known())), introduction=INTRODUCTION, release=release
        )

    @made.get("/problems")
    def problems() -> str:
        return render_template("problems.html", entries=ENTRIES)

    @made.get("/problems/<code>")
    def problem(code: str) -> str:
        if code not in CATALOGUE:
            raise NotFound
        return render_template("problem.html", entry=CATALOGUE[code])

    return made


def _marked(text: str) -> Markup:
    """The text, with what stands in backticks set as code."""
    pieces = enumerate(text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(piece) if n % 2 else piece for n, piece in pieces)


def _chapters(spec: Spec) -> Iterator[dict[str, Any]]:
    """The operations under the resource they belong to, in the order of the document."""
    for tag in spec["tags"]:
        operations = [
            _operation(spec, method, path, operation)
            for path, methods in spec["paths"].items()
            for method, operation in methods.items()
            if method != "parameters" and tag["name"] in operation["tags"]
        ]
        yield {"name": tag["name"], "title": tag["description"], "operations": operations}


def _operation(spec: Spec, method: str, path: str, operation: Spec) -> dict[str, Any]:
    french, _, english = operation["description"].partition("\n\n")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    answered = next(status for status in operation["responses"] if status.startswith("2"))
    # The schema's own form first; others that `Accept` may ask for are bytes.
    answer = next(
        told["schema"] for told in operation["responses"][answered].get("content", _NOTHING).values()
    )
    parameters = [*spec["paths"][path].get("parameters", []), *operation.get("parameters", [])]
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "titles": operation["x-titles"],
        "french": french,
        "english": english,
        "roles": operation["x-roles"],
        "parameters": [
            _row(spec, p["name"], p | p["schema"], required=p.get("required", False)) for p in parameters
        ],
        "body": list(_rows(spec, body)) if body else [],
        "body_example": _pretty(_example(spec, body)) if body else "",
        "status": answered,
        "answer": list(_rows(spec, answer)),
        "problems": [CATALOGUE[code] for code in _codes(operation)],
    }


def _codes(operation: Spec) -> list[str]:
    """The problem codes of an operation, from the descriptions that `operation.refusal_documented` wrote."""
    refused = (
        answer["description"]
        for status, answer in operation["responses"].items()
        if not status.startswith("2")
    )
    return [code for text in refused for code in text.partition(": ")[2].split(", ")]


def _resolved(spec: Spec, schema: Spec) -> Spec:
    """The schema behind a reference, whether bare or in the `anyOf` that marks a nullable one."""
    if "$ref" in schema:
        target: Spec = spec["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return target
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    return _resolved(spec, choices[0]) if choices else schema


def _rows(spec: Spec, schema: Spec, prefix: str = "", depth: int = 0) -> Iterator[Row]:
    schema = _resolved(spec, schema)
    required = schema.get("required", ())
    for name, member in schema.get("properties", {}).items():
        whole = _resolved(spec, member)
        yield _row(spec, prefix + name, member, required=name in required)
        inside, mark = (whole["items"], "[].") if "items" in whole else (whole, ".")
        if depth < _DEEPEST:
            yield from _rows(spec, inside, f"{prefix}{name}{mark}", depth + 1)


def _row(spec: Spec, name: str, member: Spec, *, required: bool) -> Row:
    example = member.get("example", "")
    shown = example if isinstance(example, str) and "\n" not in example else ""
    described = member.get("description") or _resolved(spec, member).get("description", "")
    return Row(name, _type(spec, member), required, described, shown)


def _type(spec: Spec, schema: Spec) -> str:
    whole = _resolved(spec, schema)
    if "enum" in whole:
        return " | ".join(str(value) for value in whole["enum"] if value is not None)
    if "items" in whole:
        return f"[{_type(spec, whole['items'])}]"
    named = whole.get("type", "object")
    words = [named] if isinstance(named, str) else list(named)
    if "anyOf" in schema:
        words.append("null")
    return " | ".join(whole.get("format", word) if word == "string" else word for word in words)


def _example(spec: Spec, schema: Spec) -> Any:
    schema = _resolved(spec, schema)
    if "example" in schema:
        return schema["example"]
    if "properties" in schema:
        return {name: _example(spec, member) for name, member in schema["properties"].items()}
    if "items" in schema:
        return [_example(spec, schema["items"])]
    return schema["enum"][0] if "enum" in schema else "…"


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
