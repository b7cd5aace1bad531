#!/bin/sh
# The first process of the Linux guest: fills files in memory, checks them twice in changing order, says how it went.
# With mem_event.work=none on the kernel's command line it does no work, with mem_event.work=names it tells a digest of the kernel's symbols, with
# mem_event.work=child it tells how a child ended that runs for ever by itself, with mem_event.work=calls it counts how often functions of the kernel
# are called (mem_event.functions=NAME,NAME, by the kernel's own probes) while one process for each processor works (mem_event.rounds=NUMBER).
# It touches half of the memory that Linux finds free, at most 24 files of 8 MiB.
mount -t proc proc /proc
grep "Kernel code" /proc/iomem
# A machine that is to be saved here (mem_event.wait=SECONDS) waits until it is, so that its guest is not further by then, or gone.
for word in $(cat /proc/cmdline); do
    case "$word" in
        mem_event.wait=*) sleep "${word#mem_event.wait=}" ;;
    esac
done
if grep -q mem_event.work=names /proc/cmdline; then
    # Those of modules, in brackets, are none of the kernel's image.
    grep -v '\[' /proc/kallsyms | md5sum
    echo "verdict: success: names told"
    poweroff -f
fi
if grep -q mem_event.work=child /proc/cmdline; then
    sh -c 'echo "a child runs"; while :; do :; done' &
    wait $!
    echo "the child ended with status $?"
    grep -c processor /proc/cpuinfo
    echo "verdict: success: outlived its child"
    poweroff -f
fi
if grep -q mem_event.work=calls /proc/cmdline; then
    mount -t tracefs tracefs /trace
    mount -t tmpfs tmpfs /calls
    for word in $(cat /proc/cmdline); do
        case "$word" in
            mem_event.functions=*) functions=${word#mem_event.functions=} ;;
            mem_event.rounds=*) rounds=${word#mem_event.rounds=} ;;
        esac
    done
    for function in $(echo "$functions" | tr , ' '); do
        echo "p:$function $function" >>/trace/kprobe_events || echo "no probe of $function"
    done
    # Who has breaks knows by each sync how far this is: the probes count from some moment between the first two on, and until one between the last two.
    sync
    echo 1 >/trace/events/kprobes/enable
    sync
    files="1 2 3 4 5 6 7 8 9 10 11 12"
    for processor in $(grep -o '^processor' /proc/cpuinfo); do
        number=$((number + 1))
        (
            mkdir -p "/calls/$number/to" && cd "/calls/$number" || exit 1
            round=0
            while [ "$round" -lt "$rounds" ]; do
                mkdir $files && rmdir $files && touch $files && chmod 600 $files && mv $files to && cd to || exit 1
                mkdir hard soft && ln $files hard && ln -s $files soft && truncate -s 1 $files && rm -r $files hard soft && cd .. || exit 1
                round=$((round + 1))
            done
            echo "worker $number is done"
        ) &
    done
    wait
    sync
    cat /trace/kprobe_profile
    sync
    echo "verdict: success: calls counted"
    poweroff -f
fi
if grep -q mem_event.work=none /proc/cmdline; then
    echo "verdict: success: booted"
    poweroff -f
fi
mount -t tmpfs -o size=90% tmpfs /work
cd /work || exit 1

available=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)
count=$((available / 1024 / 16))
[ "$count" -gt 24 ] && count=24
[ "$count" -lt 2 ] && count=2

echo "filling $count files of 8 MiB"
dd if=/dev/urandom of=seed bs=1M count=1 2>/dev/null
number=1
while [ "$number" -le "$count" ]; do
    for part in 1 2 3 4 5 6 7 8; do
        echo "file $number part $part"
        cat seed
    done >"file$number"
    md5sum "file$number" >>sums
    number=$((number + 1))
done

verify() {
    echo "verifying $1"
    $2 sums >order
    md5sum -c order >result || { echo "verdict: failure: $(grep -c FAILED result) files have a wrong checksum"; poweroff -f; }
    [ "$(grep -c ': OK$' result)" -eq "$count" ] || { echo "verdict: failure: a file is missing"; poweroff -f; }
}
verify forwards cat
verify backwards tac
echo "verdict: success: $count files, checksums right twice"
poweroff -f
