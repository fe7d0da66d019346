# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Small images made on the spot, of a static busybox and what a test adds.
# "load ../lib/images" after "load ../lib/helpers".
#
#   new_image                     start a new one in the directory $image
#   push_image [OPTION]... NAME   push it and pull it for the user; $ref is its
#                                 reference, the options are mkimage's
#   set_up_image NAME             a setup with an image of its own, whose file version
#                                 says "one"; $in_image are the options to use it
#   batch ARGUMENT...             submit a batch job and wait for its end
#   last_job                      the highest job number so far

new_image() {
	local applet
	image=$BATS_TEST_TMPDIR/image
	rm -rf "$image"
	mkdir -p "$image"/{bin,etc,mnt/e,tmp}
	chmod 1777 "$image/tmp"
	cp "$(command -v busybox)" "$image/bin/busybox"
	for applet in sh cat env grep id ls mkdir pwd sleep stat touch; do
		ln -s busybox "$image/bin/$applet"
	done
}

# shellcheck disable=SC2034 # for the test
push_image() {
	ref=$(mkimage --env PATH=/bin "$@" "$image")
	as_user brolga pull --quiet "$ref" >/dev/null
}

# shellcheck disable=SC2034 # for the test
set_up_image() {
	mark_logs
	new_image
	echo one >"$image/version"
	push_image "$1"
	in_image=(--container-image="$ref")
	given
}

last_job() { squeue --noheader --states=all --format=%A | sort -n | tail -n1; }

# site_config TEXT: the site's configuration gets these lines too, in place of its
# own for the same key, until restore_site_config, which teardown calls.
site_config() {
	local config=$BROLGA_CLUSTER_DIR/etc/brolga.toml
	[[ -e $BATS_TEST_TMPDIR/brolga.toml ]] || cp -p "$config" "$BATS_TEST_TMPDIR/brolga.toml"
	awk -F ' *= *' 'NR == FNR {own[$1]; next} !($1 in own)' <(printf '%s\n' "$1") "$BATS_TEST_TMPDIR/brolga.toml" >"$config.new"
	printf '%s\n' "$1" >>"$config.new"
	mv "$config.new" "$config"
}

restore_site_config() {
	[[ ! -e $BATS_TEST_TMPDIR/brolga.toml ]] ||
		put "$BATS_TEST_TMPDIR/brolga.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
}

teardown() {
	dump_logs_on_failure
	restore_site_config
}

# expect_one_error TEXT: $output says that once and, but for a hint and what
# srun says of every task that fails, nothing else.
expect_one_error() {
	local rest
	expect_line "brolga: error: $1"
	[[ $(grep -c 'brolga: error: ' <<<"$output") == 1 ]] || fail "more than one error: $output"
	rest=$(grep -vE 'brolga: (error|hint): |^srun: error: n[0-9]: tasks? [0-9,-]+: Exited with exit code 1$' <<<"$output" || true)
	[[ -z $rest ]] || fail "more than an error: $rest"
}

# batch ARGUMENT...: "sbatch --wait", which itself looks every other second only.
batch() {
	local job
	job=$(as_user env "${with_env[@]}" sbatch --parsable "$@") || return
	retry 60 job_ended "${job##*$'\n'}" || return
	return "$(scontrol --oneliner show job "$job" | grep -oP ' ExitCode=\K[0-9]+' | sort -n | tail -n1)"
}

job_ended() { ! squeue --noheader --states=all --jobs="$1" --format=%T | grep -qvE '^(COMPLETED|FAILED|CANCELLED)$'; }

# refused TEXT OPTION...: srun, sbatch and salloc say TEXT and submit nothing.
# given VARIABLE=VALUE...: those are set in what follows, and no others.
refused() {
	local text=$1 before
	shift
	before=$(last_job)
	run_fails as_user env "${with_env[@]}" timeout 60 srun "$@" true
	expect_one_error "$text"
	run_fails as_user env "${with_env[@]}" sbatch "$@" --output=/dev/null --wrap true
	expect_one_error "$text"
	run_fails as_user env "${with_env[@]}" salloc "$@" true
	expect_one_error "$text"
	[[ $(last_job) == "$before" ]] || fail "a job was submitted: $(last_job)"
}
# shellcheck disable=SC2120 # for the test
given() { with_env=("$@"); }
with_env=()
