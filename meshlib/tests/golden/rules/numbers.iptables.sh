# apply
ip -4 route replace local 0.0.0.0/0 dev lo table 4143
out=$(ip -4 rule add pref 99 fwmark 0x100/0x100 lookup 4143 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
printf '%s\n' '*raw' ':MESHLIB_PREROUTING - [0:0]' ':MESHLIB_OUTPUT - [0:0]' '-A MESHLIB_PREROUTING -p tcp -m mark --mark 0x100/0x100 -j CT --notrack' '-A MESHLIB_OUTPUT -p tcp -m mark --mark 0x100/0x100 -m comment --comment "switched on: net.ipv4.tcp_fwmark_accept net.ipv4.fwmark_reflect net.ipv6.fwmark_reflect" -j CT --notrack' COMMIT '*mangle' ':MESHLIB_GUARD - [0:0]' '-A MESHLIB_GUARD -d 127.0.0.0/8 ! -i lo -j DROP' COMMIT '*nat' ':MESHLIB_PRE - [0:0]' '-A MESHLIB_PRE -i lo -j RETURN' '-A MESHLIB_PRE -p tcp -j REDIRECT --to-ports 4143' COMMIT | iptables-restore -w 5 --noflush
iptables -w 5 -t mangle -C PREROUTING -j MESHLIB_GUARD 2>/dev/null || iptables -w 5 -t mangle -I PREROUTING -j MESHLIB_GUARD
iptables -w 5 -t raw -C PREROUTING -p tcp -j MESHLIB_PREROUTING 2>/dev/null || iptables -w 5 -t raw -A PREROUTING -p tcp -j MESHLIB_PREROUTING
iptables -w 5 -t raw -C OUTPUT -p tcp -j MESHLIB_OUTPUT 2>/dev/null || iptables -w 5 -t raw -A OUTPUT -p tcp -j MESHLIB_OUTPUT
iptables -w 5 -t nat -C PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null || iptables -w 5 -t nat -A PREROUTING -p tcp -j MESHLIB_PRE
# tidy
while iptables -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while iptables -w 5 -t mangle -D OUTPUT -p tcp -j MESHLIB_OUT 2>/dev/null; do :; done
iptables -w 5 -t mangle -F MESHLIB_PRE 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_PRE 2>/dev/null || :
iptables -w 5 -t mangle -F MESHLIB_OUT 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_OUT 2>/dev/null || :
iptables -w 5 -t mangle -F MESHLIB_DIVERT 2>/dev/null || :
iptables -w 5 -t mangle -X MESHLIB_DIVERT 2>/dev/null || :
while ip6tables -w 5 -t mangle -D PREROUTING -j MESHLIB_GUARD 2>/dev/null; do :; done
while ip6tables -w 5 -t nat -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while ip6tables -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while ip6tables -w 5 -t mangle -D OUTPUT -p tcp -j MESHLIB_OUT 2>/dev/null; do :; done
while ip6tables -w 5 -t raw -D PREROUTING -p tcp -j MESHLIB_PREROUTING 2>/dev/null; do :; done
while ip6tables -w 5 -t raw -D OUTPUT -p tcp -j MESHLIB_OUTPUT 2>/dev/null; do :; done
ip6tables -w 5 -t mangle -F MESHLIB_GUARD 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_GUARD 2>/dev/null || :
ip6tables -w 5 -t nat -F MESHLIB_PRE 2>/dev/null || :
ip6tables -w 5 -t nat -X MESHLIB_PRE 2>/dev/null || :
ip6tables -w 5 -t mangle -F MESHLIB_PRE 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_PRE 2>/dev/null || :
ip6tables -w 5 -t mangle -F MESHLIB_OUT 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_OUT 2>/dev/null || :
ip6tables -w 5 -t mangle -F MESHLIB_DIVERT 2>/dev/null || :
ip6tables -w 5 -t mangle -X MESHLIB_DIVERT 2>/dev/null || :
ip6tables -w 5 -t raw -F MESHLIB_PREROUTING 2>/dev/null || :
ip6tables -w 5 -t raw -X MESHLIB_PREROUTING 2>/dev/null || :
ip6tables -w 5 -t raw -F MESHLIB_OUTPUT 2>/dev/null || :
ip6tables -w 5 -t raw -X MESHLIB_OUTPUT 2>/dev/null || :
ip -4 rule del pref 99 iif lo from 127.0.0.0/8 lookup 4143 2>/dev/null || :
ip -6 rule del pref 99 fwmark 0x100/0x100 lookup 4143 2>/dev/null || :
ip -6 rule del pref 99 iif lo from ::1/128 lookup 4143 2>/dev/null || :
ip -6 route del local ::/0 dev lo table 4143 2>/dev/null || :
# release
while iptables -w 5 -t nat -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
