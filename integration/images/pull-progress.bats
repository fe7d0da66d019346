#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What a pull shows of itself: on terminals of some sizes, in logs, to programs.

load ../lib/helpers
load ../lib/images
load ../lib/registry

setup_file() {
	start_faulty_registry
	BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR new_image
	echo ran >"$image/stamp"
	local n
	for n in 1 2; do # the store gets what srun uses
		head -c 3000000 /dev/urandom >"$image/bulk"
		mkimage --env PATH=/bin "progress/two:$n" "$image/bin" "$image" >/dev/null
	done
	export ref=$faulty/progress/two:1 layers
	layers=$(skopeo inspect --tls-verify=false --raw "docker://$ref" | jq -r '[.layers[].digest] | join("|")')
}

teardown_file() { stop_registries; }

setup() {
	mark_logs
	forget
	faults "0 slow $layers"
}

teardown() {
	dump_logs_on_failure
	forget
}

# on_terminal COLUMNS COMMAND...: what it writes to a terminal of that width, which
# changes to COLUMNS2 while it runs if that is set.
on_terminal() {
	as_user python3 - "$1" "${COLUMNS2:-$1}" "${@:2}" <<-'PYTHON'
		import fcntl, os, pty, struct, sys, termios, time
		def width(fd, n):
		    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, n, 0, 0))
		pid, fd = pty.fork()
		if pid == 0:
		    width(0, int(sys.argv[1]))
		    os.environ["TERM"] = "xterm"
		    os.execvp(sys.argv[3], sys.argv[3:])
		start, out = time.monotonic(), b""
		while True:
		    try:
		        data = os.read(fd, 4096)
		    except OSError:
		        break
		    if not data:
		        break
		    out += data
		    if time.monotonic() - start > 1:
		        width(fd, int(sys.argv[2]))
		sys.stdout.write(out.decode().replace("\r\n", "\n"))
		sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
	PYTHON
}

brolga_pull() { printf '%s\n' brolga pull --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" --cache "$user_home/cache-of-test"; }

# drawn: the lines that were drawn, without what moves the cursor.
drawn() { sed -E 's/\x1b\[[0-9]*[A-Z]//g; s/\r/\n/g' <<<"$output" | grep -E '^( |brolga: [0-9]+/)'; }

widest() { drawn | awk '{if (length > n) n = length} END {print n + 0}'; }

@test "progress: a terminal shows a bar for each layer and for all, and a line in the end" {
	mapfile -t cmd < <(brolga_pull)
	run_ok on_terminal 80 "${cmd[@]}" "$ref"
	expect_match '^.*brolga: pulled 2 layers \([0-9.]+ MiB\) in [0-9.]+ s$'
	drawn | grep -qE '^  [0-9a-f]{12} \[=+ +\] [0-9.]+ [KM]iB of [0-9.]+ [KM]iB$' || fail "$(drawn)"
	drawn | grep -qE '^brolga: 0/2 layers \[=+ +\] [0-9.]+ [KM]iB of [0-9.]+ MiB' || fail "$(drawn)"
	(($(widest) < 80)) || fail "$(drawn)"
	[[ ${lines[-1]} == "$ref@sha256:"* ]] || fail "$output"
}

@test "progress: narrow terminals, and one that changes, are never wider than they are" {
	local columns
	mapfile -t cmd < <(brolga_pull)
	for columns in 40 12 1; do
		run_ok on_terminal "$columns" "${cmd[@]}" "$ref"
		(($(widest) < columns)) || fail "$(drawn)"
		forget
	done
	COLUMNS2=100 run_ok on_terminal 40 "${cmd[@]}" "$ref"
	(($(widest) > 40 && $(widest) < 100)) || fail "$(drawn)"
}

@test "progress: elsewhere one line for each layer, and none with --quiet" {
	run_ok pull "$ref"
	[[ $(grep -cE '^brolga: pulled layer [12]/2 sha256:[0-9a-f]{12} \([0-9.]+ [KM]iB\)$' <<<"$output") == 2 ]] || fail "$output"
	((${#lines[@]} == 3)) || fail "$output"
	for style in --quiet --progress=none; do
		forget
		run_ok pull "$style" "$ref"
		[[ $output == "$ref@sha256:"* && ${#lines[@]} == 1 ]] || fail "$output"
	done
	run_fails pull --progress=fancy "$ref"
	expect_line 'brolga: error: progress "fancy": want auto, bar, plain, json or none'
}

@test "progress: for programs, an object on each line" {
	run_ok pull --progress=json "$ref"
	head -n -1 <<<"$output" | jq -es 'map(.event) | .[0] == "begin" and .[-1] == "end" and (map(select(. == "layer")) | length == 2) and any(. == "progress")' || fail "$output"
	head -n -1 <<<"$output" | jq -es '(.[0].bytes == .[-1].bytes) and .[0].layers == 2 and .[-1].layers == 2' || fail "$output"
}

@test "progress: srun shows it on its own terminal, and its lines in a log" {
	as_user brolga rmi "$ref" 2>/dev/null || true
	run_ok on_terminal 80 srun --time=5 --container-image="$ref" cat /stamp
	drawn | grep -qE '^brolga: [01]/2 layers \[' || fail "$(drawn)"
	expect_match 'brolga: pulled 2 layers'
	expect_match '^ran'
	run_ok crun --container-image="${ref%1}2" cat /stamp
	expect_match '^brolga: pulled layer 2/2 sha256:[0-9a-f]{12} '
	expect_line ran
	refute_match $'\x1b|\r'
}
