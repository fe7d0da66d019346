#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# kill -9 at any moment of a pull or a conversion: what is there then is right, and
# the next try gives what an undisturbed one gives.

load ../lib/helpers
load ../lib/lifecycle

client=$BROLGA_CLUSTER_DIR/prefix/bin/brolga
config=$BROLGA_CLUSTER_DIR/etc/brolga.toml

# An image of a few layers, small and large files, and its squashfs as it should be.
prepare() {
	local dir=$BATS_TEST_TMPDIR/layer i
	cache=$user_home/cache-$$
	as_user mkdir -p "$cache"
	mkdir -p "$dir"{1,2,3}/data
	for ((i = 0; i < 300; i++)); do
		head -c "$((i * 50))" /dev/urandom >"$dir$((i % 3 + 1))/data/$i"
	done
	head -c 4M /dev/urandom >"${dir}1/bulk"
	head -c 2M /dev/zero >"${dir}2/zeros"
	touch "${dir}3/data/.wh.0"
	ref=$(mkimage "kill/$BATS_TEST_NUMBER-$$" "$dir"1 "$dir"2 "$dir"3)
	pull
	digest=$(sed 's/.*@//' "$BATS_TEST_TMPDIR/pulled")
	stored=$BROLGA_CLUSTER_DIR/store/sha256/${digest#sha256:}.squashfs
	convert
	want=$(sha256sum <"$stored")
	RANDOM=${KILL_SEED:-$$}
	echo "KILL_SEED=${KILL_SEED:-$$} repeats this"
}

# start_pull, start_convert: take the place of the shell that calls them.
start_pull() {
	exec setpriv --reuid "$BROLGA_TEST_USER" --regid "$BROLGA_TEST_USER" --clear-groups env -i HOME="$user_home" \
		"$client" pull --quiet --config "$config" --cache "$cache" "$ref" >"$BATS_TEST_TMPDIR/pulled"
}

# As the helper does it, with the blobs as descriptors.
start_convert() {
	local fd=3 blob
	for blob in "$digest" $(jq -r '.config.digest, .layers[].digest' "$cache/blobs/sha256/${digest#sha256:}"); do
		eval "exec $fd<'$cache/blobs/sha256/${blob#sha256:}'"
		fd=$((fd + 1))
	done
	exec setpriv --reuid brolga --regid brolga --clear-groups env -i "$client" convert --config "$config" "$ref" "$digest" </dev/null
}

pull() (start_pull)

convert() (start_convert)

# milliseconds COMMAND...: how long it takes.
milliseconds() {
	local start=${EPOCHREALTIME/./}
	"$@"
	echo $(((${EPOCHREALTIME/./} - start) / 1000))
}

# kill_within MS COMMAND...: ... -9, at a random moment; $killed counts those that
# were not faster.
kill_within() {
	local pid status=0
	"${@:2}" &
	pid=$!
	sleep "$(printf '%d.%03d' $((RANDOM % $1 / 1000)) $((RANDOM % $1 % 1000)))"
	kill -KILL "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || status=$?
	((status != 137)) || killed=$((killed + 1))
}

# Blobs have their digests as names, so each can be checked by itself.
blobs_are_whole() {
	local file
	for file in "$cache"/blobs/sha256/*; do
		[[ ! -e $file || ${file##*/} == "$(sha256sum <"$file" | cut -d' ' -f1)" ]] || fail "damaged: $file"
	done
}

squashfs_is_right() { [[ $(sha256sum <"$stored") == "$want" && -s ${stored%.squashfs}.json ]] || fail "not the image: $stored"; }

forget() {
	rm -f "$stored" "${stored%.squashfs}.json"
	[[ ${1:-} != cache ]] || find "$cache" -mindepth 1 -delete
}

teardown() {
	rm -rf "$user_home/cache-$$"
	# lifecycle's
	dump_logs_on_failure
	cp -p "$tools/brolga.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	rm -rf "$tools"
}

@test "kill: a pull killed at 25 random moments leaves only whole blobs, and the next one succeeds" {
	prepare
	forget cache
	limit=$(milliseconds pull)
	killed=0
	for ((n = 0; n < 25; n++)); do
		forget cache
		kill_within "$limit" start_pull
		blobs_are_whole
		pull
		blobs_are_whole
		[[ $(<"$BATS_TEST_TMPDIR/pulled") == "$ref@$digest" ]]
	done
	[[ -z $(find "$cache" -name '.partial-*') ]]
	convert
	squashfs_is_right
	((killed > 10)) || fail "$killed were killed"
}

@test "kill: a conversion killed at 25 random moments leaves a whole image or none, and the next one succeeds" {
	prepare
	forget
	limit=$(milliseconds convert)
	killed=0
	for ((n = 0; n < 25; n++)); do
		forget
		kill_within "$limit" start_convert
		[[ ! -e $stored ]] || squashfs_is_right
		convert
		squashfs_is_right
	done
	((killed > 10)) || fail "$killed were killed"
	[[ -z $(store_drafts) ]]
	retry 5 no_workers
}

@test "kill: tar2sqfs killed at random moments fails the conversion and leaves no image" {
	prepare
	forget
	# Its group is its own, so it is found by the file that it writes.
	for ((n = 0; n < 10; n++)); do
		forget
		status=0
		start_convert 2>"$BATS_TEST_TMPDIR/error" &
		pid=$!
		retry 5 writer_runs || true
		sleep "0.0$((RANDOM % 10))"
		pkill -KILL -f "^/usr/bin/tar2sqfs .*$(basename "${stored%.squashfs}")" || true
		wait "$pid" || status=$?
		if ((status == 0)); then
			squashfs_is_right
		else
			grep -q 'brolga: error: convert .*tar2sqfs' "$BATS_TEST_TMPDIR/error"
			[[ ! -e $stored && -z $(store_drafts) ]]
		fi
	done
	convert
	squashfs_is_right
}

writer_runs() { pgrep -f "^/usr/bin/tar2sqfs .*$(basename "${stored%.squashfs}")" >/dev/null; }
