#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-env

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	new_image
	push_image --env A=image --env B=image --env EMPTY= option-env:1
	in_image=(--container-image="$ref")
	given
}

# with VARIABLE=VALUE... -- OPTION...: runs env in the container
with() {
	local set=()
	while [[ $1 != -- ]]; do
		set+=("$1")
		shift
	done
	run_ok as_user env "${set[@]}" srun "${in_image[@]}" "${@:2}" env
}

@test "env: a name keeps the step's value, others stay the image's" {
	with A=host B=host EMPTY=host -- --container-env=A,EMPTY
	expect_line A=host
	expect_line B=image
	expect_line EMPTY=host
	with A=host B=host EMPTY=host --
	expect_line A=image
	expect_line EMPTY=
}

@test "env: PATH can be kept" {
	run_ok crun "${in_image[@]}" --container-env=PATH /bin/env
	expect_line "PATH=$(as_user bash -c 'echo "$PATH"')"
}

@test "env: a name the step does not have is left to the image" {
	with -- --container-env=A,NEITHER
	expect_line A=image
	refute_match '^NEITHER'
}

@test "env: NAME=VALUE sets, over image and step, with any value" {
	with A=host C=host -- '--container-env=A=set,B=x=y z,C=1\,2,D=,E=a\b$(c)'
	expect_line A=set
	expect_line 'B=x=y z'
	expect_line C=1,2
	expect_line D=
	expect_line 'E=a\b$(c)'
}

@test "env: of a name given twice the last counts" {
	with A=host -- --container-env=A=one,A=two
	expect_line A=two
	[[ $(grep -c '^A=' <<<"$output") == 1 ]]
}

@test "env: the variable does the same, and the option wins" {
	with A=host BROLGA_CONTAINER_ENV=A --
	expect_line A=host
	with A=host B=host BROLGA_CONTAINER_ENV=A -- --container-env=B
	expect_line A=image
	expect_line B=host
}

@test "env: a batch script has it too" {
	given A=host
	run_ok batch --output=job.out "${in_image[@]}" --container-env=A,B=set --wrap 'echo $A $B'
	run_ok as_user cat job.out
	[[ $output == "host set" ]] || fail "$output"
}

@test "env: what is not a name, or Slurm's, is refused before anything is submitted" {
	refused '--container-env needs a value: NAME[=VALUE][,...]' "${in_image[@]}" --container-env=
	refused '--container-env: "" is not the name of a variable' "${in_image[@]}" --container-env=A,,B
	refused '--container-env: "1A" is not the name of a variable' "${in_image[@]}" --container-env=1A
	refused '--container-env: "A B" is not the name of a variable' "${in_image[@]}" '--container-env=A B=c'
	refused '--container-env: "" is not the name of a variable' "${in_image[@]}" --container-env==value
	refused '--container-env: SLURM_PROCID belongs to Slurm and cannot be set' "${in_image[@]}" --container-env=SLURM_PROCID=1
	refused '--container-env: PMI_RANK belongs to Slurm and cannot be set' "${in_image[@]}" --container-env=A,PMI_RANK=
	given BROLGA_CONTAINER_ENV=-
	refused '--container-env: "-" is not the name of a variable' "${in_image[@]}"
}

@test "env: the site sets, adds and removes, after the image and before the user" {
	site_config "[env]
set = {A = 'site', NEW = 'a b'}
prepend = {PATH = '/opt/first', B = 'x'}
append = {PATH = '/opt/last', LATE = 'z'}
unset = ['EMPTY', 'LD_PRELOAD']"
	with A=host EMPTY=host LD_PRELOAD= LATE=host --
	expect_line A=site
	expect_line 'NEW=a b'
	expect_line B=x:image
	expect_line LATE=host:z
	expect_line PATH=/opt/first:/bin:/opt/last
	refute_match '^(EMPTY|LD_PRELOAD)='
	with A=host B=host -- --container-env=A=mine,B,EMPTY=mine
	expect_line A=mine
	expect_line B=x:host
	expect_line EMPTY=mine
}

@test "env: the site's mistakes are said before anything is submitted" {
	site_config "[env]
set = {SLURM_JOB_ID = '1'}"
	refused 'env.set of the site configuration: SLURM_JOB_ID belongs to Slurm' "${in_image[@]}"
	site_config "[env]
set = {'A-B' = '1'}"
	refused "read site configuration $BROLGA_CONFIG: env.set: \"A-B\" is not the name of a variable" "${in_image[@]}"
}
