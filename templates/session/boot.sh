# Writing a boot file (cmdline.txt, config.txt) as domain.md §1.2 has it. vfat has no journal: the old file stays readable
# under its own name until the new one has been written, synced and read back, and two copies of it are kept besides. May be killed at
# any point and called again. Only coreutils, grep and sed. `sync -d` is one file's fdatasync in all of them; without -d, uutils syncs
# everything, in an order of its own.
# shellcheck shell=sh
# shellcheck disable=SC2015  # `a && b || leave …`: leave does not return

# boot_put TARGET OLD_SHA256 BACKUP_DIR, the new content on stdin.
#   0   the content is in place, on the card
#   1   writing failed; the old content is in place
#   11  stale: TARGET is neither the content that the plan saw nor the new one; nothing was changed
#   14  refused: unsafe here, or no content for a boot file; nothing was changed
#   15  writing failed and the old content could not be put back; the message names the copies
boot_put() ( # a subshell: its settings and variables are its own
	set -u
	unset IFS
	umask 022
	target=$1 old_hash=$2 backup_dir=$3
	folder=${target%/*} name=${target##*/}
	new=$target.selfheal-new beside=$target.selfheal-bak incoming=$backup_dir/incoming

	leave() { # CODE MESSAGE
		leave_code=$1
		shift
		rm -f -- "$incoming"
		printf '%s\n' "$*" >&2
		exit "$leave_code"
	}

	hash() { # FILE
		hash_line=$(sha256sum <"$1") && printf '%s' "${hash_line%% *}"
	}

	# From the card, as far as that can be had: what is clean in memory is dropped first.
	holds() { # FILE SHA256
		dd if="$1" of=/dev/null iflag=nocache count=0 2>/dev/null
		[ "$(hash "$1")" = "$2" ]
	}

	# What must come out as it went in, in its order.
	guarded() { # FILE
		if [ "$name" = config.txt ]; then
			LC_ALL=C sed -nE '/^[[:blank:]]*(arm_64bit|auto_initramfs|cmdline|device_tree|include|initramfs|kernel|os_prefix|overlay_prefix|start_file)[=[:blank:]]/p' "$1"
			return
		fi
		set -f # always called in a subshell
		for word in $(head -n 1 -- "$1" | tr -d '\000'); do
			case $word in
			root=* | rootfstype=* | rootwait | fixrtc | console=*) printf '%s\n' "$word" ;;
			esac
		done
	}

	# One line of printable ASCII: the newline at the end is the only other byte.
	is_one_line() { # FILE
		[ "$(LC_ALL=C tr -d ' -~' <"$1" | od -An -tx1 | tr -d ' \n')" = 0a ] &&
			[ "$(tail -c 1 -- "$1" | od -An -tx1 | tr -d ' \n')" = 0a ] && [ "$(wc -c <"$1")" -gt 1 ]
	}

	save() { # FILE COPY SHA256
		cat -- "$1" >"$2" && sync -d -- "$2" && holds "$2" "$3"
	}

	# Looks for a copy with this content before it makes another; never writes over an older copy, also when the clock
	# stands in 1970.
	save_by_date() { # FILE SHA256
		for copy in "$backup_dir"/*-"$name" "$backup_dir"/*-"$name".*; do
			[ -f "$copy" ] && [ "$(hash "$copy")" = "$2" ] && return 0
		done
		copy=$backup_dir/$(date -u +%Y%m%dT%H%M%SZ)-$name
		number=1
		while [ -e "$copy" ]; do
			number=$((number + 1))
			copy=${copy%".$((number - 1))"}.$number
		done
		save "$1" "$backup_dir/saving" "$2" && mv -f -- "$backup_dir/saving" "$copy" && sync -- "$backup_dir"
	}

	# Two steps to a name: write it beside, take the name. The kernel puts the new clusters into the old directory entry,
	# which is one sector, so the card holds the old file or the new one; but it would write first that the old clusters
	# are free, and with the power gone in between fsck.vfat cuts the file to nothing. So the old file is kept open, and
	# keeps its clusters, until the entry is on the card. The folder goes first: else both names may hold one file.
	# Neither sync is enough alone: -d leaves an entry behind that the kernel is about to write by itself, -f does not
	# tell the card to write what it holds in its own memory.
	put() { # CONTENT SHA256
		open=$target
		[ -f "$open" ] || open=$1
		save "$1" "$new" "$2" && {
			mv -f -- "$new" "$target" && sync -d -- "$folder" && sync -f -- "$target" && sync -d -- "$target"
		} 8<"$open" && sync -f -- "$target" && sync -d -- "$target" && holds "$target" "$2"
	}

	[ "$(id -u)" -eq 0 ] || leave 14 "writing $target needs root"
	[ -f "$target" ] && [ ! -L "$target" ] || leave 11 "$target has gone since the plan was made"
	(umask 077 && mkdir -p -- "$backup_dir") && cat >"$incoming" || leave 1 "cannot write to $backup_dir; $target is unchanged"
	new_hash=$(hash "$incoming") && now_hash=$(hash "$target") || leave 1 "cannot read $target"
	# After a power cut one file may have both names; taking one of them away would free what the other still needs.
	[ -f "$new" ] && [ "$(hash "$new")" = "$now_hash" ] &&
		leave 14 "refused: $new may be $target itself under a second name; check the partition with fsck.vfat"
	if [ "$now_hash" = "$new_hash" ]; then
		rm -f -- "$new" "$incoming"
		sync -f -- "$target" && holds "$target" "$new_hash" || leave 1 "$target cannot be synced to the card"
		exit 0
	fi
	[ "$now_hash" = "$old_hash" ] || leave 11 "$target has changed since the plan was made"

	must_stay=$(guarded "$target")
	if [ "$name" = config.txt ]; then
		[ -s "$incoming" ] || leave 14 "refused: there is no new content of $target"
		stays='which kernel boots, and with what'
	else
		is_one_line "$incoming" || leave 14 "refused: the new content of $target is not one line of printable ASCII"
		printf '%s\n' "$must_stay" | grep -q '^root=.' ||
			leave 14 "refused: $target has no root=, so it is not what this Pi boots with"
		stays='root=, rootfstype=, rootwait, fixrtc or console='
	fi
	[ "$(guarded "$incoming")" = "$must_stay" ] || leave 14 "refused: the new content of $target changes $stays"

	# access(2) knows about a read-only mount, also for root. Room: three copies and the folder, in clusters of 16 KiB.
	[ -w "$folder" ] || leave 14 "refused: $folder is read-only; FAT becomes that by itself after an error, see dmesg"
	size=$(wc -c <"$target") new_size=$(wc -c <"$incoming")
	[ "$new_size" -gt "$size" ] && size=$new_size
	free=$(df -Pk -- "$folder" | {
		read -r _
		read -r _ _ _ available _
		printf '%s' "$available"
	})
	[ "${free:-0}" -ge 64 ] && [ "$((free * 1024))" -ge "$((4 * size))" ] ||
		leave 14 "refused: $folder has only ${free:-0} KiB free"

	save_by_date "$target" "$now_hash" || leave 1 "cannot save $target to $backup_dir; it is unchanged"
	save "$target" "$beside" "$now_hash" || leave 1 "cannot save $target to $beside; it is unchanged"

	if put "$incoming" "$new_hash"; then
		rm -f -- "$incoming"
		exit 0
	fi
	rm -f -- "$new"
	holds "$target" "$now_hash" && leave 1 "$target could not be written; it is unchanged"
	put "$copy" "$now_hash" && leave 1 "$target could not be written; its old content has been put back"
	leave 15 "$target could not be written, nor its old content put back: before the next reboot, copy $beside or $copy to it"
)
