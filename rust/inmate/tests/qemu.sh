#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Boots the inmate in QEMU: alone, against another inmate over the device model in
# all its shapes, on broken devices, and when something dies. Writes TAP to
# standard output; what the cells printed is shown for each failed test. To be run
# in the toolbox after the inmate and the device model are built:
#
#   rust/inmate/tests/qemu.sh >build/results/inmate.tap
#
# Environment: INMATE and DEVICE are the two programs, QEMU is the emulator, LIMIT
# is how many seconds one machine may run (default 120, generous for a busy host,
# times IVSHMEM_PATIENCE).
set -u

root=$(cd "$(dirname "$0")/../../.." && pwd)
INMATE=${INMATE:-$root/build/inmate/ivshmem-inmate.elf}
DEVICE=${DEVICE:-${CARGO_TARGET_DIR:-$root/build/cargo}/x86_64-unknown-linux-gnu/release/ivshmem-device}
QEMU=${QEMU:-qemu-system-x86_64}
LIMIT=${LIMIT:-$((120 * ${IVSHMEM_PATIENCE:-1}))}

SUCCESS=33
FAILURE=35

for program in "$INMATE" "$DEVICE"; do
    if [ ! -f "$program" ]; then
        echo "Bail out! $program is missing: build the inmate and the device model first"
        exit 1
    fi
done

scratch=$(mktemp -d) || exit 1
children=
trap clean_up EXIT
trap 'exit 130' INT TERM

number=0
failed=0

clean_up() {
    for child in $children; do
        kill "$child" 2>/dev/null
    done
    rm -rf "$scratch"
}

