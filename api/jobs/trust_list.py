"""The trust list's job: a version when one is due.

What a list says is `pki/publication/trust_list.py`'s.
"""

from api.jobs.list_signer import list_signer
from api.wiring import Container
from directory.base.errors import Refusal
from pki.publication import trust_list


def publish(container: Container) -> str:
    """The job: a version when one is due; nothing before there is a CA."""
    try:
        made = trust_list.publish_if_due(
            container.engine, lambda: list_signer(container), container.present()
        )
    except Refusal as refusal:
        # A first run looks before its ceremony has ended.
        if refusal.code == "no-list-signer":
            return ""
        raise
    return f"version {made} published" if made else ""
