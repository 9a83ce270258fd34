"""Every problem a client may meet, once: its status, its names, what to do about it, in French and English.

`/problems/<code>`, the OpenAPI document and docs/reference/problems.md are all made from this table. A code
keeps its meaning for ever: clients test for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Entry:
    """One code: HTTP status, title and advice in English, then in French."""

    code: str
    status: int
    title: str
    english: str
    french_title: str
    french: str


ENTRIES: tuple[Entry, ...] = (
    # ---- The request itself
    Entry(
        "malformed-request", 400, "The request cannot be read",
        "The body is not the JSON that its Content-Type says, or the request line is broken.",
        "Demande illisible",
        "Le corps n'est pas le JSON que son Content-Type annonce, ou la ligne de requête est abîmée.",
    ),
    Entry(
        "invalid-request", 422, "The request has a value that does not fit",
        "`errors` names each field that is missing, unknown or out of bounds, and what is expected there.",
        "Une valeur de la demande ne convient pas",
        "`errors` nomme chaque champ manquant, inconnu ou hors bornes, et dit ce qui y est attendu.",
    ),
    Entry(
        "body-too-large", 413, "The request is too large",
        "`largest` says how many octets a body of this request holds, unpacked: room for 10,000 addresses, or"
        " for a batch of a thousand requests. Send it in parts. A check of recipients takes up to 1,000,000"
        " addresses and 32 MiB with `Prefer: respond-async`.",
        "Demande trop volumineuse",
        "`largest` dit combien d'octets compte au plus un corps de cette demande, décompressé : de quoi"
        " porter 10 000 adresses, ou un lot de mille demandes. Envoyez-le en plusieurs fois. Une vérification"
        " de destinataires va jusqu'à 1 000 000 d'adresses et 32 Mio avec `Prefer: respond-async`.",
    ),
    Entry(
        "csr-too-large", 413, "The certificate request is too large",
        "A certificate request (CSR) holds at most 16,384 characters; a sound one has a tenth of that.",
        "Demande de certificat trop volumineuse",
        "Une demande de certificat (CSR) compte au plus 16 384 caractères ; une bonne en a dix fois moins.",
    ),
    Entry(
        "unsupported-media-type", 415, "The body is of a type that is not read here",
        "Send JSON, with Content-Type: application/json.",
        "Type de corps non pris en charge",
        "Envoyez du JSON, avec Content-Type: application/json.",
    ),
    Entry(
        "no-such-resource", 404, "There is nothing at this address",
        "Compare the path with /openapi.json; every resource of this service is listed there.",
        "Rien à cette adresse",
        "Comparez le chemin avec /openapi.json : toutes les ressources du service y figurent.",
    ),
    Entry(
        "method-not-allowed", 405, "This resource does not know this method",
        "The Allow header names the methods it knows.",
        "Méthode inconnue de cette ressource",
        "L'en-tête Allow nomme les méthodes qu'elle connaît.",
    ),
    # ---- Asked twice, or too often
    Entry(
        "malformed-idempotency-key", 400, "The Idempotency-Key is not one",
        "Send one string of 1 to 255 printable characters, best a new UUID, in double quotes or bare.",
        "Idempotency-Key mal formée",
        "Envoyez une chaîne de 1 à 255 caractères imprimables, par exemple un UUID neuf.",
    ),
    Entry(
        "idempotency-key-reused", 422, "Something else was asked under this Idempotency-Key",
        "A key stands for one request, body and all, for 24 hours. Take a new key for a new request.",
        "Autre chose a été demandé sous cette Idempotency-Key",
        "Une clé désigne une demande et une seule, corps compris, pendant 24 heures. Prenez-en une neuve.",
    ),
    Entry(
        "request-in-progress", 409, "The same request is being worked on",
        "Send it again under the same key after the seconds that Retry-After gives.",
        "La même demande est en cours",
        "Renvoyez-la sous la même clé après les secondes que donne Retry-After.",
    ),
    Entry(
        "quota-reached", 429, "The quota of certificates is reached",
        "`opens_at` says when more may be made. If you did not expect this, somebody else may have your "
        "token.",
        "Quota de certificats atteint",
        "`opens_at` dit quand d'autres pourront être faits. Si vous ne l'attendiez pas, quelqu'un a pu "
        "voler votre jeton.",
    ),
    Entry(
        "withdrawal-limit-reached", 429, "The limit on taking trust away is reached",
        "`scope` says whose, `opens_at` when more may be taken alone. A second person of the same body "
        "agrees for `token` (POST /v1/withdrawal-limits/agreements). If you did not expect this, somebody "
        "else may have the token.",
        "Limite de retrait atteinte",
        "`scope` dit laquelle, `opens_at` quand on pourra retirer davantage seul. Un second agent de la "
        "même autorité accepte pour `token` (POST /v1/withdrawal-limits/agreements). Si vous ne "
        "l'attendiez pas, quelqu'un a pu voler le jeton.",
    ),
    Entry(
        "reading-quota-reached", 429, "The quota of reading is reached",
        "`policy` says which quota, `left` what is left, `opens_at` and Retry-After when it is enough. Ask "
        "for fewer, or later. For very many, keep a copy (GET /v1/exports, GET /v1/changes).",
        "Quota de lecture atteint",
        "`policy` dit quel quota, `left` ce qu'il en reste, `opens_at` et Retry-After quand ce sera assez. "
        "Demandez moins, ou plus tard. Pour de très grands besoins, tenez une copie (GET /v1/exports, GET "
        "/v1/changes).",
    ),
    Entry(
        "allotment-open", 409, "More may be taken already",
        "`left` says from how many. An agreement opens one allotment; agree again when it is used.",
        "Une tranche est déjà ouverte",
        "`left` dit combien il reste. Un accord ouvre une tranche ; acceptez de nouveau une fois celle-ci "
        "épuisée.",
    ),
    Entry(
        "unknown-token", 404, "There is no such token of the same body",
        "Take the number that the refusal gives in `token`; only live tokens of one's own body are known.",
        "Jeton inconnu dans cette autorité",
        "Prenez le numéro donné par le refus dans `token` ; seuls les jetons valides de sa propre autorité "
        "sont connus.",
    ),
    Entry(
        "key-blocked", 422, "This key must never be certified",
        "`cause` says why: it was reported compromised, is on a list of weak keys, or is another person's. "
        "Make a new key.",
        "Cette clé ne doit jamais être certifiée",
        "`cause` dit pourquoi : signalée compromise, connue pour faible, ou clé d'une autre personne. Faites "
        "une nouvelle clé.",
    ),
    Entry(
        "key-period-over", 422, "This key has served long enough",
        "A key may be certified again within its period (824 days) only. Make a new key.",
        "Cette clé a assez servi",
        "Une clé n'est certifiée à nouveau que pendant sa période (824 jours). Faites-en une neuve.",
    ),
    Entry(
        "identity-too-old", 409, "The identity was checked too long ago",
        "A check holds for 825 days. Check the identity again and ask for a new enrolment.",
        "La vérification d'identité est trop ancienne",
        "Une vérification vaut 825 jours. Vérifiez l'identité de nouveau et demandez un nouvel enrôlement.",
    ),
    Entry(
        "pkcs12-shown-once", 409, "This file was made, and shown once",
        "The service kept nothing of it. If the answer was lost, revoke the certificate and ask under a "
        "new key.",
        "Ce fichier a été fait et montré une fois",
        "Le service n'en a rien gardé. Si la réponse s'est perdue, révoquez le certificat et demandez sous "
        "une autre clé.",
    ),
    Entry(
        "no-compromise-proof", 422, "This proves nothing about the key",
        "Send a certificate request signed by the key itself, whose common name says: "
        "this key is compromised.",
        "Ceci ne prouve rien de la clé",
        "Envoyez une demande de certificat signée par la clé elle-même, dont le nom commun dit : "
        "this key is compromised.",
    ),
    # ---- Who asks
    Entry(
        "no-token", 401, "A token is needed",
        "Send the token you were given: Authorization: Bearer sceau_…",
        "Il faut un jeton",
        "Envoyez le jeton qui vous a été remis : Authorization: Bearer sceau_…",
    ),
    Entry(
        "bad-token", 401, "The token is not accepted",
        "It is unknown, expired or revoked; the service does not say which. Ask for a new one.",
        "Jeton refusé",
        "Il est inconnu, expiré ou révoqué ; le service ne dit pas lequel des trois. Demandez-en un "
        "nouveau.",
    ),
    Entry(
        "role-lacking", 403, "The token's role does not allow this",
        "`roles` names the roles that may do it. A role is given with the token and never changes.",
        "Le rôle du jeton ne le permet pas",
        "`roles` nomme les rôles qui le peuvent. Un rôle est donné avec le jeton et ne change pas.",
    ),
    # ---- Identifiers
    Entry(
        "malformed-address", 400, "The mailbox address is not well formed",
        "An address is local@domain, without display name, quotes or spaces, its domain as IDNA 2008 allows "
        "it (RFC 5891). In a query, a `+` means a space: write `%2B`. In a bulk check the same code "
        "is a reason of the verdict, so that one bad address does not sink the others.",
        "Adresse de messagerie mal formée",
        "Une adresse s'écrit nom@domaine, sans libellé, guillemets ni espaces, le domaine selon IDNA 2008 "
        "(RFC 5891). Dans une requête, `+` vaut une espace : écrire `%2B`. Dans une vérification en "
        "masse, le même code est un motif du verdict : une mauvaise adresse n'emporte pas les autres.",
    ),
    Entry(
        "malformed-serial", 400, "The serial number is not one",
        "A serial number is written in 1 to 40 hexadecimal digits, as this service gives it.",
        "Numéro de série mal formé",
        "Un numéro de série s'écrit en 1 à 40 chiffres hexadécimaux, tel que ce service le donne.",
    ),
    Entry(
        "malformed-national-id", 400, "The national number is not one",
        "A national number is the digit of its type, then the number. 8 and the RPPS number, 0 and the "
        "ADELI number, 3 and FINESS/local number, 5 and SIRET/local number.",
        "Numéro national mal formé",
        "Un numéro national est le chiffre de son type puis le numéro. 8 et le numéro RPPS, 0 et le numéro"
        " ADELI, 3 et FINESS/numéro local, 5 et SIRET/numéro local.",
    ),
    Entry(
        "malformed-rpps", 400, "The RPPS number is not one",
        "An RPPS number has eleven digits.",
        "Numéro RPPS mal formé",
        "Un numéro RPPS compte onze chiffres.",
    ),
    Entry(
        "rpps-check-digit", 400, "The RPPS number fails its check digit",
        "One digit is wrong or two are swapped: read it again from the card or the register.",
        "Clé du numéro RPPS fausse",
        "Un chiffre est faux ou deux sont intervertis : relisez-le sur la carte ou au registre.",
    ),
    Entry(
        "malformed-adeli", 400, "The ADELI number is not one",
        "An ADELI number has nine characters: the department, then the number.",
        "Numéro ADELI mal formé",
        "Un numéro ADELI compte neuf caractères : le département, puis le numéro.",
    ),
    Entry(
        "adeli-check-digit", 400, "The ADELI number fails its check digit",
        "One digit is wrong or two are swapped: read it again.",
        "Clé du numéro ADELI fausse",
        "Un chiffre est faux ou deux sont intervertis : relisez-le.",
    ),
    Entry(
        "malformed-finess", 400, "The FINESS number is not one",
        "A FINESS number has nine characters.",
        "Numéro FINESS mal formé",
        "Un numéro FINESS compte neuf caractères.",
    ),
    Entry(
        "finess-check-digit", 400, "The FINESS number fails its check digit",
        "One digit is wrong or two are swapped: read it again.",
        "Clé du numéro FINESS fausse",
        "Un chiffre est faux ou deux sont intervertis : relisez-le.",
    ),
    Entry(
        "malformed-siret", 400, "The SIRET number is not one",
        "A SIRET number has fourteen digits.",
        "Numéro SIRET mal formé",
        "Un numéro SIRET compte quatorze chiffres.",
    ),
    Entry(
        "siret-check-digit", 400, "The SIRET number fails its check digit",
        "One digit is wrong or two are swapped: read it again.",
        "Clé du numéro SIRET fausse",
        "Un chiffre est faux ou deux sont intervertis : relisez-le.",
    ),
    Entry(
        "malformed-domain", 400, "The domain is not a domain name",
        "A domain has at least two labels of letters, digits and hyphens. Letters outside ASCII are those of "
        "IDNA 2008 (RFC 5891), in lower case: none is turned into another.",
        "Nom de domaine mal formé",
        "Un domaine compte au moins deux étiquettes de lettres, chiffres et traits d'union. Hors ASCII, les "
        "lettres sont celles d'IDNA 2008 (RFC 5891), en minuscules : aucune n'est changée en une autre.",
    ),
    Entry(
        "malformed-name", 400, "This is no distinguished name",
        "Write it as RFC 4514 does: `CN=…,O=…,C=FR`. Order of attributes, case and spaces do not count.",
        "Ce n'est pas un nom distinctif",
        "Écrivez-le selon RFC 4514 : `CN=…,O=…,C=FR`. Ordre des attributs, casse et espaces ne comptent pas.",
    ),
    # ---- Enrolment: four eyes of one authority
    Entry(
        "not-a-registrar", 403, "Only a registrar may do this",
        "Enrolling, certifying and revoking belong to the registrars of an authority.",
        "Réservé aux agents des Ordres",
        "Enrôler, certifier et révoquer reviennent aux agents d'une autorité d'enregistrement.",
    ),
    Entry(
        "wrong-authority", 403, "This person belongs to another authority",
        "A registrar acts only for people whom his own Ordre registers. Registrars of the health agencies "
        "act for professions without an Ordre.",
        "Ce professionnel relève d'une autre autorité",
        "Un agent n'agit que pour les professionnels que son Ordre enregistre. Les agents des ARS agissent "
        "pour les professions sans Ordre.",
    ),
    Entry(
        "self-approval", 403, "Nobody approves his own request",
        "A second person with the same right must approve: trust never stands on one pair of eyes.",
        "Nul n'approuve sa propre demande",
        "Une seconde personne ayant le même droit doit approuver : la confiance ne repose jamais sur un "
        "seul regard.",
    ),
    Entry(
        "unknown-enrolment", 404, "No such enrolment",
        "Check the identifier that the request for enrolment gave.",
        "Enrôlement inconnu",
        "Vérifiez l'identifiant rendu par la demande d'enrôlement.",
    ),
    Entry(
        "unknown-mailbox", 404, "No such mailbox",
        "The mailbox is not in the national list. Its operator declares it; it appears with the next file.",
        "Boîte inconnue",
        "La boîte n'est pas dans la liste nationale. Son opérateur la déclare ; elle paraît avec le fichier"
        " suivant.",
    ),
    Entry(
        "already-enrolled", 409, "There is a live enrolment already",
        "This person is enrolled for this mailbox; go on with that enrolment.",
        "Un enrôlement est déjà en cours",
        "Cette personne est déjà enrôlée pour cette boîte ; poursuivez cet enrôlement.",
    ),
    Entry(
        "already-approved", 409, "The enrolment is approved already",
        "Nothing more is to be done: ask for the certificate.",
        "Enrôlement déjà approuvé",
        "Il n'y a plus rien à faire : demandez le certificat.",
    ),
    Entry(
        "not-approved", 409, "The enrolment is not approved yet",
        "Another registrar of the same authority must approve it first.",
        "Enrôlement pas encore approuvé",
        "Un autre agent de la même autorité doit d'abord l'approuver.",
    ),
    Entry(
        "enrolment-ended", 409, "The enrolment has ended",
        "The person left, or the mailbox closed. Ask for a new enrolment.",
        "Enrôlement terminé",
        "La personne est partie ou la boîte est fermée. Demandez un nouvel enrôlement.",
    ),
    Entry(
        "bad-identity-check", 400, "The identity check is not one that holds",
        "It names a method, a document and a day within the last 825 days, not in the future.",
        "Contrôle d'identité non recevable",
        "Il nomme une méthode, une pièce et un jour des 825 derniers jours, pas à venir.",
    ),
    Entry(
        "mailbox-kind-not-served", 422, "Mailboxes of this kind get no certificate",
        "Personal mailboxes and mailboxes of organisations do.",
        "Pas de certificat pour ce type de boîte",
        "Les boîtes personnelles et les boîtes d'organisation en reçoivent.",
    ),
    Entry(
        "not-the-holder", 422, "The mailbox is not this person's",
        "The holder in the national list is enrolled for a personal mailbox, nobody else.",
        "Cette boîte n'est pas à cette personne",
        "Seul le titulaire inscrit dans la liste nationale peut être enrôlé pour une boîte personnelle.",
    ),
    Entry(
        "holder-not-in-registry", 422, "The person is not in the register any more",
        "The national register no longer holds this person.",
        "Cette personne n'est plus au registre",
        "Le registre national ne connaît plus cette personne.",
    ),
    Entry(
        "holder-not-practising", 422, "The person has no open practice",
        "The register shows no open activity for this person.",
        "Cette personne n'exerce pas",
        "Le registre ne montre aucune activité ouverte pour cette personne.",
    ),
    Entry(
        "holder-suspended", 422, "The person is suspended",
        "The authority has suspended this person; nothing is certified meanwhile.",
        "Cette personne est suspendue",
        "L'autorité a suspendu cette personne ; rien n'est certifié entre-temps.",
    ),
    Entry(
        "holder-struck-off", 422, "The person is struck off",
        "The authority has struck this person off.",
        "Cette personne est radiée",
        "L'autorité a radié cette personne.",
    ),
    Entry(
        "domain-not-trusted", 422, "The mailbox's domain is not in the trust space",
        "Its operator must be accredited for it first. For a server, the longest trusted domain decides.",
        "Le domaine de la boîte n'est pas dans l'espace de confiance",
        "Son opérateur doit d'abord y être admis. Pour un serveur, le plus long domaine de confiance décide.",
    ),
    Entry(
        "domain-suspended", 422, "The mailbox's domain is suspended",
        "Nothing is certified in it meanwhile.",
        "Le domaine de la boîte est suspendu",
        "Rien n'y est certifié entre-temps.",
    ),
    Entry(
        "operator-suspended", 422, "The operator of the mailbox is suspended",
        "Nothing is certified in its domains meanwhile.",
        "L'opérateur de la boîte est suspendu",
        "Rien n'est certifié dans ses domaines entre-temps.",
    ),
    Entry(
        "mailbox-closed", 422, "The mailbox is closed",
        "The national list no longer holds it.",
        "La boîte est fermée",
        "La liste nationale ne la connaît plus.",
    ),
    Entry(
        "organisation-unknown", 422, "FINESS does not know the establishment",
        "FINESS as we have it holds no place under the number of this mailbox: no establishment, no legal"
        " entity, no SIRET.",
        "FINESS ne connaît pas l'établissement",
        "FINESS, tel que nous l'avons, n'a aucun lieu sous le numéro de cette boîte : ni établissement, ni"
        " entité juridique, ni SIRET.",
    ),
    Entry(
        "organisation-closed", 422, "The establishment is closed",
        "FINESS no longer holds the establishment of this mailbox, or says that it closed.",
        "L'établissement est fermé",
        "FINESS ne connaît plus l'établissement de cette boîte, ou le dit fermé.",
    ),
    Entry(
        "name-withheld", 422, "The record names what must not be published",
        "`fields` says where a number of social security, a birth date or a home address stands. Have the "
        "register corrected, or correct the field here; then ask again.",
        "Le registre porte ce qui ne doit pas être publié",
        "`fields` dit où se trouve un numéro de sécurité sociale, une date de naissance ou une adresse "
        "privée. Faites corriger le registre, ou corrigez le champ ici, puis recommencez.",
    ),
    # ---- Measures of an Ordre or agency
    Entry(
        "unknown-measure", 404, "No such measure",
        "Check the number: the list of the person's measures gives it.",
        "Mesure inconnue",
        "Vérifiez le numéro : la liste des mesures contre la personne le donne.",
    ),
    Entry(
        "measure-in-force", 409, "The same measure is in force already",
        "Nothing was changed: `measure` is the number of the one that stands.",
        "La même mesure est déjà en vigueur",
        "Rien n'a changé : `measure` est le numéro de celle qui court.",
    ),
    Entry(
        "measure-not-in-force", 409, "The measure has ended already",
        "There is nothing left to lift.",
        "La mesure a déjà pris fin",
        "Il n'y a plus rien à lever.",
    ),
    Entry(
        "measure-annulled", 409, "The measure is annulled already",
        "Its list of replacements says what became of the certificates.",
        "La mesure est déjà annulée",
        "La liste de ses remplacements dit ce que deviennent les certificats.",
    ),
    Entry(
        "already-asked", 409, "A colleague's request waits",
        "`asked_by` asked it at `asked_at`. To agree, read the measure. Give in `confirms` its "
        "`shortening_asked` or `annulment_asked`.",
        "La demande d'un collègue attend",
        "`asked_by` l'a faite à `asked_at`. Pour l'accepter, lisez la mesure. Donnez en `confirms` sa valeur "
        "`shortening_asked` ou `annulment_asked`.",
    ),
    Entry(
        "nothing-asked", 409, "Nothing waits for a confirmation",
        "It was never asked, is done, or is over a week old: ask for it without `confirms`.",
        "Rien n'attend de confirmation",
        "Cela n'a pas été demandé, est fait, ou a plus de sept jours : demandez-le sans `confirms`.",
    ),
    Entry(
        "not-longer", 409, "The suspension lasts as long already",
        "A prolongation ends later than now planned. For an earlier end, ask for its shortening.",
        "La suspension dure déjà autant",
        "Une prolongation finit plus tard que prévu. Pour une fin plus proche, demandez à l'écourter.",
    ),
    Entry(
        "not-shorter", 409, "The suspension ends as early already",
        "A shortening ends earlier than now planned. For a later end, prolong it.",
        "La suspension finit déjà aussi tôt",
        "Écourtée, elle finit plus tôt que prévu. Pour une fin plus lointaine, prolongez-la.",
    ),
    Entry(
        "bad-moment", 400, "Neither a day nor an instant",
        "Give a day of Paris (2027-03-31) or an instant with its offset (2027-03-31T18:00:00+02:00).",
        "Ni un jour ni un instant",
        "Donnez un jour de Paris (2027-03-31) ou un instant et son décalage (2027-03-31T18:00:00+02:00).",
    ),
    Entry(
        "begins-in-the-past", 422, "A measure begins now or later",
        "Leave `from` out, or give today: it begins at once. The past stays as it was known.",
        "Une mesure commence maintenant ou plus tard",
        "Omettez `from`, ou donnez le jour même : elle commence aussitôt. Le passé reste ce qu'il était.",
    ),
    Entry(
        "ends-too-early", 422, "It would end before it begins, or before now",
        "Give a later end. To end a measure at once, lift it.",
        "Elle finirait avant de commencer, ou avant maintenant",
        "Donnez une fin plus lointaine. Pour une fin immédiate, levez la mesure.",
    ),
    Entry(
        "too-far-ahead", 422, "This day is too far ahead",
        "Ten years ahead at most: leave the end open for what lasts longer.",
        "Ce jour est trop lointain",
        "Dix ans au plus : laissez la fin ouverte pour ce qui dure davantage.",
    ),
    Entry(
        "strike-off-has-no-end", 422, "A strike-off has no end of its own",
        "It lasts until two registrars lift or annul it. A suspension may have an end.",
        "Une radiation n'a pas de fin propre",
        "Elle dure jusqu'à ce que deux agents la lèvent ou l'annulent. Une suspension peut avoir une fin.",
    ),
    Entry(
        "reason-missing", 400, "A reason is needed",
        "A measure, its lifting, a correction: each needs one; it stays between authority and auditors.",
        "Il faut un motif",
        "Une mesure, sa levée, une correction : chacune a son motif, qui reste entre l'autorité et les "
        "auditeurs.",
    ),
    Entry(
        "reason-too-long", 400, "The reason is too long",
        "A reason has at most 1000 characters: refer to the decision rather than copying it.",
        "Motif trop long",
        "Un motif a 1000 caractères au plus : renvoyez à la décision plutôt que de la recopier.",
    ),
    # ---- Local corrections
    Entry(
        "unknown-correction", 404, "No such correction",
        "Check the number: GET /v1/corrections gives it.",
        "Correction inconnue",
        "Vérifiez le numéro : GET /v1/corrections le donne.",
    ),
    Entry(
        "not-correctable", 400, "This is not corrected here",
        "`correctable` names the fields that are. Registers and Ordres alone say what trust rests on.",
        "Cela ne se corrige pas ici",
        "`correctable` nomme les champs qui se corrigent. Seuls les registres et les Ordres disent ce qui "
        "fonde la confiance.",
    ),
    Entry(
        "bad-correction", 400, "No register could hold this value",
        "At most 200 printable characters without `|`. A day as YYYY-MM-DD; codes in capitals and digits; "
        "`listed` is true or false; a name is not empty.",
        "Valeur qu'aucun registre ne pourrait porter",
        "Au plus 200 caractères imprimables sans `|`. Un jour en AAAA-MM-JJ ; des codes en capitales et "
        "chiffres ; `listed` vaut true ou false ; un nom n'est pas vide.",
    ),
    Entry(
        "nothing-to-correct", 409, "There is nothing to correct",
        "The record shows this value already, or the register says it itself: then withdraw the correction.",
        "Rien à corriger",
        "Cette valeur est déjà celle qui paraît, ou celle du registre : retirez alors la correction.",
    ),
    Entry(
        "closing-put-off", 409, "A closing day is not put off here",
        "It can only be brought forward. Only FINESS reopens what FINESS closed.",
        "Une fermeture ne se repousse pas ici",
        "Elle ne peut qu'être avancée. Seul FINESS rouvre ce que FINESS a fermé.",
    ),
    Entry(
        "correction-ended", 409, "The correction has ended already",
        "It was withdrawn or replaced, or the register came to agree with it.",
        "La correction a déjà pris fin",
        "Elle a été retirée ou remplacée, ou le registre dit désormais de même.",
    ),
    Entry(
        "register-being-applied", 503, "A register is being applied to these rows",
        "Ask again in a minute: nothing was changed.",
        "Un registre est en cours d'application",
        "Recommencez dans une minute : rien n'a changé.",
    ),
    Entry(
        "record-behind", 503, "The record is behind what was published",
        "It was restored from a backup. The service gives no trust before its operator has completed the "
        "record. It still takes trust away.",
        "La base est en retard sur ce qui a été publié",
        "Elle a été restaurée d'une sauvegarde. Le service n'accorde aucune confiance avant que son "
        "exploitant ne l'ait complétée. Il peut toujours la retirer.",
    ),
    Entry(
        "frozen", 409, "An administrator has frozen this installation",
        "No certificate is signed until two administrators lift it (`sceau unfreeze`). The service still "
        "takes trust away.",
        "Un administrateur a gelé cette installation",
        "Aucun certificat n'est signé avant que deux administrateurs ne lèvent le gel (`sceau unfreeze`). "
        "Le service peut toujours retirer la confiance.",
    ),
    Entry(
        "no-agreement", 422, "Those who signed did not sign the same",
        "Each act must say the same kind, the same subject and the same that was shown. Have all sign "
        "one file.",
        "Les signataires n'ont pas signé la même chose",
        "Chaque acte doit porter la même nature, le même sujet et les mêmes données présentées. Faites "
        "signer à tous un seul fichier.",
    ),
    Entry(
        "anchors-missing", 503, "The anchors of this installation are not there",
        "Without them nobody's power can be told, and nothing that gives trust is done. Revocations are "
        "recorded, and OCSP tells of them. A signer that starts anew signs no CRL: the operator puts the "
        "file back.",
        "Les ancres de cette installation sont absentes",
        "Sans elles, aucun pouvoir ne peut être établi et rien n'accorde confiance. Les révocations sont "
        "enregistrées, et OCSP les annonce. Un signataire redémarré ne signe aucune CRL : l'exploitant remet "
        "le fichier en place.",
    ),
    Entry(
        "anchors-changed", 503, "The anchors are not those of before",
        "Powers are followed from the anchors of the ceremony alone. Revocations are recorded, and OCSP "
        "tells of them. A signer that starts anew signs no CRL: the operator puts that file back.",
        "Les ancres ne sont plus celles d'avant",
        "Les pouvoirs ne se déduisent que des ancres de la cérémonie. Les révocations sont enregistrées, "
        "et OCSP les annonce. Un signataire redémarré ne signe aucune CRL : l'exploitant remet ce fichier en "
        "place.",
    ),
    Entry(
        "bad-anchors", 503, "The file of the anchors cannot be read",
        "It was damaged or edited. Revocations are recorded, and OCSP tells of them. A signer that starts "
        "anew signs no CRL: the operator puts the file of the ceremony back.",
        "Le fichier des ancres est illisible",
        "Il a été abîmé ou modifié. Les révocations sont enregistrées, et OCSP les annonce. Un signataire "
        "redémarré ne signe aucune CRL : l'exploitant remet le fichier de la cérémonie.",
    ),
    Entry(
        "powers-damaged", 503, "What was followed of the powers cannot be read",
        "The file was damaged or edited. The operator compares the audit log with checkpoints kept "
        "elsewhere, then removes the file: it is derived anew.",
        "Le suivi des pouvoirs est illisible",
        "Le fichier a été abîmé ou modifié. L'exploitant compare le journal d'audit à des points de contrôle "
        "conservés ailleurs, puis supprime le fichier : il se reconstruit.",
    ),
    Entry(
        "log-not-followed", 503, "The signer is still reading the audit log",
        "It does so once, at its first start with anchors. Try again in some minutes. The service still "
        "takes trust away.",
        "Le signataire lit encore le journal d'audit",
        "Il le fait une fois, à son premier démarrage avec des ancres. Réessayez dans quelques minutes. Le "
        "service peut toujours retirer la confiance.",
    ),
    Entry(
        "log-rewritten", 503, "The audit log is not the one that was followed",
        "It was restored from a backup, or changed. Nothing was signed. The operator runs `sceau audit "
        "verify`. The service still takes trust away.",
        "Le journal d'audit n'est pas celui qui a été suivi",
        "Il a été restauré d'une sauvegarde, ou modifié. Rien n'a été signé. L'exploitant lance `sceau audit "
        "verify`. Le service peut toujours retirer la confiance.",
    ),
    Entry(
        "clock-differs", 503, "The clock of a host that signs differs from the database's",
        "Nothing was signed. The operator sees that both clocks follow a time server. The service still "
        "takes trust away.",
        "L'horloge d'un hôte qui signe diffère de celle de la base",
        "Rien n'a été signé. L'exploitant vérifie que les deux horloges suivent un serveur de temps. Le "
        "service peut toujours retirer la confiance.",
    ),
    Entry(
        "clock-behind", 503, "A host has signed under an instant that has not come yet",
        "It signs nothing before that instant, unless two administrators void it (`sceau clock reset`). "
        "The service still takes trust away.",
        "Un hôte a signé à un instant qui n'est pas encore venu",
        "Il ne signe rien avant cet instant, sauf si deux administrateurs l'annulent (`sceau clock "
        "reset`). Le service peut toujours retirer la confiance.",
    ),
    Entry(
        "record-not-written", 503, "Nothing can be written down",
        "For over a minute no row could be written. Nobody's trust could be withdrawn, so the service "
        "vouches for nobody. The operator looks for a full disk.",
        "Rien ne peut être écrit",
        "Depuis plus d'une minute, rien n'a pu être écrit. Aucune confiance n'a pu être retirée : le "
        "service ne se porte garant de personne. L'exploitant cherche un disque plein.",
    ),
    # ---- Certificates
    Entry(
        "bad-csr", 400, "The certificate request cannot be read",
        "Send a PKCS#10 request of version 1 (written 0) as PEM, any text around it, or its DER in base64. "
        "In a batch the same code refuses one item.",
        "Demande de certificat illisible",
        "Envoyez une demande PKCS#10 de version 1 (écrite 0) en PEM, avec ou sans texte autour, ou son DER "
        "en base64. Dans un lot, le même code refuse un élément.",
    ),
    Entry(
        "bad-proof-of-possession", 422, "The request is not signed by the key it carries",
        "The requester must hold the private key, and sign with SHA-256 or stronger. Make the request anew "
        "with that key.",
        "La demande n'est pas signée par la clé qu'elle porte",
        "Le demandeur doit détenir la clé privée et signer en SHA-256 ou mieux. Refaites la demande avec "
        "cette clé.",
    ),
    Entry(
        "weak-key", 422, "The key is not strong enough",
        "Use RSA of 3072 bits and more, P-256 or P-384, and no key known to be guessable. `findings` says "
        "what is wrong.",
        "Clé trop faible",
        "Utilisez RSA de 3072 bits ou plus, P-256 ou P-384, et aucune clé réputée devinable. `findings` "
        "dit ce qui ne va pas.",
    ),
    Entry(
        "key-already-certified", 422, "The key has been certified before",
        "A key serves one holder, once. Make a new one.",
        "Clé déjà certifiée",
        "Une clé sert une fois, à un seul titulaire. Créez-en une nouvelle.",
    ),
    Entry(
        "purpose-missing", 422, "What the key is for was not said",
        "Signature and encryption have a certificate each here, on a key of its own (setting `mail_keys`). "
        "Add `purpose`: `signature` or `encryption`.",
        "L'usage de la clé n'est pas dit",
        "Signature et chiffrement ont ici chacun leur certificat (réglage `mail_keys`), sur sa propre clé : "
        "ajoutez `purpose`, `signature` ou `encryption`.",
    ),
    Entry(
        "purpose-not-separate", 422, "Purposes are not separate here",
        "One certificate serves signature and encryption here (setting `mail_keys`). Ask without `purpose`: "
        "a certificate for one of them alone cannot be had.",
        "Les usages ne sont pas séparés ici",
        "Un seul certificat sert ici à signer et à chiffrer (réglage `mail_keys`). Demandez sans `purpose` : "
        "un certificat pour l'un des deux seulement n'existe pas ici.",
    ),
    Entry(
        "already-certified", 409, "The enrolment has a certificate already",
        "`serial` names it. One certificate at a time: revoke it to have another, or renew it on a new key "
        "in its last 60 days.",
        "L'enrôlement a déjà un certificat",
        "`serial` le nomme. Un certificat à la fois : révoquez-le pour en obtenir un autre, ou renouvelez-le"
        " sur une nouvelle clé dans ses 60 derniers jours.",
    ),
    Entry(
        "authority-expired", 503, "The issuing authority has come to its end",
        "It issues nothing more. The operator puts its successor in place. Your request is not at fault.",
        "L'autorité émettrice est arrivée à son terme",
        "Elle n'émet plus rien. L'exploitant doit mettre en place celle qui lui succède. Votre demande "
        "n'est pas en cause.",
    ),
    Entry(
        "servers-authority-missing", 503, "No authority for servers is in place",
        "From 1 July 2027 on, or as its own certificate says, an authority for mail certifies no servers. "
        "The operator must make and activate one for servers. Your request is not at fault.",
        "Aucune autorité pour les serveurs n'est en place",
        "Dès le 1er juillet 2027, ou selon son propre certificat, une autorité de messagerie ne certifie "
        "pas de serveurs. L'exploitant doit en créer et en activer une pour les serveurs. Votre demande "
        "n'est pas en cause.",
    ),
    Entry(
        "unknown-certificate", 404, "No certificate under this serial number",
        "None was issued under it here.",
        "Aucun certificat sous ce numéro",
        "Aucun n'a été émis ici sous ce numéro.",
    ),
    Entry(
        "holder-hidden", 403, "The holder of this certificate is on the red list",
        "A check of the exact address gives the certificate. A serial number tells nobody whose it is.",
        "Le titulaire de ce certificat est en liste rouge",
        "La vérification de l'adresse exacte donne le certificat. Un numéro de série ne révèle pas le "
        "titulaire.",
    ),
    Entry(
        "already-revoked", 409, "The certificate is revoked already",
        "A revocation is final; nothing may follow it.",
        "Certificat déjà révoqué",
        "Une révocation est définitive ; rien ne peut la suivre.",
    ),
    Entry(
        "reserved-to-owner", 403, "Only the owner of the certification authority may do this",
        "A registrar revokes certificates of people and establishments: not those of the service itself, and"
        " not for cACompromise.",
        "Réservé au propriétaire de l'autorité de certification",
        "Un agent révoque les certificats de personnes et d'établissements : pas ceux du service lui-même, et"
        " jamais pour cACompromise.",
    ),
    Entry(
        "already-on-hold", 409, "The certificate is on hold already",
        "Revoke it with another reason to end it for good.",
        "Certificat déjà suspendu",
        "Révoquez-le pour un autre motif afin d'y mettre fin.",
    ),
    Entry(
        "not-on-hold", 409, "The certificate is not on hold",
        "Only a certificate on hold can be released.",
        "Le certificat n'est pas suspendu",
        "On ne lève que la suspension d'un certificat suspendu.",
    ),
    Entry(
        "certificate-expired", 409, "The certificate has expired",
        "There is nothing left to revoke.",
        "Le certificat a expiré",
        "Il n'y a plus rien à révoquer.",
    ),
    Entry(
        "comment-too-long", 400, "The comment is too long",
        "Say it in fewer words; nothing about a patient belongs there.",
        "Commentaire trop long",
        "Dites-le en moins de mots ; rien n'y doit concerner un patient.",
    ),
    Entry(
        "lint-failed", 422, "The certificate would break its own rules",
        "It was checked before any signature and stopped; `findings` names each rule. Nothing was signed.",
        "Le certificat enfreindrait ses propres règles",
        "Il a été contrôlé avant toute signature et arrêté ; `findings` nomme chaque règle. Rien n'a été "
        "signé.",
    ),
    Entry(
        "unknown-authority", 404, "There is no such authority",
        "The issuing authority has not been established on this installation.",
        "Autorité de certification inconnue",
        "L'autorité émettrice n'a pas été établie sur cette installation.",
    ),
    Entry(
        "issuance-abandoned", 409, "This issuance was given up",
        "It took too long, and recovery closed it. Ask again with a new key.",
        "Émission abandonnée",
        "Elle a trop tardé, et la reprise l'a close. Recommencez avec une nouvelle clé.",
    ),
    Entry(
        "unknown-reservation", 404, "The signer finds no reservation",
        "Nothing was signed. Ask again.",
        "Réservation introuvable pour le signataire",
        "Rien n'a été signé. Recommencez.",
    ),
    Entry(
        "no-anchors", 409, "This installation has no anchors",
        "Two tokens suffice here, and no act is judged: ask without `act`.",
        "Cette installation n'a pas d'ancres",
        "Deux jetons y suffisent, et aucun acte n'y est jugé : demandez sans `act`.",
    ),
    Entry(
        "act-missing", 422, "The act of the person is missing",
        "This installation has anchors: whoever asks for an enrolment signs it, and so does whoever approves"
        " it. Fetch what is to be signed, sign it with your own key, and send `act`.",
        "L'acte de la personne manque",
        "Cette installation a des ancres : qui demande un enrôlement le signe, et qui l'approuve aussi."
        " Obtenez ce qui est à signer, signez-le de votre propre clé, et envoyez `act`.",
    ),
    Entry(
        "act-unfit", 422, "The act does not suffice",
        "`why` says what stands against it: `credential-unknown`, `credential-revoked`, `expired`,"
        " `shown-otherwise`, `another-subject`, `no-registrar`, and so on. Fetch what is to be signed anew.",
        "L'acte ne suffit pas",
        "`why` dit ce qui s'y oppose : `credential-unknown`, `credential-revoked`, `expired`,"
        " `shown-otherwise`, `another-subject`, `no-registrar`, etc. Obtenez à nouveau ce qui est à signer.",
    ),
    Entry(
        "another-person", 403, "The act is another person's than the token",
        "A token that belongs to a person hands in her own acts alone.",
        "L'acte et le jeton sont de deux personnes",
        "Un jeton qui appartient à une personne ne remet que ses propres actes.",
    ),
    Entry(
        "evidence-missing", 409, "Two persons have not signed for this enrolment",
        "This installation has anchors: the signer signs for an enrolment once a registrar has signed the"
        " request, and another one the approval. An enrolment from before the anchors is made anew.",
        "Deux personnes n'ont pas signé pour cet enrôlement",
        "Cette installation a des ancres : le signataire ne signe pour un enrôlement que si un agent a signé"
        " la demande et un autre l'approbation. Un enrôlement d'avant les ancres est à refaire.",
    ),
    Entry(
        "evidence-unfit", 409, "What was signed does not suffice for this certificate",
        "Nothing was signed. `why` says what stands against it: `credential-revoked`, `no-registrar`,"
        " `shown-otherwise`, and so on. A new enrolment is needed, signed by two registrars of today.",
        "Ce qui a été signé ne suffit pas pour ce certificat",
        "Rien n'a été émis. `why` dit ce qui s'y oppose : `credential-revoked`, `no-registrar`,"
        " `shown-otherwise`, etc. Il faut un nouvel enrôlement, signé par deux agents d'aujourd'hui.",
    ),
    Entry(
        "stale-reservation", 409, "The reservation is too old to be signed",
        "Nothing was signed. Ask again with a new key.",
        "Réservation trop ancienne pour être signée",
        "Rien n'a été signé. Recommencez avec une nouvelle clé.",
    ),
    Entry(
        "reservation-unfit", 422, "The signer refuses what was reserved",
        "It checks again by itself, and found the certificate unfit. Report it: this should not happen.",
        "Le signataire refuse ce qui était réservé",
        "Il contrôle de son côté et a jugé le certificat inapte. Signalez-le : cela ne devrait pas arriver.",
    ),
    Entry(
        "already-signed", 409, "This serial number has been signed already",
        "A reservation is signed once.",
        "Ce numéro de série a déjà été signé",
        "Une réservation se signe une fois.",
    ),
    Entry(
        "ca-key-missing", 503, "The signer lacks the authority's key",
        "The people who run the service must put it in place.",
        "Le signataire n'a pas la clé de l'autorité",
        "L'exploitant du service doit la mettre en place.",
    ),
    Entry(
        "ca-key-unreadable", 503, "The signer cannot open the authority's key",
        "The people who run the service must look at the passphrase and the file, or the PIN and the token.",
        "Le signataire ne peut ouvrir la clé de l'autorité",
        "L'exploitant du service doit vérifier la phrase secrète et le fichier, ou le code PIN et le jeton.",
    ),
    Entry(
        "journal-damaged", 503, "The signer's journal is damaged",
        "It signs nothing before the people who run the service have looked at it.",
        "Le journal du signataire est abîmé",
        "Il ne signe rien avant que l'exploitant du service ne l'ait examiné.",
    ),
    Entry(
        "at-out-of-range", 400, "This instant is outside the calendar",
        "`at` lies in a year that no clock here can hold.",
        "Instant hors du calendrier",
        "`at` tombe dans une année qu'aucune horloge d'ici ne connaît.",
    ),
    # ---- Recipients and practitioners
    Entry(
        "at-in-the-future", 400, "Nothing is known of the future",
        "`at` lies after the present instant. Leave it out to ask about now.",
        "L'avenir n'est pas connu",
        "`at` est postérieur à l'instant présent. Ne le donnez pas pour interroger le présent.",
    ),
    Entry(
        "unknown-practitioner", 404, "No such practitioner in the national register",
        "The number is well formed but the register as last read holds nobody under it. Check the number; a"
        " new registration appears with the next night's file.",
        "Professionnel inconnu du registre national",
        "Le numéro est bien formé, mais le registre, à sa dernière lecture, n'y connaît personne. "
        "Vérifiez-le ; une inscription nouvelle paraît avec le fichier de la nuit suivante.",
    ),
    Entry(
        "unknown-organisation", 404, "No such establishment in FINESS",
        "The number is well formed but FINESS as last read holds nothing under it. Check the number.",
        "Établissement inconnu de FINESS",
        "Le numéro est bien formé, mais FINESS, à sa dernière lecture, n'y connaît rien. Vérifiez-le.",
    ),
    Entry(
        "several-places", 404, "This number is that of several places",
        "A legal entity (FINESS EJ) has several places: `places` lists up to 100 numbers. Ask for one.",
        "Ce numéro est celui de plusieurs lieux",
        "Une entité juridique (FINESS EJ) a plusieurs lieux : `places` donne leurs numéros, 100 au plus."
        " Demandez-en un.",
    ),
    Entry(
        "too-little-to-search", 400, "This is too little to search by",
        "Give two letters or digits at least of a name, town or place; one letter of a name is enough beside"
        " another criterion.",
        "Trop peu pour chercher",
        "Donnez au moins deux lettres ou chiffres d'un nom, d'une commune ou d'un lieu ; une lettre d'un nom "
        "suffit à côté d'un autre critère.",
    ),
    Entry(
        "bad-cursor", 400, "The cursor is not one that was given here",
        "Send back `next` as it was received, with the same criteria, or leave it out to begin again.",
        "Curseur inconnu",
        "Renvoyez `next` tel que reçu, avec les mêmes critères, ou omettez-le pour recommencer.",
    ),
    Entry(
        "unknown-check", 404, "There is no such check",
        "It was deleted, is older than 24 hours, or another operator asked for it. Ask again.",
        "Vérification inconnue",
        "Elle a été supprimée, date de plus de 24 heures, ou un autre opérateur l'a demandée. Recommencez.",
    ),
    Entry(
        "check-not-done", 409, "The check is not done yet",
        "The result is shown when all addresses are decided. Look at the check until its state is `done`.",
        "Vérification encore en cours",
        "Le résultat est donné quand toutes les adresses ont leur réponse. Consultez la vérification jusqu'à"
        " ce que son état soit `done`.",
    ),
    Entry(
        "check-failed", 410, "The check could not be carried out",
        "What was asked is lost, or was begun five times in vain. Send it again; tell the administrator if"
        " that fails too.",
        "Vérification abandonnée",
        "La demande s'est perdue, ou a été entreprise cinq fois sans aboutir. Renvoyez-la ; si cela échoue"
        " encore, prévenez l'administrateur.",
    ),
    Entry(
        "too-many-checks", 429, "Too many checks of this token wait",
        "Three of a token wait or are under way at most. Let one end, or delete one.",
        "Trop de vérifications en attente",
        "Un jeton en a trois au plus en attente ou en cours. Laissez-en finir une, ou supprimez-en une.",
    ),
    Entry(
        "no-room-for-checks", 503, "There is no room for checks that are answered later",
        "The disk is nearly full. Check 10,000 addresses at a time meanwhile, without `Prefer`.",
        "Plus de place pour les vérifications différées",
        "Le disque est presque plein. En attendant, vérifiez 10 000 adresses à la fois, sans `Prefer`.",
    ),
    # ---- Registers and their nights
    Entry(
        "unknown-run", 404, "No such run of a register",
        "Runs are numbered as GET /v1/registers/runs lists them.",
        "Passage inconnu",
        "Les passages portent les numéros que donne GET /v1/registers/runs.",
    ),
    Entry(
        "run-not-held", 409, "The run waits for nobody",
        "Only a held run can be let through; this one is at work, applied, refused or overtaken. Look again.",
        "Ce passage n'attend personne",
        "Seul un passage retenu peut être autorisé ; celui-ci est en cours, appliqué, refusé ou dépassé. "
        "Relisez-le.",
    ),
    Entry(
        "run-already-approved", 409, "You, or enough others, have let this run through",
        "One token counts once: where two persons are needed, the second is somebody else.",
        "Passage déjà autorisé",
        "Un jeton ne compte qu'une fois : là où il faut deux personnes, la seconde est quelqu'un d'autre.",
    ),
    Entry(
        "comment-missing", 400, "A comment is needed",
        "Say what you looked at, or why: the log keeps it.",
        "Il faut un commentaire",
        "Dites ce que vous avez vérifié, ou pourquoi : le journal le garde.",
    ),
    # ---- Changes and exports
    Entry(
        "cursor-expired", 410, "What changed since this cursor is not kept any more",
        "Begin again: fetch the export that `export` names (or /v1/exports/latest), replace your copy by it,"
        " and go on from its cursor. Where `export` is null one is being written: ask again after Retry-After"
        " seconds. Changes are kept for 90 days at least.",
        "Les changements depuis ce curseur ne sont plus conservés",
        "Recommencez : prenez l'export que nomme `export` (ou /v1/exports/latest), remplacez-en votre copie "
        "et reprenez à son curseur. Si `export` est nul, un export s'écrit : redemandez après Retry-After "
        "secondes. Les changements sont conservés 90 jours au moins.",
    ),
    Entry(
        "unknown-export", 404, "There is no such export or file",
        "The last seven exports are kept: see /v1/exports. Begin again with the newest.",
        "Export ou fichier inconnu",
        "Les sept derniers exports sont conservés : voir /v1/exports. Recommencez avec le plus récent.",
    ),
    Entry(
        "range-not-satisfiable", 416, "The file has no such part",
        "The range asked for begins behind the file's end: it is another file, or you have it already."
        " Compare its ETag with yours.",
        "Le fichier n'a pas cette partie",
        "La plage demandée commence après la fin du fichier : c'en est un autre, ou vous l'avez déjà. "
        "Comparez son ETag au vôtre.",
    ),
    Entry(
        "too-many-downloads", 503, "Too many files are being fetched just now",
        "A token may fetch two at a time, an address four, all together sixteen from each process. Ask again"
        " after Retry-After seconds.",
        "Trop de téléchargements en cours",
        "Un jeton peut en prendre deux à la fois, une adresse quatre, tous ensemble seize par processus. "
        "Recommencez après Retry-After secondes.",
    ),
    Entry(
        "no-list-signer", 503, "No signer of lists has been certified yet",
        "Exports are written once the CA exists and the signer answers.",
        "Pas encore de signataire de listes certifié",
        "Les exports sont écrits une fois que l'AC existe et que le signataire répond.",
    ),
    # ---- Trust list
    Entry(
        "unknown-trust-list", 404, "There is no such version of the trust list",
        "Versions are numbered from 1 without a gap and kept for ever: see /v1/trust-list for the newest.",
        "Version inconnue de la liste de confiance",
        "Les versions sont numérotées depuis 1 sans lacune et gardées pour toujours : la dernière est à "
        "/v1/trust-list.",
    ),
    Entry(
        "no-trust-list", 503, "No trust list has been signed yet",
        "The worker signs the first one seconds after the CA exists. Ask again after Retry-After seconds.",
        "Pas encore de liste de confiance signée",
        "Le service signe la première quelques secondes après la création de l'AC. Recommencez après "
        "Retry-After secondes.",
    ),
    # ---- Taking back
    Entry(
        "malformed-revocation-request", 400, "The request to revoke cannot be read",
        "Send a compact JWS (application/jose) over a JSON object with serial, reason, iat and aud, signed "
        "by the key of the certificate.",
        "Demande de révocation illisible",
        "Envoyez un JWS compact (application/jose) sur un objet JSON portant serial, reason, iat et aud, "
        "signé par la clé du certificat.",
    ),
    Entry(
        "stale-request", 422, "The request was not signed just now",
        "Sign it anew: `iat` lies within five minutes of now, and after the last act on the certificate.",
        "Demande signée trop tôt ou trop tard",
        "Signez-la de nouveau : `iat` est à moins de cinq minutes, et après le dernier acte sur le "
        "certificat.",
    ),
    Entry(
        "too-many-proofs", 429, "Too many requests of this kind from one address",
        "Sixty are taken in a minute. Ask again after Retry-After seconds.",
        "Trop de demandes de ce genre depuis une adresse",
        "Soixante sont admises par minute. Recommencez après Retry-After secondes.",
    ),
    Entry(
        "reason-reserved", 403, "A holder may not give this reason",
        "A holder says keyCompromise, affiliationChanged, superseded, cessationOfOperation or "
        "certificateHold.",
        "Un titulaire ne peut pas donner ce motif",
        "Un titulaire dit keyCompromise, affiliationChanged, superseded, cessationOfOperation ou "
        "certificateHold.",
    ),
    Entry(
        "not-your-certificate", 403, "This is no certificate of this operator",
        "An operator's token revokes the certificates of its own servers and clients, no others.",
        "Ce certificat n'est pas celui de cet opérateur",
        "Le jeton d'un opérateur révoque les certificats de ses propres serveurs et clients, aucun autre.",
    ),
    Entry(
        "held-by-measure", 409, "A measure suspends this certificate",
        "The hold ends when the Ordre lifts its measure.",
        "Une mesure suspend ce certificat",
        "La suspension du certificat prend fin quand l'Ordre lève sa mesure.",
    ),
    Entry(
        "enrolment-void", 409, "The enrolment no longer says what two persons saw",
        "A name, mailbox or profession differs from what was recorded with the request. Ask for a new "
        "enrolment.",
        "L'enrôlement ne dit plus ce que deux personnes ont vu",
        "Un nom, une boîte ou une profession diffère de ce que la demande avait enregistré. Demandez un "
        "nouvel enrôlement.",
    ),
    Entry(
        "reason-stands", 409, "A reason stands against giving trust",
        "Each reason is named: a measure, a departure, a blocked key, another certificate on hold. End it "
        "first.",
        "Un motif empêche de rendre la confiance",
        "Chaque motif est nommé : mesure, départ, clé bloquée, autre certificat suspendu. Mettez-y fin "
        "d'abord.",
    ),
    Entry(
        "not-revoked", 409, "The certificate is not revoked for good",
        "There is no reason to correct: revoke it with the reason that is true.",
        "Ce certificat n'est pas révoqué",
        "Il n'y a pas de motif à corriger : révoquez-le avec le motif exact.",
    ),
    Entry(
        "same-reason", 409, "It is revoked for this reason already",
        "Nothing was changed.",
        "Il est déjà révoqué pour ce motif",
        "Rien n'a été changé.",
    ),
    Entry(
        "compromise-stays", 409, "A key reported compromised stays so",
        "Others have acted upon it, and the key is blocked. This reason cannot be withdrawn.",
        "Une clé déclarée compromise le reste",
        "D'autres en ont tenu compte, et la clé est bloquée. Ce motif ne peut plus être retiré.",
    ),
    Entry(
        "empty-selection", 400, "No criterion says which certificates",
        "Give serials, authority, profile, establishment, operator, issued_from, issued_until or keys.",
        "Aucun critère ne dit quels certificats",
        "Donnez serials, authority, profile, establishment, operator, issued_from, issued_until ou keys.",
    ),
    Entry(
        "nothing-selected", 404, "No certificate meets the selection",
        "None that is in force and not revoked for good does; those of the service itself never do.",
        "Aucun certificat ne répond aux critères",
        "Aucun de ceux en vigueur et non révoqués n'y répond ; ceux du service lui-même jamais.",
    ),
    Entry(
        "too-many-selected", 422, "The selection is too large",
        "One million certificates go in one revocation at most: split it by days of issuance.",
        "Sélection trop vaste",
        "Une révocation groupée porte sur un million de certificats au plus : découpez par jour d'émission.",
    ),
    Entry(
        "unknown-bulk", 404, "There is no such revocation of many",
        "Compare its number with /v1/revocations/bulk.",
        "Révocation groupée inconnue",
        "Comparez son numéro avec /v1/revocations/bulk.",
    ),
    Entry(
        "bulk-not-planned", 409, "This revocation of many awaits nobody",
        "It runs, or has ended: look at its state.",
        "Cette révocation groupée n'attend personne",
        "Elle est en cours ou terminée : voyez son état.",
    ),
    Entry(
        "bulk-ended", 409, "This revocation of many has ended",
        "Nothing is left to stop.",
        "Cette révocation groupée est terminée",
        "Il n'y a plus rien à arrêter.",
    ),
    Entry(
        "digest-differs", 409, "This is not the digest of what was selected",
        "Look at the selection again, then agree to the digest it has.",
        "Ce n'est pas l'empreinte de ce qui a été choisi",
        "Regardez de nouveau la sélection, puis donnez votre accord à l'empreinte qu'elle porte.",
    ),
    # ---- The service
    Entry(
        "database-unavailable", 503, "The record cannot be reached",
        "Nothing was done. Ask again after Retry-After seconds.",
        "Registre momentanément injoignable",
        "Rien n'a été fait. Recommencez après Retry-After secondes.",
    ),
    Entry(
        "not-an-operator", 403, "This token acts for no operator",
        "Use a token made with `sceau token create --operator`, which names an operator of the trusted list.",
        "Ce jeton n'agit pour aucun opérateur",
        "Utilisez un jeton fait par `sceau token create --operator`, qui nomme un opérateur de la liste.",
    ),
    Entry(
        "too-many-contacts", 422, "An operator keeps five contacts at most",
        "Send the whole list again with five addresses at most; a list address reaches more people.",
        "Un opérateur tient cinq contacts au plus",
        "Renvoyez la liste entière, de cinq adresses au plus ; une adresse de liste atteint plus de monde.",
    ),
    Entry(
        "unknown-profile", 422, "There is no such profile for this holder",
        "Ask for one of the profiles named.",
        "Profil inconnu pour ce titulaire",
        "Demandez l'un des profils nommés.",
    ),
    Entry(
        "bad-batch", 422, "This is no batch",
        "A batch has 1 to 1,000 enrolments, each once.",
        "Ce n'est pas un lot",
        "Un lot a de 1 à 1 000 enrôlements, chacun une fois.",
    ),
    Entry(
        "unknown-batch", 404, "There is no such batch",
        "Use the `id` that was given when it was sent.",
        "Lot inconnu",
        "Utilisez l'`id` rendu lors de l'envoi.",
    ),
    Entry(
        "bad-hosts", 422, "These hosts cannot be certified together",
        "A server has 1 to 100 hosts; a client has none.",
        "Ces hôtes ne peuvent être certifiés ensemble",
        "Un serveur a 1 à 100 hôtes ; un client n'en a pas.",
    ),
    Entry(
        "body-too-slow", 408, "The body came too slowly",
        "Each stretch of `body_seconds` (10) must bring `body_rate` (500) octets a second, or the end of the"
        " body. Nothing was done: send it again.",
        "Corps reçu trop lentement",
        "Chaque tranche de `body_seconds` (10) doit apporter `body_rate` (500) octets par seconde, ou la fin"
        " du corps. Rien n'a été fait : renvoyez-le.",
    ),
    Entry(
        "body-cut-short", 400, "The body ended too early",
        "It is shorter than its Content-Length, or its chunks are broken. Nothing was done.",
        "Corps interrompu",
        "Il est plus court que son Content-Length, ou ses morceaux sont abîmés. Rien n'a été fait.",
    ),
    Entry(
        "unknown-encoding", 415, "The body is packed in a way that is not read here",
        "Send it as it is, or in gzip (Content-Encoding: gzip).",
        "Compression du corps non prise en charge",
        "Envoyez-le tel quel, ou en gzip (Content-Encoding: gzip).",
    ),
    Entry(
        "target-too-long", 414, "The URL is too long",
        "Path and query have at most 16,384 characters. Beyond 65,534 the answer is the status alone.",
        "URL trop longue",
        "Chemin et paramètres comptent au plus 16 384 caractères. Au-delà de 65 534, la réponse n'est que le"
        " statut.",
    ),
    Entry(
        "repeated-key", 400, "A name stands twice in one JSON object",
        "Readers of JSON differ in which of the two counts, so none does (RFC 8259 4). `key` names it.",
        "Nom répété dans un objet JSON",
        "Les lecteurs de JSON diffèrent sur celui des deux qui compte, donc aucun ne compte (RFC 8259 4)."
        " `key` le nomme.",
    ),
    Entry(
        "share-used-up", 429, "Your share of this process is taken",
        "An address holds a quarter of the places at most, a token an eighth. Wait for your own requests to"
        " be answered, and ask again after Retry-After seconds. Behind a proxy, see `trusted_proxies`.",
        "Votre part de ce processus est prise",
        "Une adresse occupe au plus un quart des places, un jeton un huitième. Attendez les réponses à vos"
        " propres demandes, et recommencez après Retry-After secondes. Derrière un mandataire, voyez"
        " `trusted_proxies`.",
    ),
    Entry(
        "process-full", 503, "All places of this process are taken",
        "Nothing was done. Ask again after Retry-After seconds.",
        "Toutes les places de ce processus sont prises",
        "Rien n'a été fait. Recommencez après Retry-After secondes.",
    ),
    Entry(
        "lint-unavailable", 503, "The certificate could not be checked in time",
        "Nothing was signed: without this check no certificate is issued. Ask again in a moment.",
        "Contrôle du certificat momentanément indisponible",
        "Rien n'a été signé : sans ce contrôle, aucun certificat n'est émis. Recommencez dans un instant.",
    ),
    Entry(
        "signer-unavailable", 503, "The signer cannot be reached",
        "No certificate was signed. Ask again; a reserved serial number is not used twice.",
        "Signataire momentanément injoignable",
        "Aucun certificat n'a été signé. Recommencez ; un numéro de série réservé ne sert pas deux fois.",
    ),
    Entry(
        "internal-error", 500, "Something of ours failed",
        "Your request is not at fault: our program failed. Report `reference`; nothing else is shown.",
        "Une erreur de notre fait",
        "Votre demande n'est pas en cause : notre programme a échoué. Signalez `reference` ; rien d'autre "
        "n'est montré.",
    ),
)  # fmt: skip

CATALOGUE: Mapping[str, Entry] = MappingProxyType({entry.code: entry for entry in ENTRIES})
