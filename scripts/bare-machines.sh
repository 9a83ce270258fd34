#!/usr/bin/env bash
# quickstart.sh and test.sh on bare Debian machines, one for each release, each account and each script.
#
#   scripts/bare-machines.sh [--at FOLDER] [--release NAME]... [--account NAME]... [--only SCRIPT] [--keep] [-- COMMAND...]
#
# Releases: bookworm, trixie. Accounts: root; sudo (an ordinary account that may become root); contained (root with
# what containers commonly leave it, user namespaces forbidden). Scripts: quickstart, test; a COMMAND takes the place
# of both. Needs root and debootstrap, takes this machine's apt and pip configuration, ends with the first failure.
#
# A machine is a folder that one process sees as its root, with processes and mounts of its own: they end with it, so
# that its folder can be deleted. It shares this machine's kernel and network. The last commit is what gets tried.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# What Docker and Podman leave to root, without net_raw.
CONTAINED=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+mknod,+net_bind_service,+setfcap,+setgid,+setpcap,+setuid,+sys_chroot

die() { printf 'bare-machines: %s\n' "$*" >&2; exit 2; }

# Where pip finds packages and whom it trusts, as far as the environment says.
pip_environment() { env | grep -E '^(PIP_[A-Z_]+|(https?|all|no)_proxy|(HTTPS?|ALL|NO)_PROXY)=' || true; }

