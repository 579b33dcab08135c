#!/bin/sh
# Delays what this network namespace sends by SECFORMER_RT_DELAY_MS milliseconds, and limits it to
# SECFORMER_RT_MBIT Mbit/s, on every interface but the loopback one. Needs CAP_NET_ADMIN and nothing else.
set -u

fail() {
    echo "error: $1" >&2
    exit 1
}

delay=${SECFORMER_RT_DELAY_MS:-20} mbit=${SECFORMER_RT_MBIT:-200}
for number in "$delay" "$mbit"; do
    case $number in
        *[!0-9.]* | *.*.* | .) fail "SECFORMER_RT_DELAY_MS and SECFORMER_RT_MBIT take numbers, not '$number'." ;;
    esac
done

interfaces=$(ip -oneline link show | sed -n 's/^[0-9]*: \([^:@]*\).*/\1/p' | grep -vx lo)
[ -n "$interfaces" ] || fail "There is no interface to shape here: this container has to share a party's network."
for interface in $interfaces; do
    # As many packets wait as a fast sender may have under way; the default is too few for long links.
    if said=$(tc qdisc replace dev "$interface" root netem delay "${delay}ms" rate "${mbit}mbit" limit 10000 2>&1); then
        echo "$interface: $delay ms, $mbit Mbit/s"
        continue
    fi
    case $said in
        *"qdisc kind is unknown"*)
            fail "This kernel has no netem: load it on the host (modprobe sch_netem), or run without docker-compose.netem.yml."
            ;;
        *"not permitted"*) fail "Links cannot be shaped without CAP_NET_ADMIN: let this container have it." ;;
        *) fail "$interface cannot be shaped; tc says: $(echo "$said" | head -n 1)" ;;
    esac
done
