"""The API of the Annuaire Santé on this machine, as its documentation describes it, and people to put in it.

A search is answered from the state at its beginning, page by page, under `/_page?id=…`. A resource that left
the register is `active: false` with its id and identifiers alone. More than 17 calls within a second get 429,
a call without the key 401, a page that was forgotten 410. All have an OperationOutcome.
"""

import copy
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.directory.sync.sources import Authority

KEY = "11111111-2222-3333-4444-555555555555"
BASE = "/fhir/v2"
KINDS = ("Practitioner", "PractitionerRole", "Organization")
WINDOW = timedelta(days=30)
NOS = "https://mos.esante.gouv.fr/NOS/"
CORE = "https://hl7.fr/ig/fhir/core/"
EXTENSIONS = "https://interop.esante.gouv.fr/ig/fhir/annuaire/StructureDefinition/"
STREET = "http://hl7.org/fhir/StructureDefinition/iso21090-ADXP-"

Resource = dict[str, Any]


@dataclass
class Annuaire:
    """What the server holds, what it was asked, and how it treats who asks."""

    now: datetime
    port: int = 0
    largest_page: int = 200
    held: dict[tuple[str, str], Resource] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    begun: deque[float] = field(default_factory=deque)
    most_within_a_second: int = 0
    forgetful: bool = False
    _pages: dict[str, tuple[list[Resource], list[Resource], int]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}{BASE}"

    def put(self, resources: Iterable[Resource], at: datetime) -> None:
        """What is true from then on; what is said already is no change."""
        for resource in resources:
            key = (resource["resourceType"], resource["id"])
            before = self.held.get(key)
            if before is None or {**before, "meta": None} != {**resource, "meta": None}:
                meta = {**resource.get("meta", {}), "lastUpdated": at.isoformat()}
                self.held[key] = {**copy.deepcopy(resource), "meta": meta}

    def retire(self, kind: str, resource_id: str, at: datetime) -> None:
        """What is left of a resource that is gone."""
        found = self.held[kind, resource_id]
        left = {name: found[name] for name in ("resourceType", "id", "identifier", "name") if name in found}
        self.held[kind, resource_id] = {**left, "active": False, "meta": {"lastUpdated": at.isoformat()}}

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, Resource]:
        """Status and body."""
        self.asked.append(path)
        now = time.monotonic()
        while self.begun and now - self.begun[0] > 1:
            self.begun.popleft()
        self.begun.append(now)
        self.most_within_a_second = max(self.most_within_a_second, len(self.begun))
        if headers.get("ESANTE-API-KEY") != KEY:
            return 401, outcome("login", "No valid key.")
        if len(self.begun) > 17:
            return 429, outcome("throttled", "Rate limit exceeded.")
        where, asked = urlsplit(path), parse_qs(urlsplit(path).query)
        if where.path == f"{BASE}/_page":
            return self._page(asked["id"][0])
        kind = where.path.removeprefix(f"{BASE}/")
        if kind not in KINDS:
            return 404, outcome("not-found", f"No such resource: {kind}.")
        return self._search(kind, {name: values[0] for name, values in asked.items()})

    def _search(self, kind: str, asked: dict[str, str]) -> tuple[int, Resource]:
        count = min(int(asked.pop("_count", "50")), self.largest_page)
        reverse = asked.pop("_revinclude", "")
        found = [one for (of, _), one in sorted(self.held.items()) if of == kind]
        for name, value in asked.items():
            if name == "_id":
                found = [one for one in found if one["id"] in value.split(",")]
            elif name == "organization":
                places = {f"Organization/{one}" for one in value.split(",")}
                found = [one for one in found if one.get("organization", {}).get("reference") in places]
            elif name == "_lastUpdated":
                prefix, since = value[:2], datetime.fromisoformat(value[2:])
                if self.now - since > WINDOW:
                    return 400, outcome("invalid", "_lastUpdated must lie within 30 days.")
                found = [one for one in found if _compared(prefix, updated(one), since)]
            else:
                return 400, outcome("invalid", f"Unknown parameter {name}.")
        included = []
        if reverse == "PractitionerRole:practitioner":
            wanted = {f"Practitioner/{one['id']}" for one in found}
            roles = (one for (of, _), one in sorted(self.held.items()) if of == "PractitionerRole")
            included = [one for one in roles if one.get("practitioner", {}).get("reference") in wanted]
        token = str(len(self._pages))
        self._pages[token] = (copy.deepcopy(found), copy.deepcopy(included), count)
        return self._page(token)

    def _page(self, token: str) -> tuple[int, Resource]:
        if (self.forgetful and "." in token) or token.partition(".")[0] not in self._pages:
            return 410, outcome("expired", "This page is gone.")
        search, _, start = token.partition(".")
        found, included, count = self._pages[search]
        begin = int(start or 0)
        matches = found[begin : begin + count]
        ids = {f"Practitioner/{one['id']}" for one in matches}
        others = [one for one in included if one["practitioner"]["reference"] in ids]
        links = [{"relation": "self", "url": self.url}]
        if begin + count < len(found):
            links.append({"relation": "next", "url": f"{self.url}/_page?id={search}.{begin + count}"})
        entries = [{"resource": one, "search": {"mode": "match"}} for one in matches]
        entries += [{"resource": one, "search": {"mode": "include"}} for one in others]
        return 200, {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries}


