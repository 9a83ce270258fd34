"""Job `ldaps-certificate`: the LDAPS certificate renewed in time, shown by slapd while it goes on serving.

slapd reads certificate and key anew when its configuration is told where they lie; connections that are open
keep the keys they agreed on.
"""

from api.installation import ldaps_certificate
from api.installation.bring_up import guarded_slapd_of
from api.wiring import Container
from directory.base.audit import Actor
from directory.base.errors import Kind, Refusal
from directory.base.failpoints import passing

ACTOR = Actor("job:ldaps-certificate")


def renew(container: Container) -> str:
    """Renew the pair when it is due, and have slapd show the current one; '' when it did already.

    Slapd is asked for its certificate each time. The next run takes up a crash after the switch, or a slapd
    that was down. Refusal UNAVAILABLE `ldaps-not-shown` when it cannot be brought to.
    """
    settings = container.settings
    state = settings.state
    # The first is made by `sceau up`, before slapd; without one, no slapd of ours serves here.
    if not (ldaps_certificate.folder_of(state) / "current").is_symlink():
        return ""
    if settings.ldap_url and not guarded_slapd_of(settings).answers():
        return ""
    why = ldaps_certificate.ensure(container, ACTOR)
    slapd = guarded_slapd_of(settings)
    if slapd.shows_certificate():
        if not why:
            ldaps_certificate.forget_old(state)
        return ""
    passing("ldaps.switched")
    slapd.show_certificate()
    passing("ldaps.told")
    if not slapd.shows_certificate():
        text = f"slapd was told of a new certificate and does not show it on port {settings.ldaps_port}."
        raise Refusal(Kind.UNAVAILABLE, "ldaps-not-shown", text)
    return f"LDAPS shows a new certificate{': ' if why else ''}{why}"
