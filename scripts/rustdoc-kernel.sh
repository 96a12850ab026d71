#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Takes rustdoc's place in the kernel's build: documents the kernel crate, and passes over the crates
# below it, core first, which take longer and have nothing of ours.

case " $* " in
*" --crate-name kernel "*)
	exec rustdoc "$@"
	;;
esac
