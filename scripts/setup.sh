#!/usr/bin/env bash
# Brings what the machine lacks: distribution packages named as arguments, then .venv from the hash-pinned lock
# named in SCEAU_LOCK. Sourced by quickstart.sh and test.sh; may run any number of times.

say() { printf '%s\n' "$*" >&2; }
die() { say "sceau: $*"; exit 2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 127; fi
}

# The package starts a system slapd of its own when installed; ours is private, and that one would take port 389.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d made=no status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy" && made=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null || status=$?
    [ "$made" = no ] || as_root rm -f "$policy"
    return "$status"
}

need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "needs ${missing[*]}, and this system has no apt-get: install their equivalents, then run this again."
    as_root true 2>/dev/null ||
        die "needs ${missing[*]}, and neither root nor sudo is at hand: ask for 'apt-get install ${missing[*]}', then run this again."
    say "installing ${missing[*]}"
    install_quietly "${missing[@]}" || { as_root apt-get update -qq >/dev/null && install_quietly "${missing[@]}"; } ||
        die "could not install ${missing[*]}: run 'apt-get install ${missing[*]}' to see why."
}

# The system's own first: it is built with profiles, and a tenth faster at this program than those that a version
# manager compiles here and now, which seldom are.
present_python() {
    local candidate
    for candidate in "${PYTHON:-}" /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$candidate"; return; }
    done
    return 1
}

# A bare Debian has none.
find_python() {
    present_python && return
    need_packages python3 python3-venv
    present_python || die "needs Python 3.11 or later; set PYTHON to one."
}

# The stamp is written last: an installation cut short is done again.
need_venv() {
    local lock=$1 python stamp=.venv/sceau-installed place wanted
    python=$(find_python) || exit 2
    # What tests need contains what a run needs: a quickstart does not take it away again.
    [ -f .venv/sceau-lock-test ] && lock=requirements-test.lock
    place="$("$python" -V) $PWD"
    # With the version: what is installed tells its own.
    wanted="$(sha256sum "$lock" | cut -d' ' -f1) $(sed -n 's/^version = //p' pyproject.toml) $place"
    # Programs in a .venv name its folder and its Python: moved or upgraded, it is made anew.
    case "$(cat "$stamp" 2>/dev/null)" in "" | *" $place") ;; *) rm -rf .venv ;; esac
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        need_packages "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    say "making .venv"
    [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null || { rm -rf .venv; "$python" -m venv .venv; }
    # The lock names every package. Resolved once more, an extra of one (coverage[toml]) is taken at its newest
    # release by older pips, which then refuse it as not pinned.
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r "$lock" ||
        die "could not install the Python packages of $lock (is a package index within reach?)."
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ||
        die "could not install sceau itself into .venv."
    .venv/bin/python -m pip check -q --disable-pip-version-check || die "$lock lacks a package that another needs."
    [ "$lock" = requirements-test.lock ] && touch .venv/sceau-lock-test
    printf '%s' "$wanted" >"$stamp"
}
