# Sourced by the scripts that need a cargo subcommand.

# Installs a cargo subcommand in this version, unless it is there, and prints the path of its program.
cargo_tool() {
    local name=$1 version=$2 root=$packages/tools/$1-$2
    [ -x "$root/bin/$name" ] || cargo install --locked --quiet --root "$root" --version "=$version" "$name" >&2 || return
    realpath "$root/bin/$name"
}
