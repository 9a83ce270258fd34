"""The `sceau` command's root: which subjects there are."""

import logging

import click

from api.cli.anchors import anchors
from api.cli.attention import attention
from api.cli.audit import audit
from api.cli.ca import ca
from api.cli.clock import clock
from api.cli.correct import correct
from api.cli.crl import crl
from api.cli.demo import demo
from api.cli.enrolment import enrol, issue, revoke
from api.cli.evidence import evidence
from api.cli.expiring import expiring
from api.cli.jobs import jobs
from api.cli.keys import keys
from api.cli.ldap import ldap
from api.cli.limits import limits
from api.cli.measure import measure
from api.cli.migrate import migrate
from api.cli.parts import gate, signer, web, worker
from api.cli.person import freeze, person, unfreeze
from api.cli.recipients import check
from api.cli.restore import restore
from api.cli.revocations import release, restate, revoke_many
from api.cli.sign import sign
from api.cli.status import status
from api.cli.sync import sync
from api.cli.token import token
from api.cli.up import down, up


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="sceau")
def main() -> None:
    """Sceau: the trust registry of health messaging.

    \b
    First run:   sceau up --demo
    Look:        sceau status
    Ask:         sceau check ADDRESS --sender ADDRESS
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # At lower levels it tells each second that a job still runs, which is what the lock is for.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


for command in (
    up,
    down,
    status,
    migrate,
    sync,
    enrol,
    issue,
    revoke,
    keys,
    release,
    restate,
    revoke_many,
    measure,
    correct,
    limits,
    attention,
    expiring,
    check,
    ldap,
    ca,
    crl,
    audit,
    restore,
    clock,
    token,
    person,
    sign,
    freeze,
    unfreeze,
    anchors,
    evidence,
    jobs,
    demo,
    web,
    worker,
    signer,
    gate,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
