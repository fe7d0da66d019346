#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# container.seccomp: the site's profile for tasks in containers.

load ../lib/helpers
load ../lib/images
load ../lib/run

setup() {
	mark_logs
	profile=$BROLGA_CLUSTER_DIR/etc/seccomp.json
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
	given
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	rm -f "$profile"
}

# with_rules RULES: all is allowed but what they say.
with_rules() {
	printf '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [%s]}' "$1" >"$profile"
	site_config "[container]
seccomp = \"$profile\""
}

no_links='{"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95'

@test "seccomp: the site's profile forbids a system call in every task, and no other" {
	with_rules "$no_links}"
	run_ok crun -N2 --ntasks-per-node=2 "${in_image[@]}" sh -c 'grep Seccomp: /proc/self/status; ln -s x /tmp/x || mkdir /tmp/d.$SLURM_PROCID && rmdir /tmp/d.$SLURM_PROCID && echo made'
	(($(grep -c 'Operation not supported' <<<"$output") == 4)) || fail "$output"
	(($(grep -cx made <<<"$output") == 4)) || fail "$output"
	(($(grep -c 'Seccomp:.2' <<<"$output") == 4)) || fail "$output"
}

@test "seccomp: without a profile there is no filter" {
	run_ok crun "${in_image[@]}" grep Seccomp: /proc/self/status
	expect_match 'Seccomp:.0'
}

@test "seccomp: rules of other machines, kernels and capabilities do not apply" {
	with_rules "$no_links, \"includes\": {\"arches\": [\"s390x\"]}}, $no_links, \"includes\": {\"caps\": [\"CAP_SYS_ADMIN\"]}}, $no_links, \"includes\": {\"minKernel\": \"255.0\"}}"
	run_ok crun "${in_image[@]}" sh -c 'ln -s x /tmp/seccomp.$$ && rm /tmp/seccomp.$$ && echo made'
	expect_line made
}

@test "seccomp: a rule can be of an argument" {
	with_rules '{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [{"index": 1, "value": 448, "op": "SCMP_CMP_EQ"}]}'
	run_ok crun "${in_image[@]}" sh -c 'cd /tmp; mkdir -m 0777 a.$$ && rmdir a.$$ && echo made; mkdir -m 0700 b.$$ || echo refused; rm -rf b.$$'
	expect_line made
	expect_line refused
}

@test "seccomp: a remapped root has it, too" {
	with_rules "$no_links}"', {"names": ["fchownat", "chown"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}'
	run_ok crun "${in_image[@]}" --container-remap-root sh -c 'id -u; ln -s x /opt/x; touch /opt/y; chown 7 /opt/y || echo refused'
	expect_line 0
	expect_line refused
	expect_match 'Operation not supported'
}

@test "seccomp: sessions of SSH servers have it, too" {
	with_rules "$no_links}"
	run_ok crun "${in_image[@]}" --container-ssh ssh localhost 'grep Seccomp: /proc/self/status; ln -s x /tmp/x || echo refused'
	expect_line refused
	expect_match 'Seccomp:.2'
}

@test "seccomp: so have a process namespace and the image's entrypoint" {
	with_rules "$no_links}"
	run_ok crun "${in_image[@]}" --container-unshare=pid --container-entrypoint sh -c 'ln -s x /tmp/x || echo refused $$'
	expect_match '^refused [0-9]$'
}

@test "seccomp: so has brolga run" {
	with_rules "$no_links}"
	run_ok brun "$BROLGA_TEST_IMAGE" sh -c 'ln -s x /tmp/x || echo refused'
	expect_line refused
	run_ok brun --remap-root "$BROLGA_TEST_IMAGE" sh -c 'ln -s x /tmp/x || echo refused'
	expect_line refused
}

@test "seccomp: a profile that is missing, not root's or wrong is told, and the node stays" {
	with_rules '{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}'
	run_fails crun "${in_image[@]}" true
	expect_one_error "seccomp profile $profile: rule 1 (mkdir): SCMP_ACT_NOTIFY is not supported: nobody would answer"
	expect_match 'hint: tell the administrator to repair it; container.seccomp in brolga.toml names it'
	with_rules ''
	chmod o+w "$profile"
	run_fails crun "${in_image[@]}" true
	expect_match 'error: seccomp profile .*someone other than root could change it'
	rm "$profile"
	run_fails crun "${in_image[@]}" true
	expect_match 'error: seccomp profile .*no such file or directory'
	run sinfo -h -o %T
	refute_match 'drain'
}

@test "seccomp: names that nobody knows are ignored, and told with --container-verbose" {
	with_rules '{"names": ["nothing_such"], "action": "SCMP_ACT_ERRNO"}'
	run_ok crun "${in_image[@]}" --container-verbose true
	expect_match 'unknown to libseccomp and ignored: nothing_such'
}

# The host's programs in an image of the same release, under the profile we recommend.
recommended() {
	cp "$repo/slurm-config/seccomp.json" "$profile"
	chmod 0644 "$profile"
	site_config "[container]
seccomp = \"$profile\""
	with_programs=("${in_image[@]}" --container-mounts=/usr:/usr)
}

