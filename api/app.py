"""The Flask application, made from a container: resources, problems, pages, headers, log. No route is
defined here.
"""

import threading
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson
from flask import Flask, Response, request
from flask.json.provider import JSONProvider
from flask_smorest import Api, Blueprint
from werkzeug.routing import IntegerConverter, Map, PathConverter

from api.front.roads import LARGEST_BODY
from api.health.health import health
from api.http import freshness, prices
from api.http.access_log import note_requests
from api.http.guarding import guarding
from api.http.problems import register
from api.http.schemas import FORMATS, LARGEST_ID, Problem
from api.pages.expiring import expiring_page
from api.pages.reference import INTRODUCTION, pages
from api.pages.registers import register_pages
from api.rest.attention import attention
from api.rest.batches import batches
from api.rest.bulk_revocations import bulk_revocations
from api.rest.certificates import certificates
from api.rest.changes import feed_of_changes
from api.rest.clock import clock
from api.rest.corrections import corrections
from api.rest.enrolments import enrolments
from api.rest.expiring import expiring_certificates
from api.rest.exports import exports_of_the_public
from api.rest.key_compromise import keys
from api.rest.measures import measures
from api.rest.open_operations import with_open
from api.rest.operator_certificates import operator_certificates
from api.rest.operator_contacts import operator_contacts
from api.rest.organisations import organisations
from api.rest.pkcs12 import pkcs12_files
from api.rest.practitioners import practitioners
from api.rest.recipient_checks import recipient_checks
from api.rest.recipients import recipients
from api.rest.registers import registers
from api.rest.revocation_by_key import proofs
from api.rest.trust_list import trust_list
from api.rest.withdrawal_limits import withdrawal_limits
from api.wiring import Container


def create_app(container: Container) -> Flask:
    """The application; each call makes an independent one."""
    app = Flask(__name__)
    app.json = _Json(app)
    app.config.update(
        MAX_CONTENT_LENGTH=LARGEST_BODY,
        API_TITLE="Sceau",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        API_SPEC_OPTIONS={
            "info": {
                "description": INTRODUCTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
        },
    )
    # An address may hold slashes; a redirect to a tidied path would ask about another one.
    app.url_map.merge_slashes = False
    app.url_map.converters["int"] = _Number
    app.url_map.converters["address"] = _Address
    note_requests(app)
    register(app, container.settings.base_url)
    app.after_request(freshness.mark)
    app.after_request(prices.mark)
    app.after_request(_guarded(secure=container.settings.base_url.startswith("https:")))
    described = _Described(app)
    for field, form in FORMATS.items():
        described.register_field(field, "string", form)
    described.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    for resource in (
        recipients,
        recipient_checks,
        practitioners,
        organisations,
        batches,
        enrolments,
        certificates,
        pkcs12_files,
        keys,
        bulk_revocations,
        clock,
        operator_certificates,
        operator_contacts,
        measures,
        corrections,
        attention,
        registers,
        feed_of_changes,
        exports_of_the_public,
        expiring_certificates,
        withdrawal_limits,
    ):
        described.register_blueprint(resource(container))
    app.register_blueprint(health(container))
    app.register_blueprint(proofs(container))
    app.register_blueprint(register_pages(container))
    app.register_blueprint(trust_list(container))
    app.register_blueprint(expiring_page(container))
    app.register_blueprint(pages(lambda: with_open(described.document()), release()))
    return app


def release() -> str:
    """The version of this program, as installed."""
    try:
        return version("sceau")
    except PackageNotFoundError:
        return "0+unpackaged"


class _Described(Api):  # type: ignore[misc] # flask-smorest is untyped
    """flask-smorest without its own errors and pages: those are `api/http/problems.py` and
    `api/pages/reference.py`.

    It describes what it serves when somebody asks: a process of the web part has two applications, and most
    are never asked.
    """

    ERROR_SCHEMA = Problem
    DEFAULT_ERROR_RESPONSE_NAME = None

    def __init__(self, app: Flask) -> None:
        super().__init__(app)
        self._undescribed: list[Blueprint] = []
        self._describing = threading.Lock()

    def register_blueprint(self, resource: Blueprint) -> None:
        """Serve it now; describe it later."""
        self._app.register_blueprint(resource)
        self._undescribed.append(resource)

    def document(self) -> dict[str, Any]:
        """The OpenAPI document of all that is served by now."""
        with self._describing:
            while self._undescribed:
                self._describe(self._undescribed.pop(0))
            return dict(self.spec.to_dict())

    def _describe(self, resource: Blueprint) -> None:
        resource.register_views_in_doc(self, self._app, self.spec, name=resource.name, parameters=None)
        self.spec.tag({"name": resource.name, "description": resource.description})

    def _register_error_handlers(self) -> None:
        """Left to `api.http.problems.register`."""

    def _register_etag_headers(self) -> None:
        """None: answers under a token are not to be kept."""

    def _register_pagination_header(self) -> None:
        """None: pages follow one another by `next`, in the answer itself."""


class _Number(IntegerConverter):
    """A row's number: beyond PostgreSQL's bigint there is none, and to ask for it is an error there."""

    def __init__(self, known: Map) -> None:
        super().__init__(known, max=LARGEST_ID)


class _Address(PathConverter):
    """A mailbox address, slashes and all; `check` is the resource beside it, not an address to ask about."""

    regex = "(?!check/*$)[^/].*?"


class _Json(JSONProvider):
    """Answers through orjson, three times faster than the standard library on a page of practitioners."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        del kwargs
        return orjson.dumps(obj, option=orjson.OPT_UTC_Z).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        del kwargs
        return orjson.loads(s)


def _guarded(*, secure: bool) -> Any:
    guards = dict(guarding(secure=secure))

    def guard(response: Response) -> Response:
        headers = response.headers
        headers.update(guards)
        # What is answered under a token is for its holder alone; the state of the service is of this second.
        # What a view said itself (a file of an export) stands.
        if "Cache-Control" not in headers or _is_page(request.path):
            headers["Cache-Control"] = "no-cache" if _is_page(request.path) else "no-store"
        return response

    return guard


def _is_page(path: str) -> bool:
    return path in ("/", "/docs", "/openapi.json") or path.startswith(
        ("/static/", "/problems", "/registers", "/expiring")
    )
