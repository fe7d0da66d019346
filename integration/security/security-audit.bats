#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# audit_log: a line in the node's syslog for each step and node.

load ../lib/helpers
load ../lib/images
load ../lib/run

setup() {
	mark_logs
	syslog=$BROLGA_CLUSTER_DIR/syslog
	rm -f "$syslog"*
	given
}

teardown() {
	dump_logs_on_failure
	[[ -z ${listener:-} ]] || kill "$listener"
	restore_site_config
	rm -f "$syslog"*
}

# with_syslog: datagrams for $syslog are lines of $syslog.log.
with_syslog() {
	python3 - "$syslog" >"$syslog.log" 3>&- <<-'PROGRAM' &
		import socket, sys, os
		s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		s.bind(sys.argv[1])
		os.chmod(sys.argv[1], 0o666)
		while True:
		    print(s.recv(65536).decode("ascii"), flush=True)
	PROGRAM
	listener=$!
	retry 10 test -S "$syslog"
	audit_to "$syslog"
}

audit_to() {
	site_config "audit_log = \"$1\""
}

logged() { (($(wc -l <"$syslog.log") == $1)); }

expect_logged() {
	retry 5 logged "$1" || fail "$(cat "$syslog.log")"
	output=$(<"$syslog.log")
}

@test "audit: a line for each node says who got which image with which options" {
	with_syslog
	run_ok crun -N2 --ntasks-per-node=2 --container-image="$BROLGA_TEST_IMAGE" --container-mounts=/tmp:/mnt --container-env='TOKEN=secret,B' true
	expect_logged 2
	local head='^<86>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} brolga\[[0-9]+\]: result=started'
	for node in n1 n2; do
		expect_match "$head uid=$(id -u "$BROLGA_TEST_USER") user=$BROLGA_TEST_USER step=[0-9]+\.0 node=$node image=$BROLGA_TEST_IMAGE@sha256:[0-9a-f]{64} digest=sha256:[0-9a-f]{64} way=kernel "
	done
	expect_match ' option.container-env=TOKEN,B option.container-image=[^ ]+ option.container-mounts=/tmp:/mnt$'
	refute_match secret
}

@test "audit: a step that is refused is told with the reason, on one line" {
	with_syslog
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts=$'/no\nresult=started uid=0:/mnt' true
	expect_logged 1
	expect_match ' result=refused uid=[1-9].* reason="[^"]*no such file or directory on this node"'
	expect_match 'option.container-mounts="/no\\nresult=started uid=0:/mnt"'
}

@test "audit: brolga run is told, too" {
	with_syslog
	run_ok brun "$BROLGA_TEST_IMAGE" true
	expect_logged 1
	expect_match " result=started uid=$(id -u "$BROLGA_TEST_USER") user=$BROLGA_TEST_USER step=run\.[0-9]+ .* way=fuse "
}

@test "audit: a node without a syslog, or with one that does not read, starts steps all the same" {
	audit_to "$syslog"
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" --container-verbose echo runs
	expect_line runs
	expect_match "open the audit log $syslog: no such file or directory"
	restore_site_config
	with_syslog
	kill -STOP "$listener"
	python3 - "$syslog" <<-'PROGRAM'
		import socket, sys
		s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		s.setblocking(False)
		try:
		    while True:
		        s.sendto(b"x", sys.argv[1])
		except BlockingIOError:
		    pass
	PROGRAM
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" --container-verbose echo runs
	expect_line runs
	expect_match 'write to the audit log: resource temporarily unavailable'
	kill -CONT "$listener"
}