@test "seccomp: the recommended profile lets shells, Python, OpenMP's and MPI's calls, SSH and apt work" {
	recommended
	run_ok crun "${with_programs[@]}" bash -c 'seq 1000 | (sort -R | xargs -P 4 -n 10 echo) | tr " " "\n" | sort -n | tail -n 1; timeout 5 sleep 0.1 && nice -n 1 taskset -c 0 echo placed'
	expect_line 1000
	expect_line placed
	cat >"$user_home/program.py" <<-'PROGRAM'
		import ctypes, multiprocessing, os, socket, subprocess, tempfile, threading
		def square(n):
		    return n * n
		if __name__ == "__main__":
		    print("squares", multiprocessing.Pool(2).map(square, range(4)))
		    server = socket.create_server(("127.0.0.1", 0))
		    threading.Thread(target=lambda: server.accept()[0].sendall(b"hello")).start()
		    print("socket", socket.create_connection(server.getsockname()).recv(5).decode())
		    print("process", subprocess.check_output(["uname", "-s"], text=True).strip())
		    libc = ctypes.CDLL(None, use_errno=True)
		    print("memory policy", libc.syscall(239, 0, 0, 0, 0, 0))
		    word = ctypes.create_string_buffer(b"cross", 8)
		    child = os.fork()
		    if child == 0:
		        libc.pause()
		    # As MPI does for large messages within a node.
		    got = ctypes.create_string_buffer(8)
		    class iovec(ctypes.Structure):
		        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
		    local, remote = iovec(ctypes.addressof(got), 5), iovec(ctypes.addressof(word), 5)
		    libc.process_vm_readv(child, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
		    os.kill(child, 9)
		    print("memory", got.value.decode())
	PROGRAM
	run_ok crun "${with_programs[@]}" python3 program.py
	expect_line 'squares [0, 1, 4, 9]'
	expect_line 'socket hello'
	expect_line 'process Linux'
	expect_line 'memory policy 0'
	expect_line 'memory cross'
	mpicc -o "$user_home/mpi_library" "$repo/integration/programs/mpi_library.c"
	run_ok crun --mpi=pmi2 -n2 "${with_programs[@]}" ./mpi_library
	expect_match 'rank [01] of 2 sum 1: '
	run_ok crun "${in_image[@]}" --container-ssh ssh localhost echo through
	expect_line through
	mkdir -p "$BATS_TEST_TMPDIR/deb/DEBIAN" "$BATS_TEST_TMPDIR/deb/opt"
	printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: test\n' small >"$BATS_TEST_TMPDIR/deb/DEBIAN/control"
	echo installed >"$BATS_TEST_TMPDIR/deb/opt/small"
	dpkg-deb --build --root-owner-group "$BATS_TEST_TMPDIR/deb" "$user_home/small.deb" >/dev/null
	run_ok crun "${with_programs[@]}" --container-remap-root bash -c 'apt-get -o APT::Sandbox::User=root install -y ./small.deb >&2 && cat /opt/small'
	expect_line installed
	rm "$user_home"/{program.py,mpi_library,small.deb}
}

@test "seccomp: the recommended profile refuses namespaces, mounts, BPF, keys, io_uring and performance events" {
	recommended
	cat >"$user_home/refused.py" <<-'PROGRAM'
		import ctypes, errno
		libc = ctypes.CDLL(None, use_errno=True)
		buffer = ctypes.create_string_buffer(4096)
		for name, *arguments in [("unshare", 272, 0x10000000), ("mount", 165, 0, 0, 0, 0, 0), ("bpf", 321, 99, 0, 0), ("keyctl", 250, 0, -3, 1),
		        ("io_uring", 425, 1, buffer), ("perf", 298, buffer, 0, -1, -1, 0), ("userfaultfd", 323, 1)]:
		    ctypes.set_errno(0)
		    libc.syscall(*arguments)
		    print(name, errno.errorcode.get(ctypes.get_errno(), "done"))
	PROGRAM
	run_ok crun "${with_programs[@]}" python3 refused.py
	for name in unshare mount bpf keyctl io_uring perf userfaultfd; do
		expect_line "$name EPERM"
	done
	restore_site_config
	run_ok crun "${with_programs[@]}" python3 refused.py
	for name in bpf keyctl io_uring; do # which others may do
		refute_match "^$name EPERM"
	done
	rm "$user_home/refused.py"
}

@test "labels: a profile or label that the node's kernel lacks is told, and the node stays" {
	site_config '[container]
apparmor_profile = "site-containers"
selinux_label = "system_u:system_r:container_t:s0"'
	run_fails crun "${in_image[@]}" true
	if [[ ! -e /sys/module/apparmor ]]; then
		expect_match 'brolga: error: the site wants AppArmor "site-containers" for tasks, and the kernel of this node has no AppArmor, or it is off'
		expect_match 'hint: tell the administrator to switch it on, or to leave container.apparmor_profile empty'
	fi
	run_fails brun "$BROLGA_TEST_IMAGE" true
	nodes_idle
}
