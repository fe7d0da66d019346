# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# More registries than the cluster has: "load ../lib/registry" after "load ../lib/helpers".
# All state is in $BATS_FILE_TMPDIR; teardown_file calls stop_registries.
#
#   start_secure_registry [PASSWORD]
#                           sets $secure and $ca: a registry with TLS, by an
#                           authority of the test's own, for user alice. Its
#                           address is not one of those that may do without TLS
#   start_faulty_registry   sets $faulty: the cluster's registry behind a proxy
#   faults [LINE]...        what goes wrong there from now on; see fault-proxy
#   faulty_requests [REGEX] lines of its log since then
#   pull [OPTION]... REF    brolga pull as the test user, with a cache of its own
#   forget                  empty that cache

start_secure_registry() {
	local dir=$BATS_FILE_TMPDIR/secure password=${1:-wonderland} port
	mkdir -p "$dir"
	ca=$dir/ca.pem
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=test authority" \
		-keyout "$dir/ca.key" -out "$ca" 2>/dev/null
	openssl req -newkey rsa:2048 -nodes -subj "/CN=registry" -keyout "$dir/key.pem" -out "$dir/csr.pem" 2>/dev/null
	openssl x509 -req -in "$dir/csr.pem" -CA "$ca" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
		-extfile <(printf 'subjectAltName=IP:0.0.0.0') -out "$dir/cert.pem" 2>/dev/null
	htpasswd -Bbn alice "$password" >"$dir/htpasswd"
	chmod 0755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR" "$dir"
	chmod 0644 "$ca"
	port=$(free_port)
	secure=0.0.0.0:$port
	cat >"$dir/registry.yml" <<-YAML
		version: 0.1
		log: {level: warn, accesslog: {disabled: true}}
		storage: {filesystem: {rootdirectory: $dir/data}}
		auth: {htpasswd: {realm: test, path: $dir/htpasswd}}
		http: {addr: 127.0.0.1:$port, tls: {certificate: $dir/cert.pem, key: $dir/key.pem}}
	YAML
	background_daemon docker-registry serve "$dir/registry.yml"
	retry 10 curl -s -o /dev/null --cacert "$ca" "https://$secure/v2/"
	skopeo --insecure-policy copy --quiet --src-tls-verify=false --dest-tls-verify=false \
		--dest-creds "alice:$password" "docker://$BROLGA_TEST_SMALL_IMAGE" "docker://$secure/app:1" >/dev/null
}

start_faulty_registry() {
	local dir=$BATS_FILE_TMPDIR/faulty
	mkdir -p "$dir"
	: >"$dir/plan"
	: >"$dir/log"
	background_daemon "$repo/integration/programs/fault-proxy" "$BROLGA_TEST_REGISTRY" "$dir/port" "$dir/plan" "$dir/log"
	retry 10 test -e "$dir/port"
	# shellcheck disable=SC2034 # for the test
	faulty=127.0.0.1:$(<"$dir/port")
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

background_daemon() {
	"$@" </dev/null >>"$BATS_FILE_TMPDIR/daemons.log" 2>&1 3>&- 4>&- &
	printf '%s\n' "$!" >>"$BATS_FILE_TMPDIR/daemons"
}

stop_registries() {
	[[ ! -e $BATS_FILE_TMPDIR/daemons ]] || xargs kill <"$BATS_FILE_TMPDIR/daemons"
}

# The proxy counts by line, so a number makes the lines of each test others.
faults() {
	local line
	: >"$BATS_FILE_TMPDIR/faulty/log"
	: >"$BATS_FILE_TMPDIR/faulty/plan"
	for line in "$@"; do
		printf '%s(?#%s)\n' "$line" "$BATS_TEST_NUMBER-$RANDOM" >>"$BATS_FILE_TMPDIR/faulty/plan"
	done
}

faulty_requests() { grep -cE "${1:-.}" "$BATS_FILE_TMPDIR/faulty/log" || true; }

pull() { as_user timeout 90 brolga pull --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" --cache "$user_home/cache-of-test" "$@"; }

forget() { rm -rf "$user_home/cache-of-test"; }
