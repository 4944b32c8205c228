# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# A toolbox with next to nothing in it: it is made by the same scripts in seconds, which is what tests/setup is about.
# It has no compilers, which is a case of its own (kernel.sh).
RECIPE_SUITE=trixie
RECIPE_BACKPORTS=trixie-backports
RECIPE_PACKAGES=(busybox-static)
RECIPE_BACKPORTED=(qemu)
RECIPE_CHECK='busybox true || echo "its busybox does not run"'
RECIPE_SPACE=600
RECIPE_TIME="20 s"
