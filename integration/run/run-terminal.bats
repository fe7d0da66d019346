#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# brolga run in a terminal: what a person does in a shell.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images
load ../lib/run

setup() {
	mark_logs
	cat >"$BATS_TEST_TMPDIR/terminal.py" <<-'PYTHON'
		# terminal.py COMMAND...: runs it in a terminal and plays what is on standard
		# input, where each line is "PATTERN => TEXT": once the output since the last
		# line has the pattern, type the text, "^C", "^Z", or "resize".
		import fcntl, os, pty, re, select, struct, sys, termios, time

		steps = [line.rstrip("\n").split(" => ") for line in sys.stdin]
		pid, terminal = pty.fork()
		if pid == 0:
		    os.execvp(sys.argv[1], sys.argv[1:])
		said, rest, end = "", "", time.monotonic() + 40
		while time.monotonic() < end:
		    while steps and (found := re.search(steps[0][0], rest)):
		        text, rest = steps.pop(0)[1], rest[found.end():]
		        if text == "resize":
		            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
		            text = ""
		        os.write(terminal, {"^C": b"\x03", "^Z": b"\x1a"}.get(text, text.encode() + b"\n"))
		    if not select.select([terminal], [], [], 0.2)[0]:
		        continue
		    try:
		        read = os.read(terminal, 4096).decode(errors="replace")
		    except OSError:
		        break
		    said, rest = said + read, rest + read
		else:
		    os.kill(pid, 9)
		print(said.replace("\r", ""))
		print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "left", len(steps))
	PYTHON
}

# play COMMAND...: in a terminal, with the steps on standard input.
play() {
	run_ok as_user BROLGA_CONFIG="$BROLGA_CONFIG" TERM=dumb timeout 60 python3 /dev/fd/9 "$@" 9<"$BATS_TEST_TMPDIR/terminal.py"
}

# What to wait for is written so that the echo of what was typed is not it.
@test "run: a shell has job control, Ctrl-C, Ctrl-Z and the terminal's size" {
	for kind in --no-remap-root --init --remap-root; do
		play brolga run "$kind" "$BROLGA_TEST_IMAGE" bash --norc <<-'STEPS'
			[$#] => echo size $(stty size)
			size \d+ \d+ => resize
			[$#] => echo now $(stty size)
			now 33 99 => sh -c 'echo star""ted; exec sleep 8721'
			started => ^C
			[$#] => echo code $?
			code 130 => sh -c 'echo star""ted; exec sleep 8722'
			started => ^Z
			Stopped => jobs; kill -KILL %1; sleep 0.3; exit 5
		STEPS
		expect_match 'now 33 99'
		expect_match 'code 130'
		expect_match '^\[1\]\+ +Stopped .*sleep 8722'
		expect_line "status 5 left 0"
		expect_nothing_left
	done
}

@test "run: Ctrl-C ends a command that does not handle it, with all it started" {
	for kind in --no-remap-root --init; do
		play brolga run "$kind" "$BROLGA_TEST_IMAGE" sh -c 'echo re""ady; sleep 8723 & sleep 8724' <<-'STEPS'
			ready => ^C
		STEPS
		expect_line "status -2 left 0"
		expect_nothing_left
	done
}

@test "run: Ctrl-Z stops the command, and the shell outside goes on with it" {
	for kind in --no-remap-root --init; do
		play bash --norc -c "set -m; brolga run $kind $BROLGA_TEST_IMAGE sh -c 'echo re\"\"ady; sleep 1; echo wo\"\"ke'; echo stopped \$?; fg; echo end \$?" <<-'STEPS'
			ready => ^Z
		STEPS
		expect_match '^stopped 14[78]$'
		expect_line woke
		expect_line "end 0"
		expect_nothing_left
	done
}

@test "run: the terminal has a name, and programs can open terminals of their own" {
	play brolga run "$BROLGA_TEST_IMAGE" sh -c 'tty; test -w "$(tty)" && echo writable; script -qc "tty; echo in""side" /dev/null; ls /dev/pts' </dev/null
	expect_line /dev/console
	expect_line writable
	expect_line /dev/pts/0
	expect_line inside
}

@test "run: without a terminal there is none in the container" {
	run_ok brun "$BROLGA_TEST_IMAGE" sh -c 'tty; ls /dev/console' </dev/null || true
	expect_line "not a tty"
	expect_match "cannot access '/dev/console'"
}
