"""How many files a request for a certificate passes, from the view to the stored row, as a trace counts them.

The way of counting is written in `docs/architecture.md`. A new step on this road is a new file to read for
everybody who asks why a request is refused.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import Engine

from api.wiring import Container
from tests.api.conftest import Caller
from tests.api.rest.test_enrolments import CHECKED
from tests.api.signing import request_for
from tests.factories import seed_practitioner

ROOT = Path(__file__).resolve().parents[2]
VIEW = "api/rest/enrolments.py"
# Where the order of the steps is written: what these call is a step, and what a step calls is its own.
ROAD = (VIEW, "pki/issuance/for_enrolment.py", "pki/issuance/pipeline.py")
# Values, the caller's token, and what every act of the service stands on.
NOT_COUNTED = ("pki/model.py", "directory/access.py", "directory/base/", "api/wiring.py", "api/settings.py")
MOST = 15


@pytest.fixture
def container(issuing: Container) -> Container:
    # pkilint is one step, and takes half a minute under a trace.
    return replace(issuing, opinion=lambda *_: ([], []))


def test_a_request_passes_at_most_fifteen_files(caller: Callable[..., Caller], engine: Engine) -> None:
    registrar, other = caller("registrar"), caller("registrar", name="other")
    someone = seed_practitioner(engine)
    body = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": CHECKED}
    path = f"/v1/enrolments/{registrar.post('/v1/enrolments', body).get_json()['id']}"
    assert other.post(f"{path}/approval").status_code == 200
    csr = {"csr": request_for()}
    passed = traced(lambda: registrar.post(f"{path}/certificates", csr).status_code)
    assert set(ROAD) <= passed
    assert {"pki/certificates/csr.py", "pki/tlog/store.py"}.isdisjoint(passed), "what a step calls is its own"
    assert len(passed) <= MOST, sorted(passed)


def traced(act: Callable[[], int]) -> set[str]:
    """The files of the road, and those that a function of theirs calls, while a certificate is made."""
    passed = {VIEW}

    def note(frame: FrameType, event: str, _: Any) -> None:
        called, caller = _file(frame), frame.f_back and _file(frame.f_back)
        if event == "call" and called and caller in ROAD and not called.startswith(NOT_COUNTED):
            passed.add(called)

    sys.setprofile(note)
    try:
        status = act()
    finally:
        sys.setprofile(None)
    assert status == 201
    return passed


def _file(frame: FrameType) -> str:
    """The path of a frame's code in the product, '' for all other code."""
    name = frame.f_code.co_filename.removeprefix(f"{ROOT}/")
    return name if name.startswith(("api/", "pki/", "directory/")) else ""