# Files and folders of this machine that pip's configuration names.
pip_places() {
    { cat /etc/pip.conf /etc/xdg/pip/* 2>/dev/null; pip_environment; } |
        grep -vE '^[[:space:]]*#' | grep -oE '(^|[=[:space:]]|file://)/[^[:space:]]+' | sed -E 's|.*file://||; s|^[^/]*||' | sort -u
}

pip_files() { local place; for place in $(pip_places); do [ ! -f "$place" ] || echo "$place"; done; }

copy_in() { # FOLDER PATH: the same path inside
    mkdir -p "$1$(dirname "$2")" && cp -a "$2" "$1$(dirname "$2")/"
}

# debootstrap's result with this machine's sources, for the other release.
make_base() { # RELEASE
    local base=$at/base-$1 codename mirror path
    [ ! -e "$base.made" ] || return 0
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' | awk -v name="$codename" '$1 == name { print $2; exit }')
    rm -rf --one-file-system "$base"
    debootstrap --variant=minbase "$1" "$base" "$mirror" >"$base.log" || die "debootstrap failed, see $base.log"
    rm -f "$base/etc/apt/sources.list"
    for path in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        # Only the distribution's own: a bare machine has no others.
        [ -e "$path" ] && grep -q "$codename" "$path" || continue
        sed "s/$codename/$1/g" "$path" >"$base$path"
    done
    apt-config dump Acquire | grep -vE '^Acquire::(IndexTargets|Changelogs|CompressionTypes|cdrom)' >"$base/etc/apt/apt.conf.d/90this-machine"
    # The package ca-certificates, once installed, makes its list anew from the last of these.
    for path in /etc/pip.conf /etc/xdg/pip $(pip_files) /usr/local/share/ca-certificates; do
        [ ! -e "$path" ] || copy_in "$base" "$(readlink -f "$path")"
    done
    cp /etc/hosts /etc/resolv.conf "$base/etc/"
    chroot "$base" apt-get update -qq >>"$base.log"
    touch "$base.made"
}

# A fresh machine with a clone in /opt.
make_machine() { # FOLDER RELEASE ACCOUNT
    rm -rf --one-file-system "$1"
    cp -a "$at/base-$2" "$1"
    git clone -q --no-hardlinks "$here" "$1/opt/sceau"
    [ "$3" = sudo ] || return 0
    DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get install -y -qq --no-install-recommends sudo >>"$at/base-$2.log" 2>&1
    chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 someone
    printf 'someone ALL=(ALL) NOPASSWD: ALL\n' >"$1/etc/sudoers.d/someone"
    chroot "$1" chown -R someone: /opt/sceau
}

# Runs as the first process of the machine: mounts what a kernel gives, leaves this machine's files, runs the command.
be_machine() { # FOLDER ACCOUNT COMMAND...
    local folder=$1 account=$2 place
    shift 2
    mount --bind "$folder" "$folder"
    mount -t proc proc "$folder/proc"
    mount -t sysfs -o ro sysfs "$folder/sys"
    mount --bind /dev "$folder/dev"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$folder/dev/pts"
    mount --bind "$folder/dev/pts/ptmx" "$folder/dev/ptmx"
    mount -t tmpfs -o mode=1777 tmpfs "$folder/dev/shm"
    for place in $(pip_places); do
        [ -d "$place" ] || continue
        mkdir -p "$folder$place" && mount --bind -o ro "$place" "$folder$place"
    done
    cd "$folder"
    local clean=(env -i "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "TERM=dumb") words
    mapfile -t words < <(pip_environment)
    clean+=("${words[@]}")
    if [ "$account" = contained ]; then
        # The kernel gives no user namespace to whom chroot has shut in (user_namespaces(7), EPERM).
        clean+=(HOME=/root setpriv "--bounding-set=$CONTAINED")
        chroot . "${clean[@]}" bash -c 'cd /opt/sceau && "$@"' bash "$@"
        return
    fi
    mkdir -p .outside && pivot_root . .outside && cd / && umount -l /.outside && rmdir /.outside
    case $account in
        root) clean+=(HOME=/root) ;;
        sudo) clean+=(HOME=/home/someone USER=someone setpriv --reuid=someone --regid=someone --init-groups) ;;
    esac
    "${clean[@]}" bash -c 'cd /opt/sceau && "$@"' bash "$@"
}

on_machine() { # FOLDER ACCOUNT COMMAND...
    # In the background, so that whoever ends us ends the machine (unshare itself heeds neither SIGINT nor SIGTERM).
    env --default-signal=INT,QUIT unshare --mount --propagation private --pid --ipc --uts --kill-child --fork \
        bash "${BASH_SOURCE[0]}" --be-machine "$@" &
    machine_process=$!
    trap 'kill -KILL "$machine_process" 2>/dev/null || true' EXIT
    trap 'exit 130' INT TERM
    local status=0
    wait "$machine_process" || status=$?
    trap - EXIT INT TERM
    return "$status"
}

try() { # RELEASE ACCOUNT COMMAND...
    local machine=$at/$1-$2 release=$1 account=$2
    shift 2
    printf '== %s, %s: %s\n' "$release" "$account" "$*"
    make_machine "$machine" "$release" "$account"
    on_machine "$machine" "$account" "$@" || die "failed on $release as $account: $* (its files: $machine)"
    [ "$keep" = yes ] || rm -rf --one-file-system "$machine"
}

# A first run answers, stops, and finds everything again.
FIRST_RUN='set -e; for round in 1 2; do scripts/quickstart.sh --detach; curl -fsS http://127.0.0.1:8080/readyz; echo
.venv/bin/sceau status; .venv/bin/sceau down; done'

main() {
    local releases=() accounts=() release account
    at=/var/tmp/sceau-bare-machines keep=no only=both
    if [ "${1:-}" = --be-machine ]; then be_machine "${@:2}"; return; fi
    while [ "$#" -gt 0 ]; do
        case $1 in
            --at) at=$2; shift ;;
            --release) releases+=("$2"); shift ;;
            --account) accounts+=("$2"); shift ;;
            --only) only=$2; shift ;;
            --keep) keep=yes ;;
            --) shift; break ;;
            *) die "unknown option $1; its opening lines say what it takes" ;;
        esac
        shift
    done
    [ "$(id -u)" -eq 0 ] || die "needs root: it makes root folders and mounts into them."
    (. /etc/os-release && [ "$ID" = debian ]) || die "needs a Debian machine: the bare ones take its package sources."
    command -v debootstrap >/dev/null || die "needs debootstrap: apt-get install debootstrap"
    mkdir -p "$at"
    [ "${#releases[@]}" -gt 0 ] || releases=(bookworm trixie)
    [ "${#accounts[@]}" -gt 0 ] || accounts=(root sudo contained)
    for release in "${releases[@]}"; do
        make_base "$release"
        for account in "${accounts[@]}"; do
            if [ "$#" -gt 0 ]; then try "$release" "$account" "$@"; continue; fi
            [ "$only" = test ] || try "$release" "$account" bash -c "$FIRST_RUN"
            [ "$only" = quickstart ] || try "$release" "$account" scripts/test.sh
        done
    done
}

# On one line: bash reads no further, whatever becomes of this file meanwhile.
main "$@"; exit
