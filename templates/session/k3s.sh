# What a run asks of k3s, on the node itself or on the server that the others join. Each call answers in one frame, so
# that nothing else that a shell prints is taken for it. Only drain, forget and object change anything, and only in the
# cluster.
# shellcheck shell=sh
# shellcheck disable=SC2154  # nonce is set by the workstation

frame() { printf '\n@%s %s\n' "$nonce" "$*"; }

kubectl_for() { # SECONDS ARGUMENT…
	kubectl_seconds=$1
	shift
	timeout -k 5 "$kubectl_seconds" /usr/local/bin/k3s kubectl --kubeconfig /etc/rancher/k3s/k3s.yaml "$@" </dev/null
}

# UNIT: how it stands, and what it says, since it was started, of a password that the server does not know
unit_state() {
	frame unit
	unit_said=$(timeout 20 systemctl show --property=ActiveState --property=NRestarts --property=InvocationID -- "$1" 2>/dev/null)
	printf '%s\n' "$unit_said"
	unit_start=$(printf '%s\n' "$unit_said" | sed -n 's/^InvocationID=//p')
	[ -n "$unit_start" ] || return 0
	timeout 20 journalctl -q -b -o cat --no-pager "_SYSTEMD_INVOCATION_ID=$unit_start" 2>/dev/null |
		grep -m 1 'Node password rejected' | cut -c 1-300 | sed 's/^/rejected=/'
	return 0
}

last_words() { # UNIT
	frame journal
	timeout 20 journalctl -q -b -n 15 -o cat --no-pager -u "$1" 2>/dev/null | cut -c 1-300
	return 0
}

nodes() {
	frame nodes
	kubectl_for 30 get nodes -o json 2>/dev/null
	return 0
}

pods() { # NAMESPACE
	frame pods
	kubectl_for 30 get pods -n "$1" -o json 2>/dev/null
	return 0
}

secret() { # PATH
	frame secret
	cat -- "$1"
}

forget() { # NODE: with it the server forgets its password (domain.md §4.4)
	kubectl_for 120 delete node "$1" --ignore-not-found >/dev/null
}

object() { # VERB NODE ARGUMENT…
	object_verb=$1
	shift
	case $object_verb in
	uncordon) kubectl_for 60 uncordon "$@" >/dev/null ;;
	*) kubectl_for 60 "$object_verb" node "$@" --overwrite >/dev/null ;;
	esac
}

# Marked before it is cordoned, so that the next run lifts what a run that died has left.
drain() { # NODE SECONDS
	kubectl_for 60 annotate node "$1" selfheal/cordoned=true --overwrite >/dev/null && kubectl_for 60 cordon "$1" >/dev/null &&
		kubectl_for $(($2 + 30)) drain "$1" --ignore-daemonsets --delete-emptydir-data --timeout="$2s" >/dev/null
}

back_in_service() { # NODE
	kubectl_for 60 uncordon "$1" >/dev/null && kubectl_for 60 annotate node "$1" selfheal/cordoned- >/dev/null
}
