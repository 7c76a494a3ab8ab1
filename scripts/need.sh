# Sourced by the other scripts: installs what is missing, and says so.

say() { printf '\n==> %s\n' "$*"; }

# need COMMAND PACKAGE…: installs the packages with apt where the command is missing.
need() {
    local command=$1 as_root=()
    shift
    command -v "$command" >/dev/null && return
    if [ "$(id -u)" != 0 ]; then as_root=(sudo); fi
    if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} -gt 0 ] && ! command -v sudo >/dev/null; }; then
        printf '%s is missing, and cannot be installed from here: it needs apt-get, as root or with sudo.\n' "$command" >&2
        printf 'Install %s by hand (on Debian: %s) and run this again.\n' "$command" "$*" >&2
        exit 1
    fi
    say "$command is missing: installing $*"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# component COMMAND NAME: a part of the toolchain that a minimal installation leaves out.
component() {
    cargo "$1" --version >/dev/null 2>&1 && return
    say "cargo $1 is missing: rustup component add $2"
    rustup component add "$2"
}

# rust: the toolchain and what building C parts of dependencies takes.
rust() {
    command -v cargo >/dev/null || { echo 'cargo is missing; install a Rust toolchain (rustup) first' >&2; exit 1; }
    need cc gcc libc6-dev
}
