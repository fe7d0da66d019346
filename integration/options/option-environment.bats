#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --environment

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	edf=$user_home/.edf
	as_user mkdir -p "$edf" "$user_home/edf-cwd/data"
	given
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	rm -rf "$edf" "$user_home/edf-cwd"
}

# definition NAME: from standard input
definition() { as_user tee "$edf/$1.toml" >/dev/null; }

@test "environment: a file by its name says all" {
	echo seen | as_user tee "$user_home/edf-cwd/data/file" >/dev/null
	definition all <<-END
		image = "$BROLGA_TEST_IMAGE"
		mounts = ["\${HOME}/edf-cwd/data:/mnt/data:ro", "tmpfs:/scratch"]
		workdir = "/mnt/data"
		writable = false
		[env]
		MODE = "\${WHO:-nobody}, \$\${x}"
		SHELL = ""
	END
	run_ok crun --environment=all sh -c 'pwd; cat file; echo "$MODE ${SHELL-unset}"; touch /x file /scratch/y; echo $?'
	expect_line /mnt/data
	expect_line seen
	expect_line 'nobody, ${x} unset'
	[[ $(grep -c 'Read-only file system' <<<"$output") == 2 ]] || fail "$output"
}

@test "environment: bases come first, the command line wins, lists add up" {
	definition base <<-END
		image = "no/such:image"
		mounts = ["$user_home/edf-cwd/data:/mnt/base"]
		[env]
		A = "base"
		B = "base"
	END
	definition top <<-END
		base_environment = "base"
		image = "$BROLGA_TEST_IMAGE"
		workdir = "/usr"
		[env]
		B = "top"
	END
	run_ok crun --environment=top --container-workdir=/opt --container-env=C=line --container-mounts=tmpfs:/mnt/line \
		sh -c 'pwd; echo $A $B $C; ls /mnt'
	[[ $output == $'/opt\nbase top line\nbase\nline' ]] || fail "$output"
}

@test "environment: it is found by path, in EDF_PATH, then at the site's" {
	local site=$BROLGA_CLUSTER_DIR/etc/edf
	install -d "$site"
	site_config $'[container]\nenvironments = ["'"$site"'"]'
	printf 'image = "%s"\n[env]\nFROM = "site"\n' "$BROLGA_TEST_IMAGE" >"$site/x.toml"
	run_ok crun --environment=x sh -c 'echo $FROM'
	[[ $output == site ]] || fail "$output"
	printf 'image = "%s"\n[env]\nFROM = "cwd"\n' "$BROLGA_TEST_IMAGE" | as_user tee "$user_home/edf-cwd/x.toml" >/dev/null
	run_ok as_user env EDF_PATH="/no/such:$user_home/edf-cwd" srun --environment=x sh -c 'echo $FROM'
	[[ $output == cwd ]] || fail "$output"
	rm -r "$site"
	run_ok as_user bash -c "cd edf-cwd && srun --environment=./x.toml sh -c 'echo \$FROM'"
	[[ $output == cwd ]] || fail "$output"
}

@test "environment: relative paths start where srun is called" {
	printf 'image = "%s"\nmounts = ["./data:/mnt"]\n' "$BROLGA_TEST_IMAGE" | definition relative
	as_user touch "$user_home/edf-cwd/data/here"
	run_ok as_user bash -c "cd edf-cwd && srun --chdir=/ --environment=relative ls /mnt"
	[[ $output == here ]] || fail "$output"
}

@test "environment: a batch job and its steps have it, read where it was submitted" {
	printf 'image = "%s"\n[env]\nA = "b"\n' "$BROLGA_TEST_IMAGE" | definition batch
	run_ok batch --environment=batch --output=job.out --wrap 'echo "$A"; grep -c VERSION_ID /etc/os-release'
	run_ok as_user cat job.out
	[[ $output == $'b\n1' ]] || fail "$output"
}

@test "environment: the variable does the same, and the option wins" {
	printf 'image = "%s"\n[env]\nA = "one"\n' "$BROLGA_TEST_IMAGE" | definition one
	printf 'image = "%s"\n[env]\nA = "two"\n' "$BROLGA_TEST_IMAGE" | definition two
	run_ok as_user env BROLGA_ENVIRONMENT=one srun sh -c 'echo $A'
	[[ $output == one ]] || fail "$output"
	run_ok as_user env BROLGA_ENVIRONMENT=one srun --environment=two sh -c 'echo $A'
	[[ $output == two ]] || fail "$output"
}

@test "environment: a file that the user cannot read is not read" {
	install -m 0600 -o root /dev/null "$edf/closed.toml"
	run_fails crun --environment=closed true
	expect_one_error "read environment definition closed: open $edf/closed.toml: permission denied"
}

@test "environment: settings come along although nothing is exported" {
	printf 'image = "%s"\n[env]\nA = "one"\n' "$BROLGA_TEST_IMAGE" | definition bare
	run_ok crun --export=NONE --environment=bare sh -c 'echo $A'
	expect_line one
}

@test "environment: mistakes are found, with file and line, before anything is submitted" {
	printf 'image = "x"\n\nimgae = 1\n' | definition unknown
	refused "read environment definition: unknown key imgae in $edf/unknown.toml:3" --environment=unknown
	printf 'image = "${NO_SUCH}"\nmounts = ["x"]\n' | definition wrong
	refused "$edf/wrong.toml:1: image: variable NO_SUCH is not set; \${NO_SUCH:-} allows that; $edf/wrong.toml:2: mounts: \"x\": source \"x\" does not start with / or ." --environment=wrong
	printf 'base_environment = "self"\n' | definition self
	refused "read environment definition self, named in $edf/self.toml: base_environment: $edf/self.toml is based on itself" --environment=self
	printf 'workdir = "/"\n' | definition empty
	refused 'container options are given, but no image' --environment=empty
	refused "read environment definition none: no none.toml in $edf, /etc/brolga/edf" --environment=none
	refused '--environment needs a value: NAME|FILE' --environment=
}
