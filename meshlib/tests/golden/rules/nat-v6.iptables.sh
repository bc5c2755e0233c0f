# apply
ip -6 route replace local ::/0 dev lo table 100
out=$(ip -6 rule add pref 7089 fwmark 0x1/0x1 lookup 100 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
out=$(ip -6 rule add pref 7089 iif lo from ::1/128 lookup 100 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
printf '%s\n' '*mangle' ':MESHLIB_OUT - [0:0]' '-A MESHLIB_OUT -p tcp -m mark --mark 0x1/0x1 -j CONNMARK --save-mark --nfmask 0x1 --ctmask 0x1' '-A MESHLIB_OUT -p tcp -m connmark --mark 0x1/0x1 -j CONNMARK --restore-mark --nfmask 0x1 --ctmask 0x1' COMMIT '*nat' ':MESHLIB_PRE - [0:0]' '-A MESHLIB_PRE -i lo -j RETURN' '-A MESHLIB_PRE -p tcp -j DNAT --to-destination [fd77::3]:6000' COMMIT | ip6tables-restore -w 5 --noflush
ip6tables -w 5 -t mangle -C OUTPUT -p tcp -j MESHLIB_OUT 2>/dev/null || ip6tables -w 5 -t mangle -A OUTPUT -p tcp -j MESHLIB_OUT
ip6tables -w 5 -t nat -C PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null || ip6tables -w 5 -t nat -A PREROUTING -p tcp -j MESHLIB_PRE
# tidy
while iptables -w 5 -t mangle -D PREROUTING -j MESHLIB_GUARD 2>/dev/null; do :; done
while iptables -w 5 -t nat -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while iptables -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while iptables -w 5 -t mangle -D OUTPUT -p tcp -j MESHLIB_OUT 2>/dev/null; do :; done
while iptables -w 5 -t raw -D PREROUTING -p tcp -j MESHLIB_PREROUTING 2>/dev/null; do :; done
while iptables -w 5 -t raw -D OUTPUT -p tcp -j MESHLIB_OUTPUT 2>/dev/null; do :; done
iptables -w 5 -t mangle -F MESHLIB_GUARD 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_GUARD 2>/dev/null || :
iptables -w 5 -t nat -F MESHLIB_PRE 2>/dev/null || :
iptables -w 5 -t nat -X MESHLIB_PRE 2>/dev/null || :
iptables -w 5 -t mangle -F MESHLIB_PRE 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_PRE 2>/dev/null || :
iptables -w 5 -t mangle -F MESHLIB_OUT 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_OUT 2>/dev/null || :
iptables -w 5 -t mangle -F MESHLIB_DIVERT 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_DIVERT 2>/dev/null || :
iptables -w 5 -t raw -F MESHLIB_PREROUTING 2>/dev/null || :
iptables -w 5 -t raw -X MESHLIB_PREROUTING 2>/dev/null || :
iptables -w 5 -t raw -F MESHLIB_OUTPUT 2>/dev/null || :
iptables -w 5 -t raw -X MESHLIB_OUTPUT 2>/dev/null || :
while ip6tables -w 5 -t mangle -D PREROUTING -j MESHLIB_GUARD 2>/dev/null; do :; done
while ip6tables -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while ip6tables -w 5 -t raw -D PREROUTING -p tcp -j MESHLIB_PREROUTING 2>/dev/null; do :; done
while ip6tables -w 5 -t raw -D OUTPUT -p tcp -j MESHLIB_OUTPUT 2>/dev/null; do :; done
ip6tables -w 5 -t mangle -F MESHLIB_GUARD 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_GUARD 2>/dev/null || :
ip6tables -w 5 -t mangle -F MESHLIB_PRE 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_PRE 2>/dev/null || :
ip6tables -w 5 -t mangle -F MESHLIB_DIVERT 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_DIVERT 2>/dev/null || :
ip6tables -w 5 -t raw -F MESHLIB_PREROUTING 2>/dev/null || :
ip6tables -w 5 -t raw -X MESHLIB_PREROUTING 2>/dev/null || :
ip6tables -w 5 -t raw -F MESHLIB_OUTPUT 2>/dev/null || :
ip6tables -w 5 -t raw -X MESHLIB_OUTPUT 2>/dev/null || :
ip -4 rule del pref 7089 fwmark 0x1/0x1 lookup 100 2>/dev/null || :
ip -4 rule del pref 7089 iif lo from 127.0.0.0/8 lookup 100 2>/dev/null || :
ip -4 route del local 0.0.0.0/0 dev lo table 100 2>/dev/null || :
# release
while ip6tables -w 5 -t nat -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
