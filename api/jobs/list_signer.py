"""The key that signs what is published as a whole, made or renewed when somebody wants to sign.

What a signature is made of is `pki/service_keys/jws.py`'s; how a key comes to be certified,
`pki/issuance/for_service.py`'s.
"""

from api.jobs.passphrases import web_passphrase
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.certificates.profiles import LIST_SIGNER
from pki.issuance import for_service
from pki.service_keys import jws, servers_authority

# Whose CA certified it before there was one for servers.
FORMERLY = "persons"


def list_signer(container: Container) -> jws.ListSigner:
    """The signer of lists under the CA for servers; Refusal UNAVAILABLE `no-list-signer`."""
    folder, secret = container.settings.web_keys, web_passphrase(container)
    issuing, now = _issuer(container), container.signing.instant()
    for_service.ensure_list_signer(
        container.engine, container.signer, authority_id=issuing, keys_folder=folder, passphrase=secret,
        base_url=container.settings.base_url, now=now,
    )  # fmt: skip
    with transaction(container.engine, read_only=True) as connection:
        return jws.load_list_signer(connection, issuing, folder, secret, now)


def _issuer(container: Container) -> str:
    try:
        with transaction(container.engine, read_only=True) as connection:
            return servers_authority.issuing(connection, LIST_SIGNER, FORMERLY, container.clock()).id
    except Refusal as refusal:
        text = f"No CA can certify a signer of lists. {refusal.text}"
        raise Refusal(Kind.UNAVAILABLE, "no-list-signer", text) from refusal
