# shellcheck shell=bash
# Sourced, after flags.sh, by the scripts that need a cargo subcommand. Each of these installs one, unless it is there, and
# prints the path of its program.
cargo_deb() { cargo_tool cargo-deb 3.8.0; }
cargo_generate_rpm() { cargo_tool cargo-generate-rpm 0.21.1; }

cargo_tool() {
    # shellcheck disable=SC2154 # from flags.sh
    local name=$1 version=$2 root=$packages/tools/$1-$2
    # It runs for seconds: optimising it is not worth the compile time, but for the C of its compressors. The tools have
    # dependencies in common.
    [ -x "$root/bin/$name" ] || CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CFLAGS=-O2 \
        CARGO_TARGET_DIR=$packages/tools/target \
        cargo install --locked --quiet --root "$root" --version "=$version" "$name" >&2 || return
    realpath "$root/bin/$name"
}
