#!/usr/bin/env bash
# What takes too long for each commit: the tests marked `long`, and properties on many more examples.
# Runs before a release. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
. ./setup.sh
# A judge of certificates and CRLs, and a mail program, that only these tests call.
need_packages default-jdk-headless thunderbird
./test.sh -q -n 2 --dist loadgroup -m long "$@"
SCEAU_EXAMPLES=50 ./test.sh -q -n 2 --dist loadgroup tests/api/rest/test_openapi.py tests/directory tests/pki/ocsp tests/pki/verdict "$@"
