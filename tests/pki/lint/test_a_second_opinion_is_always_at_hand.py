"""pkilint in processes of its own: the same opinion as in ours, and no certificate without one."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.x509.oid import ExtensionOID
from sqlalchemy import Engine, text

from directory.base.errors import Refusal
from pki.certificates.profiles import OPERATOR_SERVER, ORGANISATION, PRACTITIONER
from pki.issuance import for_enrolment
from pki.lint import pkix
from pki.lint.accepted import ACCEPTED
from pki.lint.pool import LintPool
from tests.pki.conftest import BASE_URL, Enrolled, Established, new_key, request_for
from tests.pki.lint.test_lint import Encoding, leaf, rebuilt

pytestmark = pytest.mark.waits
GOOD = leaf(PRACTITIONER).public_bytes(Encoding.DER)
BAD = rebuilt(leaf(PRACTITIONER), drop=ExtensionOID.AUTHORITY_KEY_IDENTIFIER).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def shared() -> Iterator[LintPool]:
    made = LintPool(workers=1)
    made.warm()
    yield made
    made.close()


@pytest.fixture
def alone() -> Iterator[LintPool]:
    made = LintPool(workers=1)
    yield made
    made.close()


def process_of(lints: LintPool) -> int:
    (worker,) = lints._free.queue
    assert worker
    return worker._process.pid


def test_its_opinion_is_that_of_pkilint_in_this_process(shared: LintPool) -> None:
    for der in (GOOD, BAD):
        assert shared.findings(der, PRACTITIONER.name) == pkix.findings(der, PRACTITIONER.name)
    assert shared.findings(BAD, PRACTITIONER.name)[0]


def test_many_threads_each_get_the_opinion_on_their_own_certificate(shared: LintPool) -> None:
    asked = [GOOD, BAD] * 10
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda der: shared.findings(der, PRACTITIONER.name)[0], asked))
    assert [bool(wrong) for wrong in answers] == [der is BAD for der in asked]


def test_a_process_that_dies_is_replaced(shared: LintPool) -> None:
    shared.findings(GOOD)
    dead = process_of(shared)
    os.kill(dead, signal.SIGKILL)
    with pytest.raises(Refusal) as refused:
        shared.findings(GOOD)
    assert refused.value.code == "lint-unavailable"
    assert shared.findings(GOOD) == ([], [])
    assert process_of(shared) != dead


def test_one_that_hangs_is_not_waited_for_and_its_late_answer_is_nobodys(alone: LintPool) -> None:
    alone.findings(GOOD)
    hung = process_of(alone)
    os.kill(hung, signal.SIGSTOP)
    alone._seconds = 0.2
    started = time.monotonic()
    with pytest.raises(Refusal, match="could not be checked"):
        alone.findings(BAD, PRACTITIONER.name)
    assert time.monotonic() - started < 2
    alone._seconds = 5
    assert alone.findings(GOOD, PRACTITIONER.name) == ([], [])


def test_bytes_that_are_no_certificate_get_no_opinion(alone: LintPool) -> None:
    with pytest.raises(Refusal) as refused:
        alone.findings(b"\x30\x00", PRACTITIONER.name)
    assert refused.value.code == "lint-unavailable"


def test_whoever_would_wait_behind_too_many_is_sent_away_at_once(
    alone: LintPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_waiting", threading.BoundedSemaphore(1))
    alone._waiting.acquire()
    with pytest.raises(Refusal) as refused:
        alone.findings(GOOD)
    assert refused.value.code == "lint-unavailable"


def test_nothing_is_reserved_without_the_second_opinion(
    engine: Engine, authority: Established, enrolled: Enrolled, now: object
) -> None:
    lints = LintPool(workers=0, seconds=0.05)
    with pytest.raises(Refusal) as refused:
        for_enrolment.issue_for_enrolment(
            engine, authority.signer, now=now, token=enrolled.first, enrolment_id=enrolled.id,  # type: ignore[arg-type]
            csr=request_for(new_key()), base_url=BASE_URL, opinion=lints.findings,
        )  # fmt: skip
    assert refused.value.code == "lint-unavailable"
    with engine.connect() as connection:
        query = "SELECT count(*) FROM reservation WHERE enrolment_id IS NOT NULL"
        assert connection.execute(text(query)).scalar_one() == 0


@pytest.mark.parametrize("profile", [PRACTITIONER, ORGANISATION, OPERATOR_SERVER])
def test_a_profile_is_held_against_more_than_rfc_5280(
    profile: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pkix, "ACCEPTED", {})
    wrong, _ = pkix.findings(leaf(profile).public_bytes(Encoding.DER), profile.name)  # type: ignore[attr-defined, arg-type]
    assert {finding.lint.removeprefix("pkilint:") for finding in wrong} <= set(ACCEPTED)
    assert any("policy_oid" in finding.lint for finding in wrong)


def test_what_is_accepted_has_a_reason() -> None:
    assert all(len(reason) > 20 for reason in ACCEPTED.values())