# verdict NAME: reports a test; $complaint says what is wrong with it.
verdict() {
    number=$((number + 1))
    if [ -z "$complaint" ]; then
        echo "ok $number - $1"
        return
    fi
    failed=$((failed + 1))
    echo "not ok $number - $1"
    echo "# $complaint"
    for log in "$scratch"/*.log; do
        [ -f "$log" ] && sed "s|^|# $(basename "$log"): |" "$log"
    done
}

complain() {
    complaint="$complaint$* "
}

# begin: forgets the last test.
begin() {
    rm -rf "${scratch:?}"/*
    complaint=
    children=
}

# link OPTION...: starts the device model.
link() {
    "$DEVICE" --socket-dir "$scratch" --stats "$scratch/statistics.json" "$@" \
        >"$scratch/device.out" 2>"$scratch/device.log" &
    device=$!
    children="$children $device"
    wait_for 'listening' "$scratch/device.out" || complain "the device model does not start."
}

# cell PEER COMMANDLINE OPTION...: starts QEMU with the inmate on that peer's device.
# QEMU's messages go beside the console.
cell() {
    peer=$1
    line=$2
    shift 2
    machine "$scratch/peer$peer" "$line" "$@" -device "{\"driver\":\"vfio-user-pci\",\
\"x-msg-timeout\":600000,\"socket\":{\"type\":\"unix\",\"path\":\"$scratch/peer$peer.sock\"}}"
}

# machine FILES COMMANDLINE OPTION...: starts QEMU; its pid is in $qemu.
machine() {
    files=$1
    line=$2
    shift 2
    timeout -k 5 "$LIMIT" "$QEMU" -nodefaults -no-user-config -display none -no-reboot -M pc -accel tcg -m 64 \
        -kernel "$INMATE" -append "$line" -serial "file:$files.log" -pidfile "$files.pid" \
        -device isa-debug-exit,iobase=0xf4,iosize=0x04 "$@" \
        >"$files.qemu.log" 2>&1 </dev/null &
    qemu=$!
    children="$children $qemu"
}

# wait_for PATTERN FILE: until the file has such a line.
wait_for() {
    tries=$((LIMIT * 10))
    until grep -qs -- "$1" "$2"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# ends PID STATUS FILE PATTERN: the machine must end so, its console with such a line.
ends() {
    wait "$1"
    status=$?
    [ "$status" -eq "$2" ] || complain "status of $(basename "$3") is $status, not $2."
    tail -n 1 "$3" 2>/dev/null | grep -q -- "$4" || complain "the last line is not '$4'."
}

has() {
    grep -q -- "$2" "$1" || complain "no line '$2' in $(basename "$1")."
}

# close_link: ends the device model; no access may have been one that stops a cell on Jailhouse.
close_link() {
    kill -TERM "$device"
    wait "$device" || complain "the device model fails."
    has "$scratch/statistics.json" '"fatal_accesses": *0[,}]*$'
}

# pair NAME QEMUOPTIONS OPTION...: two inmates talk; the first one leaves after five rounds.
pair() {
    name=$1
    extra=$2
    shift 2
    begin
    link "$@"
    # shellcheck disable=SC2086 # several words
    cell 0 'target=1 period=50 rounds=5 greeting="from zero"' $extra
    first=$qemu
    # shellcheck disable=SC2086
    cell 1 'target=0 period=50' $extra
    second=$qemu
    ends "$first" "$SUCCESS" "$scratch/peer0.log" '^IVSHMEM: 5 rounds done, sent [0-9]* interrupts, got [1-9]'
    ends "$second" "$SUCCESS" "$scratch/peer1.log" '^IVSHMEM: peer 0 left, sent [1-9][0-9]* interrupts, got [1-9]'
    has "$scratch/peer0.log" '^state\[1\] = 2'
    # "Hi!\n" as a number, and "from".
    has "$scratch/peer0.log" '^in@0x[0-9a-f]* = 169961800'
    has "$scratch/peer1.log" '^in@0x0000 = 1836020326'
    close_link
    verdict "$name"
}

# alone NAME COMMANDLINE PATTERN OPTION...: fails without any IVSHMEM device.
alone() {
    name=$1
    line=$2
    pattern=$3
    shift 3
    begin
    machine "$scratch/machine" "$line" "$@"
    ends "$qemu" "$FAILURE" "$scratch/machine.log" "^IVSHMEM: error: $pattern"
    verdict "$name"
}

# broken FAULT SHAPE PATTERN: fails on a device with that fault.
broken() {
    begin
    link --shape "$2" --fault "$1"
    cell 0 'target=1 timeout=60'
    ends "$qemu" "$FAILURE" "$scratch/peer0.log" "^IVSHMEM: error: $3"
    close_link
    verdict "device with fault $1 is refused"
}

echo 'TAP version 13'

for shape in jailhouse bar2; do
    for protection in trap mapped; do
        for vectors in 4 1 0; do
            pair "pair, $shape, $protection, $vectors vectors" '' \
                --shape "$shape" --protection "$protection" --vectors "$vectors"
        done
    done
    pair "pair, $shape, BARs without addresses" '-bios qboot.rom' --shape "$shape"
done
pair 'pair, x2APIC, q35' '-cpu max -M q35' --shape jailhouse
pair 'pair, no R/W section' '' --rw-size 0
pair 'pair, 3 of 12 peers' '' --peers 12
pair 'pair, memory above 4 GiB' '' --shape bar2 --protection mapped --rw-size 0x80000000

alone 'no device' '' 'no PCI device 110a:4106 with class ff0000 found'
alone 'unknown option' 'target=0 colour=red' 'unknown option "colour=red"'
alone 'number out of range' 'period=0' 'option "period=0" must be a number from 1 to 3600000'
alone 'greeting without end' 'greeting="a b' 'the quote in greeting="a b does not end'
alone 'processor without 64 bits' '' 'the processor has no 64-bit mode' -cpu 486

broken no-capability jailhouse 'the device has no vendor capability'
broken short-capability jailhouse 'the vendor capability is 10h bytes long'
broken zero-state-table jailhouse 'the state table has 0x0 bytes'
broken misaligned-state-table jailhouse 'the state table has 0x1ffc bytes'
broken misaligned-rw jailhouse 'the R/W section has 0x9008 bytes'
broken misaligned-output jailhouse 'the output section has 0x2008 bytes'
broken overflowing-rw jailhouse 'the sizes of the sections overflow'
broken overflowing-output jailhouse 'the sizes of the sections overflow'
broken beyond-bar bar2 'the shared memory of 0x[0-9a-f]* bytes is too small'
broken no-address jailhouse "the shared memory's address 0x0 is zero"
broken misaligned-address jailhouse "the shared memory's address 0x[0-9a-f]*800 is .*misaligned"
broken overflowing-address jailhouse "the shared memory's address 0xfffffffffffff000 is .*too high"
broken id-out-of-range jailhouse 'own ID is 2, it must be below maximum peers, 2'
broken no-peers jailhouse 'maximum peers is 0, '
broken many-peers jailhouse 'maximum peers is 1000000, '
broken dead-registers jailhouse 'maximum peers is 4294967295, '

begin
link --protocol 0x4001
cell 0 'target=1'
ends "$qemu" "$FAILURE" "$scratch/peer0.log" '^IVSHMEM: error: .* has class ff4001, not ff0000'
close_link
verdict 'device with another protocol is left alone'

begin
link
cell 0 'target=2'
ends "$qemu" "$FAILURE" "$scratch/peer0.log" '^IVSHMEM: error: target=2 is out of range, maximum peers is 2'
close_link
verdict 'target out of range'

begin
link
cell 0 'target=1 vector=4'
ends "$qemu" "$FAILURE" "$scratch/peer0.log" '^IVSHMEM: error: vector=4 is out of range, the device has 4 vectors'
close_link
verdict 'vector out of range'

begin
link
cell 0 'target=1 period=100 timeout=1'
ends "$qemu" "$FAILURE" "$scratch/peer0.log" '^IVSHMEM: error: not finished after timeout=1 seconds'
close_link
verdict 'time runs out when nobody comes'

begin
link
cell 0 'target=1 period=50'
first=$qemu
cell 1 'target=0 period=50'
second=$qemu
wait_for 'got interrupt 1 ' "$scratch/peer1.log" || complain 'peer 0 does not ring.'
kill -KILL "$(cat "$scratch/peer0.pid")"
wait "$first" 2>/dev/null
ends "$second" "$SUCCESS" "$scratch/peer1.log" '^IVSHMEM: peer 0 left'
close_link
verdict 'peer is killed'

# QEMU 11.1 itself can abort if this hits it in the middle of an access. This peer
# rings itself; when it says that it has heard that, it makes no more until the
# next period, as all it reads and writes then is mapped.
begin
link --protection mapped
cell 0 'target=0 period=2000'
wait_for 'got interrupt' "$scratch/peer0.log" || complain 'peer 0 does not hear itself.'
kill -KILL "$device"
wait "$device" 2>/dev/null
ends "$qemu" "$FAILURE" "$scratch/peer0.log" '^IVSHMEM: error: the device does not answer any more'
verdict 'device model is killed'

begin
link
mkfifo "$scratch/monitor.in" "$scratch/monitor.out"
cell 0 'target=1 period=50' -chardev "pipe,id=monitor,path=$scratch/monitor" -mon chardev=monitor
exec 3<>"$scratch/monitor.in" 4<>"$scratch/monitor.out"
wait_for 'sending' "$scratch/peer0.log" || complain 'peer 0 does not ring.'
echo nmi >&3
ends "$qemu" "$FAILURE" "$scratch/peer0.log" '^IVSHMEM: error: exception 2 at rip 0x1[0-9a-f]*, error code 0x0'
exec 3>&- 4>&-
close_link
verdict 'exception is reported'

echo "1..$number"
[ "$failed" -eq 0 ]
