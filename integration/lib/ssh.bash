# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For tests of --container-ssh: "load ../lib/ssh" after "load ../lib/helpers". OpenSSH's client,
# rsync and MPICH's launcher come on top of the usual image.
#
#   make_ssh_image          push that image; $ssh_image is its reference
#   in_step OPTION... TEXT  run TEXT by a shell in the container of the step's first
#                           node, while all nodes are there
#   servers                 pids of this cluster's SSH servers
#   ports_of                their ports

make_ssh_image() {
	local files layer=$BATS_FILE_TMPDIR/layer
	files=$("$repo/integration/programs/fetch-package" bookworm openssh-client rsync mpich libedit2 libbsd0 libmd0 \
		libfido2-1 libcbor0.8 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libkeyutils1 \
		libcom-err2 libssl3 libpopt0 libslurm38)
	cp -a "$files" "$layer"
	cp -a "$layer/lib" "$layer/usr" # the image's /lib is a link
	rm -r "${layer:?}/lib"
	mkimage --from "$BROLGA_TEST_IMAGE" test/ssh "$layer" >"$BATS_FILE_TMPDIR/ssh-image"
	rm -r "$layer"
	as_user brolga pull --quiet "$(<"$BATS_FILE_TMPDIR/ssh-image")"
	as_user brolga pull --quiet "$BROLGA_TEST_IMAGE"
}

# shellcheck disable=SC2034 # for the test
load_ssh_image() { ssh_image=$(<"$BATS_FILE_TMPDIR/ssh-image"); }

# The others wait for the first one's end; that is told through a file, so it works
# without ssh.
in_step() {
	local text=${*: -1}
	as_user rm -f step-done
	# shellcheck disable=SC2016 # for the shell of the task
	crun --kill-on-bad-exit=1 "${@:1:$#-1}" --container-ssh bash -c '
		if [[ $SLURM_PROCID != 0 ]]; then
			until [[ -e ~/step-done ]]; do sleep 0.1; done
			exit
		fi
		trap "touch ~/step-done" EXIT
		'"$text"
}

servers() {
	local proc
	for proc in /proc/[0-9]*; do
		[[ $(readlink "$proc/exe") != "$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-ssh" ]] ||
			[[ $(cat "$proc/comm") != brolga-sshd ]] || printf '%s\n' "${proc#/proc/}"
	done 2>/dev/null
}

no_servers() { [[ -z $(servers) ]]; }

servers_are() { (($(servers | wc -l) == $1)); }

# address_of PID: ADDRESS:PORT.
address_of() { ss -Hltnp | awk -v pid="pid=$1," 'index($0, pid) {print $4}'; }
