"""Opens the place where the CA keys of this installation lie; only the signer and a ceremony ask for it."""

from api.settings import Secret, Settings, passphrase
from pki.signing.file import FileKeys
from pki.signing.keys import Keys


def ca_keys(settings: Settings) -> Keys:
    """The files or the token that `signer_keys` means; a token is not touched before it is asked.

    Refuses `passphrase-missing` when neither the environment nor its file has the passphrase or PIN.
    """
    secret = passphrase(settings, Secret.CA)
    if settings.token is None:
        return FileKeys(settings.ca_keys, secret)
    from pki.signing.pkcs11 import TokenKeys  # noqa: PLC0415 - what loads foreign modules, only where one is meant

    return TokenKeys(settings.token, secret)
