# shellcheck shell=bash
# Sourced, after flags.sh, by the scripts that need a cargo subcommand.

# Installs a cargo subcommand in this version, unless it is there, and prints the path of its program.
cargo_tool() {
    # shellcheck disable=SC2154 # from flags.sh
    local name=$1 version=$2 root=$packages/tools/$1-$2
    # It runs for a second: optimising it is not worth the compile time.
    [ -x "$root/bin/$name" ] || CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
        cargo install --locked --quiet --root "$root" --version "=$version" "$name" >&2 || return
    realpath "$root/bin/$name"
}
