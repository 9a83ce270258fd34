"""Notices of expiry in words, French first. How they are sent is `api/jobs/expiry_mail.py`'s."""

from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

from pki.model import JOINED, Purpose
from pki.monitoring.expiry_notices import Letter

_BODY = """\
Le certificat de cette messagerie sécurisée de santé prend fin le {day} (UTC), dans {days} jour{s}.
Il n'a pas de successeur : passé ce jour, {loss_fr}.

  Messagerie : {recipient}
  Usage : {use_fr}
  Numéro de série : {serial}

Demandez-en un nouveau, sur une nouvelle clé, à l'autorité qui vous a enrôlé. Rien n'est à cliquer ici, et
personne ne vous demandera votre clé ni un mot de passe.

--

The certificate of this secure health mailbox ends on {day} (UTC), in {days} day{s}.
It has no successor: from then on {loss_en}.

  Mailbox: {recipient}
  Use: {use_en}
  Serial number: {serial}

Ask the authority that enrolled you for a new one, on a new key. There is nothing to click here, and nobody
will ask you for your key or a password.
"""
_OPERATOR_BODY = """\
Le certificat d'opérateur ci-dessous prend fin le {day} (UTC), dans {days} jour{s}. Il n'a pas de successeur :
passé ce jour, vos serveurs ou vos clients ne seront plus reconnus sous ce certificat.

  Certificat : {subject}
  Numéro de série : {serial}

Demandez-en un nouveau, sur une nouvelle clé, par POST /v1/operator/certificates. Rien n'est à cliquer ici, et
personne ne vous demandera votre clé ni un mot de passe. Vous recevez cet avis parce que votre opérateur tient
cette adresse pour contact (PUT /v1/operator/contacts).

--

The operator certificate below ends on {day} (UTC), in {days} day{s}. It has no successor: from then on your
servers or clients are not recognised under this certificate.

  Certificate: {subject}
  Serial number: {serial}

Ask for a new one, on a new key, by POST /v1/operator/certificates. There is nothing to click here, and nobody
will ask you for your key or a password. You get this because your operator keeps this address as a contact
(PUT /v1/operator/contacts).
"""

_UNREADABLE = ("personne ne pourra plus lui écrire sous ce certificat",
               "nobody can write to it under this certificate")  # fmt: skip
# By what ends: the use and what is lost, each in French and in English.
_WORDS = {
    JOINED: (("signature et chiffrement", "signature and encryption"), _UNREADABLE),
    frozenset({Purpose.ENCRYPTION}): (("chiffrement", "encryption"), _UNREADABLE),
    frozenset({Purpose.SIGNATURE}): (
        ("signature", "signature"),
        ("plus rien de ce qu'elle envoie ne sera accepté sous ce certificat",
         "nothing that it sends is accepted under this certificate"),
    ),
}  # fmt: skip


def written(letter: Letter, sender: str, now: datetime) -> EmailMessage:
    """The message: to the mailbox of the certificate or a contact of its operator.

    It has the same id at each try, and for each contact, so that a second is known for one.
    """
    notice, several = letter.notice, "s" if letter.days > 1 else ""
    (use_fr, use_en), (loss_fr, loss_en) = _WORDS[letter.purposes or JOINED]
    made = EmailMessage()
    made["From"], made["To"] = sender, notice.recipient
    # On one line of 78 octets: where Python folds, some readers show a space.
    made["Subject"] = (
        f"Certificat : fin dans {letter.days} jour{several} / Certificate ends in {letter.days} day{several}"
    )
    made["Date"] = format_datetime(now)
    made["Message-ID"] = f"<expiry.{notice.serial}.{notice.days}@{sender.rpartition('@')[2]}>"
    # RFC 3834 5: no vacation notice is to answer this.
    made["Auto-Submitted"] = "auto-generated"
    made["Content-Language"] = "fr, en"
    made.set_content(
        (_OPERATOR_BODY if letter.subject else _BODY).format(
            day=f"{letter.not_after:%d/%m/%Y %H:%M}", days=letter.days, s=several, serial=notice.serial,
            recipient=notice.recipient, subject=letter.subject, use_fr=use_fr, use_en=use_en,
            loss_fr=loss_fr, loss_en=loss_en,
        ),
        cte="quoted-printable",
    )  # fmt: skip
    return made
