"""How the nights of the registers read to a person, in French and in English: states, steps, counts, reasons.

Tables of words and a few ways of writing figures; no rule. A code that has no words here shows as itself.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from api.words.figures import FIRM, Said, number
from directory.sync.runs.history import RunState

FRANCE = ZoneInfo("Europe/Paris")
_MONTHS = (
    "janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre",
    "novembre", "décembre",
)  # fmt: skip


def _said(words: Mapping[Any, tuple[str, str]]) -> Mapping[Any, Said]:
    return MappingProxyType({key: Said(*both) for key, both in words.items()})


REGISTER_WORDS = _said(
    {
        "rpps": ("Professionnels (RPPS)", "Professionals (RPPS)"),
        "finess": ("Établissements (FINESS)", "Establishments (FINESS)"),
        "mailboxes": ("Boîtes MSSanté", "MSSanté mailboxes"),
        "trusted-domains": ("Domaines de confiance", "Trusted domains"),
    }
)
STATE_WORDS = _said(
    {
        RunState.RUNNING: ("en cours", "at work"),
        RunState.PLANNED: ("projet", "plan"),
        RunState.HELD: ("retenu", "held"),
        RunState.APPLIED: ("appliqué", "applied"),
        RunState.REFUSED: ("refusé", "refused"),
        RunState.INTERRUPTED: ("interrompu", "cut off"),
    }
)
STEP_WORDS = _said(
    {
        "fetch": ("réception", "fetch"),
        "verify": ("vérification", "verify"),
        "parse": ("lecture", "parse"),
        "check": ("contrôle", "check"),
        "stage": ("préparation", "stage"),
        "diff": ("comparaison", "compare"),
        "plan": ("projet", "plan"),
        "apply": ("application", "apply"),
        "report": ("compte rendu", "report"),
    }
)
COUNT_WORDS = _said(
    {
        "lines": ("lignes du fichier", "lines of the file"),
        "accepted": ("lignes acceptées", "lines accepted"),
        "unchanged": ("lignes inchangées", "lines unchanged"),
        "rejected": ("lignes rejetées", "lines rejected"),
        "created": ("arrivées", "arrived"),
        "changed": ("modifiés", "changed"),
        "removed": ("départs", "departed"),
        "ignored": ("lignes laissées de côté", "lines left aside"),
        "recoded": ("lignes d'un autre codage", "lines in another encoding"),
    }
)
# The same where there is little room.
BAND_WORDS = _said(
    {
        "created": ("arrivées", "arrived"),
        "changed": ("modifiés", "changed"),
        "removed": ("départs", "departed"),
        "rejected": ("rejets", "rejected"),
    }
)
# Why a whole file was refused, beside the bounds below.
FILE_REASON_WORDS = _said(
    {
        "empty-file": ("Le fichier est vide.", "The file is empty."),
        "no-rows": ("Le fichier n'a qu'un en-tête.", "The file has a header and nothing below it."),
        "truncated": ("Le fichier a été coupé.", "The file was cut."),
        "missing-header": ("Ce n'est pas un fichier de ce registre.", "This is no file of this register."),
        "missing-column": ("Une colonne manque.", "A column is missing."),
        "ambiguous-column": ("Une colonne y est deux fois.", "A column is there twice."),
        "missing-member": ("L'archive n'a pas la liste principale.", "The archive lacks the roll."),
        "ambiguous-member": ("L'archive a deux fois la même liste.", "The archive has a list twice."),
        "too-many-members": ("L'archive a trop de fichiers.", "The archive holds too many files."),
        "foreign-member": ("L'archive contient autre chose.", "The archive holds something else."),
        "damaged-archive": ("L'archive est abîmée.", "The archive is damaged."),
        "too-large": ("Le fichier est trop volumineux.", "The file is too large."),
        "line-too-long": ("Une ligne est trop longue.", "A line is too long."),
        "web-page": (
            "À la place du registre, une page web : la source n'avait rien à donner.",
            "A web page in the place of the register: the source had none to give.",
        ),
        "no-archive": ("Ce n'est pas une archive.", "This is no archive."),
        "wrong-encoding": ("Le fichier n'est pas en UTF-8.", "The file is not UTF-8."),
        "undated-archive": (
            "Rien ne dit de quel jour est l'archive.",
            "Nothing says of which day the archive is.",
        ),
        "older-than-applied": (
            "Le fichier est plus ancien que le dernier appliqué.",
            "The file is older than the one applied last.",
        ),
        "no-whole-file": (
            "Aucun fichier complet n'a encore été appliqué.",
            "No whole file has been applied yet.",
        ),
        "increment-gap": (
            "Des changements manquent entre ce qui est connu et cet incrément.",
            "Changes are missing between what is known and this increment.",
        ),
        "no-increments": (
            "Ce registre n'est donné que par fichiers complets.",
            "This register is told by whole files only.",
        ),
        "kept-file-gone": ("Le fichier gardé n'est plus le même.", "The kept file is no longer the same."),
        "superseded": ("Un fichier plus récent a été appliqué.", "A newer file has been applied."),
    }
)
# Why one line was rejected; those of SavoirFaire begin with `know-how-`.
ROW_REASON_WORDS = _said(
    {
        "wrong-cell-count": ("nombre de cellules faux", "wrong number of cells"),
        "control-character": ("caractère de contrôle", "control character"),
        "line-too-long": ("ligne trop longue", "line too long"),
        "rpps-check-digit": ("clé du numéro RPPS fausse", "RPPS number fails its check digit"),
        "malformed-rpps": ("numéro RPPS mal formé", "malformed RPPS number"),
        "adeli-check-digit": ("clé du numéro ADELI fausse", "ADELI number fails its check digit"),
        "malformed-adeli": ("numéro ADELI mal formé", "malformed ADELI number"),
        "malformed-national-id": ("numéro national mal formé", "malformed national number"),
        "identifier-disagrees": ("identifiants qui se contredisent", "identifiers that disagree"),
        "no-name": ("sans nom", "no name"),
        "no-profession": ("sans profession", "no profession"),
        "know-how-without-activity": ("savoir-faire sans activité", "know-how without activity"),
        "malformed-finess": ("numéro FINESS mal formé", "malformed FINESS number"),
        "finess-check-digit": ("clé du numéro FINESS fausse", "FINESS number fails its check digit"),
        "unknown-row-type": ("type de ligne inconnu", "unknown type of line"),
        "bad-date": ("date impossible", "impossible date"),
        "number-claimed-twice": ("numéro pris deux fois", "number claimed twice"),
        "malformed-address": ("adresse mal formée", "malformed address"),
        "unknown-mailbox-kind": ("type de boîte inconnu", "unknown kind of mailbox"),
        "no-holder": ("boîte sans titulaire", "mailbox without holder"),
        "no-structure": ("boîte sans structure", "mailbox without structure"),
        "address-claimed-twice": ("adresse prise par deux titulaires", "address claimed by two holders"),
        "person-not-found": ("personne introuvable", "person not found"),
        "no-national-id": ("sans identifiant national", "no national identifier"),
        "malformed-resource": ("ressource mal formée", "malformed resource"),
        "separator-in-cell": ("séparateur dans une valeur", "separator within a value"),
        "profession-unclear": ("profession non précisée", "profession not told"),
        "organisation-not-found": ("structure introuvable", "organisation not found"),
        "address-held-by-another": ("adresse d'un autre titulaire", "address held by another"),
        "malformed-domain": ("domaine mal formé", "malformed domain"),
        "malformed-operator": ("opérateur mal formé", "malformed operator"),
    }
)
# The sentence of a bound that is passed; the English stands with the bound itself
# (directory/sync/runs/bounds.toml).
_FINDINGS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("every", "from-the-future"): "Le fichier se dit fait dans {number} heures.",
        ("every", "stamped-ahead"): "Le fichier se dit fait, à la minute près, dans {number} heures.",
        ("every", "too-many-rejections"): "{share} des lignes ne peuvent être lues.",
        ("every", "more-rejections"): "Les lignes illisibles augmentent de {share} du fichier.",
        ("every", "too-few-rows"): "Le fichier perd {share} de ses lignes depuis le dernier appliqué.",
        ("every", "too-many-rows"): "Le fichier gagne {share} de lignes depuis le dernier appliqué.",
        ("rpps", "columns-missing"): "{number} colonnes de moins que le dernier fichier appliqué.",
        ("rpps", "too-many-removals"): "{share} des professionnels quitteraient le registre.",
        ("rpps", "too-many-adeli-removals"): "{share} des numéros ADELI disparaîtraient.",
        ("rpps", "too-many-arrivals"): "{share} de professionnels en plus arriveraient.",
        ("rpps", "too-many-changes"): "{share} des professionnels changeraient.",
        ("rpps", "too-many-moves"): "{share} des professionnels n'exerceraient plus qu'ailleurs.",
        ("rpps", "too-many-stopped"): "{share} des professionnels perdraient leur dernier lieu d'exercice.",
        ("rpps", "too-many-skills-lost"): "{share} des professionnels perdraient un savoir-faire.",
        ("rpps", "columns-emptied"): "{share} des professionnels perdraient tout ce qu'une colonne en dit.",
        ("rpps", "unknown-codes"): "{share} des professionnels recevraient un code inconnu de nos listes.",
        ("finess", "too-many-removals"): "{share} des établissements quitteraient le registre.",
        ("finess", "too-many-closures"): "{share} des établissements seraient fermés.",
        ("finess", "too-many-mailboxes-deserted"):
            "{share} des boîtes d'organisations ont un numéro d'entité juridique ou un SIRET qu'aucun"
            " établissement ne porterait plus.",
        ("finess", "too-many-arrivals"): "{share} d'établissements en plus arriveraient.",
        ("finess", "too-many-changes"): "{share} des établissements changeraient.",
        ("mailboxes", "columns-missing"): "{number} colonnes de moins que le dernier fichier appliqué.",
        ("mailboxes", "too-many-removals"): "{share} des boîtes de personnes seraient fermées.",
        ("mailboxes", "too-many-organisation-removals"):
            "{share} des boîtes d'organisations seraient fermées.",
        ("mailboxes", "too-many-arrivals"): "{share} de boîtes de personnes en plus seraient ouvertes.",
        ("mailboxes", "too-many-organisation-arrivals"):
            "{share} de boîtes d'organisations en plus seraient ouvertes.",
        ("mailboxes", "too-many-moves"): "{share} des boîtes changeraient de titulaire.",
        ("mailboxes", "unknown-codes"):
            "{share} des boîtes recevraient un type de numéro de structure inconnu de nos listes.",
        ("trusted-domains", "too-many-domains-lost"): "{share} des domaines n'auraient plus aucun opérateur.",
        ("trusted-domains", "too-many-mailboxes-cut-off"):
            "{share} des boîtes sont dans des domaines qui n'auraient plus d'opérateur.",
        ("trusted-domains", "too-many-new-domains"): "{share} de domaines en plus seraient admis.",
        ("trusted-domains", "too-many-moves"): "{share} des domaines recevraient un nouvel opérateur.",
    }
)  # fmt: skip


# Oddities of a file that was taken all the same; the English stands with the finding.
_REMARKS: Mapping[str, str] = MappingProxyType(
    {
        "no-line-end": "Le fichier n'a pas de fin de ligne ; sa dernière ligne est entière.",
        "no-closing-tag": "La liste n'a pas sa balise fermante ; ses domaines y sont tous.",
    }
)


def finding_in_french(register: str, finding: Mapping[str, Any]) -> str:
    """A finding as a French sentence, with the bound that was passed."""
    name, value, bound = finding["name"], finding["value"], finding["bound"]
    if name in _REMARKS:
        return _REMARKS[name]
    sentence = _FINDINGS.get((register, name)) or _FINDINGS.get(("every", name))
    if sentence is None:
        return f"Seuil « {name} » dépassé{FIRM}: {_decimal(value)}, au-dessus de {_decimal(bound)}."
    written = share if "{share}" in sentence else number
    return f"{sentence.format(share=share(value), number=number(value))} Seuil{FIRM}: {written(bound)}."


def has_words_for(register: str, bound: str) -> bool:
    """Whether a bound of a register is told in French words of its own."""
    return (register, bound) in _FINDINGS or ("every", bound) in _FINDINGS


def refusal_words(register: str, reason: str) -> Said:
    """Why a whole file was refused: the words of the reason; of a bound, that it was passed."""
    if reason in FILE_REASON_WORDS:
        return FILE_REASON_WORDS[reason]
    if has_words_for(register, reason):
        return Said("Un seuil que nul ne peut lever est dépassé.", "A bound that nobody may lift is passed.")
    return Said(reason, reason)


def row_reason_words(reason: str) -> Said:
    """Why a line was rejected."""
    plain = reason.removeprefix("know-how-")
    said = ROW_REASON_WORDS.get(reason) or ROW_REASON_WORDS.get(plain) or Said(reason, reason)
    if reason != plain and reason not in ROW_REASON_WORDS:
        return Said(f"savoir-faire{FIRM}: {said.fr}", f"know-how: {said.en}")
    return said


def share(value: float) -> str:
    """0.0123 as `1,23 %`: as many digits as tell it from 0."""
    digits = next((n for n in (1, 2, 3) if round(value * 100, n) != 0), 3)
    return f"{float(f'{value * 100:.{digits}f}'):g}".replace(".", ",") + f"{FIRM}%"


def hours(time: timedelta) -> str:
    """A limit, as `48 h`."""
    return f"{time // timedelta(hours=1)}{FIRM}h"


def lasted(time: timedelta | None) -> str:
    """A duration as `0,4 s`, `12 s`, `3 min 05 s`; `…` while it lasts."""
    if time is None:
        return "…"
    seconds = time.total_seconds()
    if seconds < 10:  # noqa: PLR2004 - below it the tenth is seen
        return f"{seconds:.1f}".replace(".", ",") + f"{FIRM}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{FIRM}min {rest:02}{FIRM}s" if minutes else f"{rest}{FIRM}s"


def instant(at: datetime) -> Said:
    """An instant by the clock of France in French, in UTC in English."""
    here = at.astimezone(FRANCE)
    first = "1er" if here.day == 1 else str(here.day)
    french = f"{first} {_MONTHS[here.month - 1]} {here.year} à {here.hour}{FIRM}h{FIRM}{here.minute:02}"
    return Said(french, f"{at:%Y-%m-%d %H:%M} UTC")


def day(at: datetime) -> str:
    """The day by the clock of France, as `01/09/2026`."""
    return f"{at.astimezone(FRANCE):%d/%m/%Y}"


def _decimal(value: float) -> str:
    return f"{value:g}".replace(".", ",")
