"""OCSP signers renewed in time, and answers signed ahead."""

from api.jobs.passphrases import web_passphrase
from api.wiring import Container
from directory.base.db import transaction
from pki.issuance import for_service
from pki.ocsp import responders
from pki.record import authorities
from pki.service_keys import servers_authority


def renew_responders(container: Container) -> str:
    """See that each issuing CA has an OCSP signer with more than half of its life before it."""
    made = [
        authority_id
        for authority_id in _issuing(container)
        if for_service.ensure_responder(
            container.engine,
            container.signer,
            authority_id=authority_id,
            keys_folder=container.settings.web_keys,
            passphrase=web_passphrase(container),
            base_url=container.settings.base_url,
            now=container.signing.instant(),
        )
    ]
    with transaction(container.engine) as connection:
        servers_authority.note_missing(connection, container.present(connection))
    return f"made OCSP signers for {', '.join(made)}" if made else ""


def presign_ocsp(container: Container) -> str:
    """Sign the OCSP answers that are missing or getting old."""
    now = container.signing.instant()
    with transaction(container.engine) as connection:
        loaded = responders.load_responders(
            connection, container.settings.web_keys, web_passphrase(container), now
        )
    signed = responders.presign_due(container.engine, loaded, now, container.settings.ocsp_hours, 50_000)
    return f"{signed} answers signed" if signed else ""


def _issuing(container: Container) -> list[str]:
    with transaction(container.engine) as connection:
        return authorities.answered_for(connection, container.clock())
