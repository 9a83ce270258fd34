"""Notices of expiry as mail: the way to the mail server.

Who is to be told, and what becomes of a notice, is `pki/monitoring/expiry_notices.py`'s; the words are
`api/words/expiry_mail.py`'s.
"""

import smtplib
import ssl
from collections.abc import Iterator, Sequence
from datetime import datetime

from api.settings import Settings
from api.wiring import Container
from api.words.expiry_mail import written
from pki.monitoring import expiry_notices
from pki.monitoring.expiry_notices import Letter

_SECONDS = 20.0


def send_notices(container: Container) -> str:
    """The job: notices that are due, over the settings' mail server; nothing when there is none."""
    settings = container.settings
    if not settings.smtp_host:
        return ""

    def post(letters: Sequence[Letter]) -> Iterator[tuple[Letter, str]]:
        return _posted(settings, letters, container.clock())

    return str(expiry_notices.send_due(container.engine, post, container.clock))


def _posted(settings: Settings, letters: Sequence[Letter], now: datetime) -> Iterator[tuple[Letter, str]]:
    """Each letter with '' once the server took it, else with why not; one connection for all."""
    waiting = list(letters)
    try:
        with _server(settings) as server:
            while waiting:
                error = _hand_over(server, waiting[0], settings.smtp_from, now)
                yield waiting.pop(0), error
    except (smtplib.SMTPException, OSError) as error:
        for letter in waiting:
            yield letter, _reason(error)


def _hand_over(server: smtplib.SMTP, letter: Letter, sender: str, now: datetime) -> str:
    try:
        server.send_message(written(letter, sender, now))
    except smtplib.SMTPServerDisconnected:
        raise
    except smtplib.SMTPException as error:
        # Of this letter alone: the next may go to another mailbox. smtplib has said RSET.
        return _reason(error)
    return ""


def _server(settings: Settings) -> smtplib.SMTP:
    server = smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=_SECONDS)
    if settings.smtp_starttls:
        try:
            # Raises when the server offers none: an attacker who strips the offer gets no letter in clear.
            server.starttls(context=ssl.create_default_context(cafile=settings.smtp_ca_file or None))
        except BaseException:
            server.close()
            raise
    return server


def _reason(error: Exception) -> str:
    """Why, in one line; a server's own words are no secret, and tell what to mend."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        error_code, words = next(iter(error.recipients.values()))
        return f"{error_code} {words.decode(errors='replace')}"
    return " ".join(f"{type(error).__name__}: {error}".split())
