#!/usr/bin/env bash
# Within a minute on two cores: lint, types, import contracts, and the tests that start no server.
# For whoever edits; scripts/test.sh is what must pass. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
need_packages git openssl
need_venv requirements-test.lock
export PATH="$PWD/.venv/bin:$PATH"
ruff check .
ruff format --check .
# Types beside the contracts: neither uses the second core by itself.
mypy & types=$!
lint-imports >/dev/null || lint-imports
wait "$types"
exec pytest -q -n 2 --dist loadgroup -m "pure and not waits and not long" \
    tests/directory tests/pki tests/repo "$@"
