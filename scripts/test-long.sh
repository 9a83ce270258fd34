#!/usr/bin/env bash
# What takes too long for each commit: the tests marked `long`, and requests by schemathesis four times as many.
# Runs before a release. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
. ./setup.sh
# A judge of certificates and CRLs that only these tests call.
need_packages default-jdk-headless
./test.sh -q -n 2 --dist loadgroup -m long "$@"
SCEAU_EXAMPLES=50 ./test.sh -q -n 2 tests/api/test_openapi.py "$@"
