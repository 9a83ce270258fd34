"""The passphrase of the keys that live with web and worker."""

from api.settings import Secret, passphrase
from api.wiring import Container


def web_passphrase(container: Container) -> bytes:
    """The passphrase of the keys that live with web and worker."""
    return passphrase(container.settings, Secret.WEB)
