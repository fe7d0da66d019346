#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Installed programs are hardened, as their linker and the kernel can see it.
#
# brolga and brolga-ssh have neither PIE nor RELRO: Go links them without C and without a
# loader, for any image. They run without privilege.

load ../lib/helpers

pure="brolga brolga-ssh"

installed() { find "$BROLGA_CLUSTER_DIR/prefix" -type f \( -path '*/bin/*' -o -path '*/libexec/*' -o -name '*.so' \); }

@test "hardening: all programs and libraries are looked at" {
	run_ok installed
	((${#lines[@]} >= 7))
	for name in brolga brolga-helper brolga-parse brolga-launch brolga-ssh libbrolga.so spank_brolga.so; do
		expect_match "/$name\$"
	done
}

@test "hardening: no stack is executable, no segment is writable and executable, no path to libraries is built in" {
	for file in $(installed); do
		run_ok readelf -lWd "$file"
		expect_match 'GNU_STACK .* RW '
		refute_match 'LOAD .* RWE|RPATH|RUNPATH'
	done
}

@test "hardening: what is linked with C is position independent, and its tables are read-only" {
	for file in $(installed); do
		[[ " $pure " != *" ${file##*/} "* ]] || continue
		run_ok readelf -hlWd "$file"
		expect_match 'Type: +DYN' || fail "$file"
		expect_match 'GNU_RELRO' || fail "$file"
		expect_match 'BIND_NOW|FLAGS_1.*NOW' || fail "$file"
	done
}

@test "hardening: what runs in any image needs no loader" {
	for name in brolga-helper brolga-launch brolga-parse brolga-ssh; do
		run_ok readelf -lW "$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/$name"
		refute_match 'INTERP'
	done
}

@test "hardening: the plugin has a stack protector and checked string functions" {
	run_ok readelf -W --dyn-syms "$BROLGA_CLUSTER_DIR/prefix/lib/slurm/spank_brolga.so"
	expect_match '__stack_chk_fail'
	expect_match '__(snprintf|vsnprintf|memcpy|read)_chk'
}

@test "hardening: nothing that is installed is setuid, setgid, or writable by others" {
	run_ok find "$BROLGA_CLUSTER_DIR/prefix" ! -type l -perm /6022
	[[ -z $output ]] || fail "$output"
}