def _compared(prefix: str, value: datetime, other: datetime) -> bool:
    return {"ge": value >= other, "gt": value > other, "le": value <= other, "lt": value < other,
            "eq": value == other}[prefix]  # fmt: skip


def updated(resource: Resource) -> datetime:
    return datetime.fromisoformat(resource["meta"]["lastUpdated"])


def outcome(code: str, told: str) -> Resource:
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": code, "diagnostics": told}],
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind: Annuaire

    def do_GET(self) -> None:
        status, found = self.behind.answer(self.path, self.headers)
        body = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/fhir+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing: the test reads `asked`."""


def serving(ca: Authority, annuaire: Annuaire) -> Iterator[Annuaire]:
    """The server over TLS, as long as it is needed."""
    handler = type("Bound", (Handler,), {"behind": annuaire})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*ca.issue("annuaire"))
        http.socket = tls.wrap_socket(http.socket, server_side=True)
        annuaire.port = http.server_port
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield annuaire
        http.shutdown()
        thread.join()


def concept(*codes: tuple[str, str]) -> Resource:
    return {"coding": [{"system": f"{NOS}{name}/FHIR/{name.replace('_', '-')}", "code": code}
                       for name, code in codes if code]}  # fmt: skip


def identifier(kind: str, system: str, value: str) -> Resource:
    coding = {"system": f"{CORE}CodeSystem/fr-core-cs-v2-0203", "code": kind}
    return {"use": "official", "type": {"coding": [coding]}, "system": system, "value": value}


def everything(maker: ModuleType, plan: Any) -> Iterator[Resource]:
    """The people, places and mailboxes of a plan, as the API tells them."""
    yield from places(maker, plan)
    boxes: dict[str, list[tuple[str, ...]]] = {}
    seen = set()
    for row in maker.mailbox_rows(plan):
        if row[0] == "PER" and row[1] not in seen:
            boxes.setdefault(row[4], []).append(row)
        seen.add(row[1])
    for found in maker.people(plan):
        rows = [
            dict(zip(maker.ACTIVITY_COLUMNS, row, strict=True)) for row in maker.activity_rows(plan, found)
        ]
        yield from person(rows, boxes.get(found.national_id, []))


def places(maker: ModuleType, plan: Any) -> Iterator[Resource]:
    """The establishments with their legal entities and mailboxes."""
    boxes: dict[str, list[tuple[str, ...]]] = {}
    for row in maker.mailbox_rows(plan):
        if row[0] == "ORG":
            boxes.setdefault(row[6], []).append(row)
    for number in range(plan.organisations):
        site = maker.organisation(plan, number)
        _, commune, postal_code, town, _ = site.town
        yield {
            "resourceType": "Organization",
            "id": f"003-{site.legal_finess}",
            "active": True,
            "identifier": [identifier("FINEJ", "https://finess.esante.gouv.fr", site.legal_finess)],
            "name": site.name,
        }
        yield {
            "resourceType": "Organization",
            "id": f"001-{site.finess}",
            "active": True,
            "identifier": [
                identifier("IDNST", "urn:oid:1.2.250.1.71.4.2.2", f"1{site.finess}"),
                identifier("FINEG", "https://finess.esante.gouv.fr", site.finess),
                identifier("SIRET", "https://sirene.fr", site.siret),
                identifier("INTRN", "https://rppsrang.esante.gouv.fr", f"F{site.finess}"),
            ],
            "name": site.name,
            "partOf": {"reference": f"Organization/003-{site.legal_finess}"},
            "type": [concept(("TRE_R02-SecteurActivite", "SA01" if site.kind == maker.HOSPITAL else "SA17"))],
            "address": [address(("2", "", "FG", "SAINT ETIENNE"), postal_code, commune, town.title())],
            "telecom": [
                {"system": "phone", "value": "0300000000", "rank": 1},
                *(mailbox(row) for row in boxes.get(site.finess, [])),
            ],
        }


def address(line: tuple[str, ...], postal_code: str, commune: str, town: str) -> Resource:
    names = ("houseNumber", "buildingNumberSuffix", "streetNameType", "streetNameBase")
    parts = [
        {"url": f"{STREET}{name}", "valueString": value}
        for name, value in zip(names, line, strict=True)
        if value
    ]
    insee = {"url": f"{CORE}StructureDefinition/fr-core-address-insee-code",
             "valueCoding": concept(("TRE_R13-Commune", commune))["coding"][0]}  # fmt: skip
    return {"_line": [{"extension": parts}], "city": town, "postalCode": postal_code, "extension": [insee]}


def mailbox(row: tuple[str, ...]) -> Resource:
    kind, value, service, paperless = row[0], row[1], row[7], row[17]
    metadata = [
        {"url": "type", "valueCodeableConcept": concept(("TRE_R257-TypeBAL", kind))},
        *([{"url": "service", "valueString": service}] if service else []),
        *([{"url": "digitization", "valueBoolean": paperless != "N"}] if paperless else []),
    ]
    email = concept(("TRE_R256-TypeMessagerie", "MSSANTE"))["coding"][0]
    return {
        "system": "email",
        "value": value,
        "extension": [
            {"url": f"{CORE}StructureDefinition/fr-core-contact-point-email-type", "valueCoding": email},
            {"url": f"{EXTENSIONS}as-ext-mailbox-mss-metadata", "extension": metadata},
        ],
    }


def person(rows: list[dict[str, str]], boxes: list[tuple[str, ...]]) -> Iterator[Resource]:
    """A Practitioner, the PractitionerRoles, and the Organizations that are nobody else's."""
    first = rows[0]
    national_id = first["Identification nationale PP"]
    own_id = f"005-{national_id}"
    placed = {f"001-{row[6]}" for row in boxes if row[6]}
    name = {"use": "usual", "family": first["Nom d'exercice"], "given": [first["Prénom d'exercice"]],
            "prefix": [first["Code civilité"]]}  # fmt: skip
    if first["Code civilité d'exercice"]:
        name["suffix"] = [first["Code civilité d'exercice"]]
    category = first["Code catégorie professionnelle"]
    exercise = concept(("TRE_G15-ProfessionSante", first["Code profession"]),
                       ("TRE_R09-CategorieProfessionnelle", category))  # fmt: skip
    qualifications = [{"code": exercise}, {"code": concept(("TRE_R48-DiplomeEtatFrancais", "DE05"))}]
    if first["Code savoir-faire"]:
        skill = concept(("TRE_R38-SpecialiteOrdinale", first["Code savoir-faire"]),
                        ("TRE_R04-TypeSavoirFaire", first["Code type savoir-faire"]))  # fmt: skip
        qualifications.append({"code": skill})
    yield {
        "resourceType": "Practitioner",
        "id": own_id,
        "active": True,
        "identifier": [
            identifier("IDNPS", "urn:oid:1.2.250.1.71.4.2.1", national_id),
            identifier("RPPS", "https://rpps.esante.gouv.fr", national_id[1:]),
        ],
        "name": [name],
        "qualification": qualifications,
        "telecom": [mailbox(row) for row in boxes if not row[6]],
    }
    for rank, row in enumerate(rows):
        if not row["Code mode exercice"]:
            continue
        finess = row["Numéro FINESS site"]
        organisation = f"001-{finess}" if finess else f"002-{row['Identifiant technique de la structure']}"
        if not finess:
            yield own_place(organisation, row)
        trace = {"url": f"{EXTENSIONS}as-ext-data-trace", "extension": [
            {"url": "autorite-enregistrement", "valueString": row["Autorité d'enregistrement"]}]}  # fmt: skip
        codes = (("TRE_R22-GenreActivite", row["Code genre activité"]),
                 ("TRE_R23-ModeExercice", row["Code mode exercice"]), ("TRE_R21-Fonction", row["Code rôle"]),
                 ("TRE_R06-SectionTableauCNOP", row["Code section tableau pharmaciens"]))  # fmt: skip
        yield {
            "resourceType": "PractitionerRole",
            "id": f"004-{national_id}-{rank}-{organisation[4:]}",
            "active": True,
            "meta": {"extension": [trace]},
            "identifier": [identifier("", "https://rpps.esante.gouv.fr", f"{national_id}{rank}")],
            "practitioner": {"reference": f"Practitioner/{own_id}"},
            "organization": {"reference": f"Organization/{organisation}"},
            "code": [concept(one) for one in codes if one[1]],
            "telecom": [mailbox(row) for row in boxes if f"001-{row[6]}" == organisation and placed],
        }


