#!/usr/bin/env bash
# From a clean clone to a running demo: installs what is missing, makes .venv, runs `sceau up --demo`.
# Options pass through: --detach, --state DIR, --port N, --ldap-port N, --ldaps-port N.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
need_packages slapd ldap-utils openssl curl
need_venv requirements.lock
exec .venv/bin/sceau up --demo "$@"
