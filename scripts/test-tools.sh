# shellcheck shell=bash
# Sourced by scripts/test and scripts/bench, from the root of the repository: installs what tests and
# benches need, each step skipped when its result is already there, and exports where it is.

readonly OPA_VERSION=v1.22.2
readonly OPAL_VERSION=0.9.9

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/test-tools/bin"
target=$(cd "$target" && pwd)
readonly target tools=$target/test-tools

say() { printf '\n[%s] %s\n' "$(date +%T)" "$*"; }
fail() {
    printf '\n%s: %s\n' "$0" "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# --- Debian packages ---------------------------------------------------------------------------

# Installs the Debian package $1, which brings what $2 says is missing.
install_package() {
    local package=$1 reason=$2 run=()
    have apt-get || fail "$reason, and there is no apt-get here: install \`$package\` or its like"
    if [[ $(id -u) != 0 ]]; then
        have sudo || fail "$reason: install \`$package\` (neither root nor sudo here, tried both)"
        run=(sudo -n)
    fi
    say "$reason: installing the Debian package $package"
    if [[ -z ${apt_updated:-} ]]; then
        "${run[@]}" apt-get update -qq || say "apt-get update failed, trying with the lists there are"
        apt_updated=1
    fi
    "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >&2 ||
        fail "$reason, and \`apt-get install $package\` failed: install it by hand"
}

need() {
    local program=$1 package=$2
    have "$program" || install_package "$package" "\`$program\` is missing"
    have "$program" || fail "\`$program\` is still missing after installing $package"
}

# --- The real opa ------------------------------------------------------------------------------

install_opa() {
    local opa=$tools/bin/opa
    if [[ $([[ -x $opa ]] && "$opa" version) != *"Version: ${OPA_VERSION#v}"* ]]; then
        have go || fail "the real \`opa\` is missing and \`go\`, which builds it, too: install Go 1.24 or newer"
        say "Building opa $OPA_VERSION with \`go install\` (some minutes, once)"
        GOBIN=$tools/bin go install "github.com/open-policy-agent/opa@$OPA_VERSION" ||
            fail "\`go install github.com/open-policy-agent/opa@$OPA_VERSION\` failed: see above"
    fi
    export OPAL_TEST_OPA=$opa
}

# --- The released Python OPAL ------------------------------------------------------------------

# A Python that the pinned packages have wheels for.
find_python() {
    local python
    for python in python3.11 python3.12 python3.10 python3.13 python3; do
        if have "$python" && "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))'; then
            echo "$python"
            return
        fi
    done
    fail "Python 3.10 to 3.13 is missing: the released OPAL $OPAL_VERSION needs it"
}

install_python_opal() {
    local venv=$tools/venv requirements=scripts/python-requirements.txt stamp python
    stamp=$venv/installed-$(cksum <"$requirements" | tr ' ' -)
    if [[ ! -e $stamp ]]; then
        python=$(find_python)
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            install_package python3-venv "\`$python -m venv\` does not work"
        say "Installing Python OPAL $OPAL_VERSION into $venv"
        rm -rf "$venv"
        "$python" -m venv "$venv" || fail "\`$python -m venv $venv\` failed: see above"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --constraint "$requirements" "opal-server==$OPAL_VERSION" "opal-client==$OPAL_VERSION" ||
            fail "\`pip install opal-server==$OPAL_VERSION opal-client==$OPAL_VERSION\` failed: see above"
        [[ $("$venv/bin/opal-server" version) == *"$OPAL_VERSION"* ]] ||
            fail "\`$venv/bin/opal-server version\` does not answer $OPAL_VERSION"
        touch "$stamp"
    fi
    export OPAL_TEST_PYTHON_VENV=$venv
}

# -----------------------------------------------------------------------------------------------

install_test_tools() {
    need git git
    need cc gcc
    need openssl openssl
    need ssh-keygen openssh-client
    need setpriv util-linux
    need curl curl
    have cargo || fail "\`cargo\` is missing: install the Rust toolchain that rust-toolchain.toml names"
    install_opa
    install_python_opal
}