def own_place(organisation: str, row: dict[str, str]) -> Resource:
    """A surgery, which is no establishment of FINESS."""
    structure = row["Identifiant technique de la structure"]
    numbers = [identifier("INTRN", "https://rppsrang.esante.gouv.fr", structure)]
    if row["Numéro SIRET site"]:
        numbers.append(identifier("SIRET", "https://sirene.fr", row["Numéro SIRET site"]))
    made: Resource = {
        "resourceType": "Organization",
        "id": organisation,
        "active": True,
        "identifier": numbers,
        "type": [concept(("TRE_R02-SecteurActivite", row["Code secteur d'activité"]))],
    }
    if row["Raison sociale site"]:
        made["name"] = row["Raison sociale site"]
    if row["Libellé Voie (coord. structure)"]:
        names = ("Numéro Voie", "Indice répétition voie", "Code type de voie", "Libellé Voie")
        line = tuple(row[f"{one} (coord. structure)"] for one in names)
        made["address"] = [
            address(line, row["Code postal (coord. structure)"], row["Code commune (coord. structure)"],
                    row["Libellé commune (coord. structure)"])
        ]  # fmt: skip
    if row["Téléphone (coord. structure)"]:
        made["telecom"] = [{"system": "phone", "value": row["Téléphone (coord. structure)"]}]
    return made
