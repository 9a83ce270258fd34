"""What the registers say from day to day, and how runs of them end."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.directory.sync import annuaire as fhir
from tests.directory.sync.sources import authority
from tests.releases.making import nights
from tests.releases.making.acts import TODAY, mailboxes_of
from tests.releases.making.installation import Installation
from tests.releases.making.nights import Edit

ORDER = ("trusted-domains", "finess", "rpps", "mailboxes")
STEPS = ("fetch", "verify", "parse", "check", "stage", "diff", "plan", "apply")
NARROW = "[rpps.too-many-changes]\nfloor = 0\none = 0\ntwo = 1\n"


@dataclass(frozen=True)
class Cast:
    """Who is who: doctors by two names, people of ADELI, mailboxes of structures."""

    two_names: tuple[str, str]
    adeli: tuple[str, str]
    organisations: tuple[str, ...]
    finess: tuple[str, ...]
    works_there: str

    @property
    def machines(self) -> tuple[str, ...]:
        """Mailboxes of the first establishment: two of applications, one of a service."""
        there = self.organisations[0].partition("@")[2]
        first, second = (name for name in self.organisations if name.endswith(there))
        return f"app.{first}", f"app.{second}", second

    @property
    def new_numbers(self) -> dict[str, str]:
        """What replaces the numbers of ADELI: beyond those of the demo."""
        made = (nights.generator().with_key(f"10099{900 + place:05d}") for place in range(2))
        return {old: f"8{new}" for old, new in zip(self.adeli, made, strict=True)}


def cast() -> Cast:
    people = nights.people()
    nurses = [
        person.national_id for person in people if person.profession.code == "70" and not person.student
    ]
    adeli = [person.national_id for person in people if person.id_type == "0"]
    doctor = next(one for one in people if one.works_at == 0 and one.profession.code == "10")
    organisations = [row for row in nights.mailboxes() if row[0] == "ORG"]
    return Cast(
        (nurses[0], nurses[1]), (adeli[0], adeli[1]), tuple(row[1] for row in organisations),
        tuple(sorted({row[6] for row in organisations})), doctor.national_id,
    )  # fmt: skip


def first_day(who: Cast) -> dict[str, list[Edit]]:
    """People with two names, mailboxes with two structures, mailboxes of machines."""
    machine, other, service = who.machines
    one, another = (mailboxes_of(number)[0] for number in who.two_names)
    return {
        "rpps": [nights.second_name(number, "ZABEL") for number in who.two_names],
        "mailboxes": [
            nights.also_of(one, who.finess[1], "PHARMACIE"),
            nights.also_of(another, who.finess[2], "PHARMACIE"),
            nights.also_kind(who.organisations[0], "APP", machine),
            nights.also_kind(service, "APP", other),
        ],
    }


def make_first_day(here: Installation, who: Cast) -> None:
    """Before `sceau up --demo`, which takes what lies there."""
    nights.files(here.state / "registers", TODAY - timedelta(days=4), first_day(who))


@dataclass(frozen=True)
class Leaving:
    """People and addresses, all certified: who departs, stops, whose mailbox moves, closes or is claimed."""

    departed: str
    answering: str
    stopped: str
    moved: str
    closed: str
    claimed: str
    to: str


def second_day(who: Cast, leaving: Leaving) -> dict[str, list[Edit]]:
    linked, retired = who.adeli
    new = who.new_numbers[linked]
    # The demo would ask for a certificate of such a mailbox, which gets none yet.
    personal = mailboxes_of(who.two_names[0])[0]
    cabinet = nights.also_kind(personal, "CAB", f"cab.{personal}", who.two_names[0])
    day = first_day(who)
    rpps = [nights.second_name(who.two_names[0], "ZABEL"), nights.renumbered(linked, new),
            nights.dropped(retired, leaving.departed, leaving.answering),
            nights.out_of_practice(leaving.stopped)]  # fmt: skip
    mailboxes = [
        *(day["mailboxes"][place] for place in (0, 2, 3)), cabinet, nights.renumbered(linked, new),
        nights.passed_to(leaving.moved, leaving.to), nights.dropped(leaving.closed),
        nights.passed_to(leaving.claimed, leaving.to, also=True),
    ]  # fmt: skip
    return {
        "rpps": rpps, "mailboxes": mailboxes,
        "finess": [nights.replaced(*nights.LYON[1:]), nights.replaced(*nights.WITH_A_NUMBER)],
        "trusted-domains": [nights.replaced("CHU fictif de Lyon", "CHU imaginaire de Lyon"),
                            nights.without_element("Reprise en cours")],
    }  # fmt: skip


def third_day(who: Cast, leaving: Leaving) -> dict[str, list[Edit]]:
    """The number that was retired has a successor after all; a domain is trusted no more."""
    day = second_day(who, leaving)
    people = [nights.dropped(leaving.departed, leaving.answering), *day["rpps"][:2], day["rpps"][3]]
    back = nights.renumbered(who.adeli[1], who.new_numbers[who.adeli[1]])
    domains = [*day["trusted-domains"], nights.without_element("chu-lyon.hopital")]
    return {
        **day, "rpps": [*people, back], "mailboxes": [*day["mailboxes"], back], "trusted-domains": domains,
    }  # fmt: skip


def take(here: Installation, days_ago: int, edits: Mapping[str, list[Edit]], **settings: str) -> None:
    """Apply the files of that day; two administrators let through what is held."""
    made = nights.files(here.state / f"day-{days_ago}", TODAY - timedelta(days=days_ago), edits)
    for register in ORDER:
        said = json.loads(
            here.sceau("sync", "run", register, made[register], "--apply", "--json", **settings)
        )
        if said["state"] == "held":
            approve(here, str(said["run"]))


def approve(here: Installation, run: str) -> None:
    for who in ("admin_a", "admin_b"):
        here.sceau("sync", "approve", run, "--comment", "kept", "--as", who)
    here.sceau("sync", "resume", run)


def narrow(here: Installation) -> str:
    """A file of bounds beyond which any change of a person waits for one."""
    path = here.state / "bounds.toml"
    path.write_text(NARROW)
    return str(path)


def end_in_each_way(here: Installation, who: Cast, leaving: Leaving) -> None:
    """Planned, refused, held for good; cut off at each step, the last one still said to be running."""
    day = third_day(who, leaving)
    late = {**day, "rpps": [*day["rpps"], nights.replaced("|RONCEVIGNE|", "|RONCEVIGNES|")]}
    made = nights.files(here.state / "day-1", TODAY - timedelta(days=1), late)
    here.sceau("sync", "run", "rpps", made["rpps"])
    broken = here.state / made["finess"].name.replace("stock", "stock-rompu")
    broken.write_text("finess;etalab;111\n")
    here.sceau("sync", "run", "finess", broken, "--apply")
    for step in STEPS:
        here.sceau("sync", "run", "finess", made["finess"], "--apply", failpoint=f"sync.{step}=kill")
    here.sceau("sync", "run", "rpps", made["rpps"], "--apply", bounds_file=narrow(here))


@contextmanager
def serving(here: Installation) -> Iterator[fhir.Annuaire]:
    """The API of the Annuaire Santé, and a file of sources that names it."""
    (here.state / "api-ca").mkdir(exist_ok=True)
    ca = authority(here.state / "api-ca")
    running = fhir.serving(ca, fhir.Annuaire(datetime.now(UTC)))
    yield next(running)
    next(running, None)


def sources(here: Installation, port: int) -> str:
    (here.state / "annuaire.key").write_text(f"{fhir.KEY}\n")
    path = here.state / "sources.toml"
    path.write_text(
        f'hosts = ["localhost"]\n[fhir]\nurl = "https://localhost:{port}{fhir.BASE}/"\n'
        'key_file = "annuaire.key"\ntrust_anchor = "api-ca/ca.pem"\nallow_private = true\n'
    )
    return str(path)


def ask_the_api(here: Installation) -> None:
    """Newcomers between two nights, with the API's own number of each activity."""
    larger, known = nights.plan(practitioners=90), {person.national_id for person in nights.people()}
    now = datetime.now(UTC)
    with serving(here) as api:
        for one in fhir.everything(nights.generator(), larger):
            named = {word for word in one["id"].split("-") if len(word) >= 10}
            newcomer = one["resourceType"] != "Organization" and not named & known
            api.put([one], now - timedelta(minutes=20 if newcomer else 20 * 24 * 60))
        here.sceau("jobs", "run", "fhir-increment", sources_file=sources(here, api.port))
