# Receives a file over one exec, as root, behind the functions of step.sh and under the same lease. The bytes come on
# descriptor 3. They land beside the destination as <destination>.selfheal-new, whole and verified or not at all; the
# step that renames it into place is another one.
# shellcheck shell=sh
# shellcheck disable=SC2154  # full is set in step.sh
# shellcheck disable=SC2015,SC2174  # `a && b || stop …`: stop does not return; the deepest folder is what is meant

# In seconds: nothing comes for so long, twice at most, and the line is dead. It must not hold the step's lock for ever.
receive_patience=60

receive_is() { # PATH BYTES SHA256
	[ -f "$1" ] && [ ! -L "$1" ] && [ "$(stat -c %s -- "$1")" = "$2" ] || return 1
	receive_found=$(sha256sum <"$1") && [ "${receive_found%% *}" = "$3" ]
}

receive_free() { # FOLDER: free KiB there, or where it will be made
	receive_above=$1
	until [ -z "$receive_above" ] || [ -d "$receive_above" ]; do receive_above=${receive_above%/*}; done
	df -Pk "${receive_above:-/}" | awk 'NR == 2 { print $4 }'
}

# As long as bytes come, the lease lives; then what reads them is ended. $$ waits for it, so the number is still its own.
receive_watch() { # PID
	receive_sleep=
	trap 'kill $receive_sleep; exit' TERM
	receive_before=0
	while :; do
		sleep "$receive_patience" &
		receive_sleep=$!
		wait "$receive_sleep"
		kill -0 $$ || return
		receive_now=$(stat -c %s -- "$receive_new")
		[ "${receive_now:-0}" -gt "$receive_before" ] || break
		receive_before=$receive_now
		renew_lease $((3 * receive_patience))
	done
	kill "$1"
}

# cat and nothing else: every more process that the bytes go through costs as much again on a Pi.
receive_bytes() {
	renew_lease $((3 * receive_patience))
	cat <&3 >"$receive_new" 2>/dev/null 9>&- &
	receive_reader=$!
	receive_watch "$receive_reader" </dev/null >/dev/null 2>&1 3<&- 9>&- &
	receive_watcher=$!
	wait "$receive_reader"
	kill "$receive_watcher" 2>/dev/null
	wait "$receive_watcher"
	renew_lease 300
}

receive_fail() { # CODE MESSAGE
	rm -f -- "$receive_new"
	stop "$@"
}

receive() { # DESTINATION BYTES SHA256 MODE
	receive_new=$1.selfheal-new
	receive_folder=${1%/*}
	if receive_is "$1" "$2" "$3"; then
		rm -f -- "$receive_new"
		frame present
		return 0
	fi
	# An earlier run got as far as that.
	if receive_is "$receive_new" "$2" "$3"; then
		chmod -- "$4" "$receive_new" && sync -- "$receive_new" || receive_fail 1 "cannot keep $receive_new"
		frame present
		return 0
	fi
	rm -f -- "$receive_new" || stop 1 "cannot remove $receive_new"
	# Some for good measure: a node with a full disk does not heal itself.
	receive_need=$(($2 / 1024 + 16384))
	receive_have=$(receive_free "$receive_folder")
	[ "${receive_have:-0}" -ge "$receive_need" ] ||
		stop "$full" "no space left for $1: ${receive_have:-0} KiB free, $receive_need KiB needed"
	mkdir -p -m 0755 -- "$receive_folder" || stop 1 "cannot make $receive_folder"
	(umask 077 && : >"$receive_new") || receive_fail 1 "cannot write $receive_new"
	frame send
	receive_bytes
	receive_size=$(stat -c %s -- "$receive_new")
	if [ "${receive_size:-0}" -ne "$2" ]; then
		receive_have=$(receive_free "$receive_folder")
		[ "${receive_have:-0}" -gt 1024 ] || receive_fail "$full" "no space left for $1"
		receive_fail 1 "only ${receive_size:-0} of $2 bytes of $1 arrived"
	fi
	receive_got=$(sha256sum <"$receive_new" 9>&-)
	[ "${receive_got%% *}" = "$3" ] || receive_fail 1 "$1 arrived with the sha256 ${receive_got%% *}, not $3"
	chmod -- "$4" "$receive_new" && sync -- "$receive_new" && sync -- "$receive_folder" ||
		receive_fail 1 "cannot write $receive_new"
}
