# shellcheck shell=bash disable=SC2034 # set for whoever sources it
# What makes the same source the same program, wherever it is built: sourced by hooks/build and packaging/build in the
# folder of Cargo.toml.
#
# Otherwise messages of panics would contain paths of this machine.
reproducible="--remap-path-prefix=$PWD=/iova-preflight --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
# Packages carry the time of the source.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2> /dev/null || stat -c %Y CHANGELOG.md)
fi
export SOURCE_DATE_EPOCH
# Where cargo puts programs, and where packages are put together: Cargo.toml names the latter.
out=${CARGO_TARGET_DIR:-target}
packages=target/packages
