# apply
ip -4 route replace local 0.0.0.0/0 dev lo table 100
out=$(ip -4 rule add pref 7089 fwmark 0x1/0x1 lookup 100 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
ip -6 route replace local ::/0 dev lo table 100
out=$(ip -6 rule add pref 7089 fwmark 0x1/0x1 lookup 100 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
printf '%s\n' '*raw' ':MESHLIB_PREROUTING - [0:0]' ':MESHLIB_OUTPUT - [0:0]' '-A MESHLIB_PREROUTING -p tcp -m mark --mark 0x1/0x1 -j CT --notrack' '-A MESHLIB_OUTPUT -p tcp -m mark --mark 0x1/0x1 -j CT --notrack' COMMIT '*mangle' ':MESHLIB_PRE - [0:0]' '-A MESHLIB_PRE -i lo -j RETURN' '-A MESHLIB_PRE -m addrtype ! --dst-type LOCAL -j RETURN' '-A MESHLIB_PRE -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m socket -j ACCEPT' '-A MESHLIB_PRE -p tcp -j TPROXY --on-port 5000 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0' COMMIT | iptables-restore -w 5 --noflush
iptables -w 5 -t raw -C PREROUTING -p tcp -j MESHLIB_PREROUTING 2>/dev/null || iptables -w 5 -t raw -A PREROUTING -p tcp -j MESHLIB_PREROUTING
iptables -w 5 -t raw -C OUTPUT -p tcp -j MESHLIB_OUTPUT 2>/dev/null || iptables -w 5 -t raw -A OUTPUT -p tcp -j MESHLIB_OUTPUT
iptables -w 5 -t mangle -C PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null || iptables -w 5 -t mangle -A PREROUTING -p tcp -j MESHLIB_PRE
printf '%s\n' '*raw' ':MESHLIB_PREROUTING - [0:0]' ':MESHLIB_OUTPUT - [0:0]' '-A MESHLIB_PREROUTING -p tcp -m mark --mark 0x1/0x1 -j CT --notrack' '-A MESHLIB_OUTPUT -p tcp -m mark --mark 0x1/0x1 -j CT --notrack' COMMIT '*mangle' ':MESHLIB_PRE - [0:0]' '-A MESHLIB_PRE -i lo -j RETURN' '-A MESHLIB_PRE -m addrtype ! --dst-type LOCAL -j RETURN' '-A MESHLIB_PRE -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m socket -j ACCEPT' '-A MESHLIB_PRE -p tcp -j TPROXY --on-port 5000 --on-ip :: --tproxy-mark 0x0/0x0' COMMIT | ip6tables-restore -w 5 --noflush
ip6tables -w 5 -t raw -C PREROUTING -p tcp -j MESHLIB_PREROUTING 2>/dev/null || ip6tables -w 5 -t raw -A PREROUTING -p tcp -j MESHLIB_PREROUTING
ip6tables -w 5 -t raw -C OUTPUT -p tcp -j MESHLIB_OUTPUT 2>/dev/null || ip6tables -w 5 -t raw -A OUTPUT -p tcp -j MESHLIB_OUTPUT
ip6tables -w 5 -t mangle -C PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null || ip6tables -w 5 -t mangle -A PREROUTING -p tcp -j MESHLIB_PRE
# tidy
while iptables -w 5 -t mangle -D PREROUTING -j MESHLIB_GUARD 2>/dev/null; do :; done
while iptables -w 5 -t nat -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while iptables -w 5 -t mangle -D OUTPUT -p tcp -j MESHLIB_OUT 2>/dev/null; do :; done
iptables -w 5 -t mangle -F MESHLIB_GUARD 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_GUARD 2>/dev/null || :
iptables -w 5 -t nat -F MESHLIB_PRE 2>/dev/null || :
iptables -w 5 -t nat -X MESHLIB_PRE 2>/dev/null || :
iptables -w 5 -t mangle -F MESHLIB_OUT 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_OUT 2>/dev/null || :
iptables -w 5 -t mangle -F MESHLIB_DIVERT 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_DIVERT 2>/dev/null || :
while ip6tables -w 5 -t mangle -D PREROUTING -j MESHLIB_GUARD 2>/dev/null; do :; done
while ip6tables -w 5 -t nat -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while ip6tables -w 5 -t mangle -D OUTPUT -p tcp -j MESHLIB_OUT 2>/dev/null; do :; done
ip6tables -w 5 -t mangle -F MESHLIB_GUARD 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_GUARD 2>/dev/null || :
ip6tables -w 5 -t nat -F MESHLIB_PRE 2>/dev/null || :
ip6tables -w 5 -t nat -X MESHLIB_PRE 2>/dev/null || :
ip6tables -w 5 -t mangle -F MESHLIB_OUT 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_OUT 2>/dev/null || :
ip6tables -w 5 -t mangle -F MESHLIB_DIVERT 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_DIVERT 2>/dev/null || :
ip -4 rule del pref 7089 iif lo from 127.0.0.0/8 lookup 100 2>/dev/null || :
ip -6 rule del pref 7089 iif lo from ::1/128 lookup 100 2>/dev/null || :
# release
while iptables -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while ip6tables -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
