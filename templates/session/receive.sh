# Receives a file over one exec, as root, behind the functions of step.sh and under the same lease. The bytes come on
# descriptor 3. They land beside the destination as <destination>.selfheal-new, whole and verified or not at all; the
# step that renames it into place is another one.
# shellcheck shell=sh
# shellcheck disable=SC2154  # full is set in step.sh
# shellcheck disable=SC2015,SC2174  # `a && b || stop …`: stop does not return; the deepest folder is what is meant

# In bytes, and the seconds that one piece may take: a dead line must not hold the step's lock for ever. One so slow
# (35 KB/s) is no line to install over.
receive_piece=4194304
receive_patience=120

receive_is() { # PATH BYTES SHA256
	[ -f "$1" ] && [ ! -L "$1" ] && [ "$(stat -c %s -- "$1")" = "$2" ] || return 1
	receive_found=$(sha256sum <"$1") && [ "${receive_found%% *}" = "$3" ]
}

receive_free() { # FOLDER: free KiB there, or where it will be made
	receive_above=$1
	until [ -z "$receive_above" ] || [ -d "$receive_above" ]; do receive_above=${receive_above%/*}; done
	df -Pk "${receive_above:-/}" | awk 'NR == 2 { print $4 }'
}

# dd and not cat: it says when a piece takes too long. The lease lives as long as bytes come.
receive_pieces() { # BYTES
	receive_left=$((($1 + receive_piece - 1) / receive_piece))
	while [ "$receive_left" -gt 0 ]; do
		renew_lease $((receive_patience + 60))
		timeout "$receive_patience" dd bs=$receive_piece count=1 iflag=fullblock <&3 2>/dev/null 9>&- || return 1
		receive_left=$((receive_left - 1))
	done
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
	# Hashed on the way, while the processors have nothing else to do.
	receive_got=$(receive_pieces "$2" | tee -- "$receive_new" 2>/dev/null 9>&- | sha256sum 9>&-)
	receive_size=$(stat -c %s -- "$receive_new")
	if [ "${receive_size:-0}" -ne "$2" ]; then
		receive_have=$(receive_free "$receive_folder")
		[ "${receive_have:-0}" -gt 1024 ] || receive_fail "$full" "no space left for $1"
		receive_fail 1 "only ${receive_size:-0} of $2 bytes of $1 arrived"
	fi
	[ "${receive_got%% *}" = "$3" ] || receive_fail 1 "$1 arrived with the sha256 ${receive_got%% *}, not $3"
	chmod -- "$4" "$receive_new" && sync -- "$receive_new" && sync -- "$receive_folder" ||
		receive_fail 1 "cannot write $receive_new"
}
