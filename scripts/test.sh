#!/usr/bin/env bash
# The whole suite on a bare machine: installs what tests need, then lint, types, import contracts, tests.
# Arguments go to pytest (scripts/test.sh tests/pki -k ocsp runs only those, without the checks before).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
need_packages git jq slapd ldap-utils openssl gnutls-bin curl chromium chromium-driver softhsm2 opensc libnss3-tools gpgsm \
    gpg-agent dirmngr gpgconf postfix postfix-ldap xxd nodejs node-ajv
need_venv requirements-test.lock
export PATH="$PWD/.venv/bin:$PATH"
if [ "$#" -gt 0 ]; then exec pytest "$@"; fi
ruff check .
ruff format --check .
mypy
lint-imports
exec pytest -q -n 3 --dist loadgroup
