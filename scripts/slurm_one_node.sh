#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, for trying hydra/launcher=submitit_slurm. Needs root and Debian's packages:
#     apt-get install slurmctld slurmd slurmdbd slurm-client munge mariadb-server
# (The database is for sacct, from which submitit learns that a job is dead.)
# `start` brings it up, `stop` takes it down. Not for a machine that has a Slurm of its own.
set -euo pipefail

place=${SLURM_PLACE:-/tmp/slurm-one-node}
conf=/etc/slurm/slurm.conf

start() {
    mkdir -p "$place/state" "$place/spool" /etc/slurm /run/munge /var/log/munge /var/lib/munge
    if [ -e "$conf" ] && ! grep -q "one node for trying" "$conf"; then
        echo "$conf is there already: this machine has a Slurm of its own" >&2
        exit 1
    fi
    [ -s /etc/munge/munge.key ] || (umask 077 && dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 2>/dev/null)
    chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
    chmod 755 /run/munge
    pgrep -x munged >/dev/null || runuser -u munge -- munged
    start_accounting
    cat >"$conf" <<CONF
# one node for trying
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
JobAcctGatherType=jobacct_gather/none
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
KillWait=5
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    slurmctld
    slurmd
    sacctmgr -i add cluster one >/dev/null 2>&1 || true
    for _ in $(seq 100); do
        sinfo -h -o %T 2>/dev/null | grep -q idle && echo "Slurm is up" && return
        sleep 0.2
    done
    echo "Slurm did not come up; see $place/*.log" >&2
    exit 1
}

start_accounting() {
    mkdir -p "$place/db"
    chown mysql: "$place/db"
    [ -d "$place/db/mysql" ] || mariadb-install-db --user=mysql --datadir="$place/db" >/dev/null
    mariadbd --no-defaults --user=mysql --datadir="$place/db" --socket="$place/db/socket" \
        --pid-file="$place/db/mariadb.pid" --bind-address=127.0.0.1 --port=3399 >"$place/mariadb.log" 2>&1 &
    for _ in $(seq 100); do
        mariadb --socket="$place/db/socket" -e "CREATE DATABASE IF NOT EXISTS slurm; \
            CREATE OR REPLACE USER slurm@localhost IDENTIFIED BY 'one'; \
            CREATE OR REPLACE USER slurm@'127.0.0.1' IDENTIFIED BY 'one'; \
            GRANT ALL ON slurm.* TO slurm@localhost; GRANT ALL ON slurm.* TO slurm@'127.0.0.1'" 2>/dev/null && break
        sleep 0.2
    done
    (umask 077 && cat >/etc/slurm/slurmdbd.conf <<CONF
AuthType=auth/munge
DbdHost=localhost
SlurmUser=root
LogFile=$place/slurmdbd.log
PidFile=$place/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=3399
StorageUser=slurm
StoragePass=one
StorageLoc=slurm
CONF
    )
    slurmdbd
    sleep 1
}

stop() {
    for name in slurmd slurmctld slurmdbd db/mariadb; do
        [ ! -e "$place/$name.pid" ] || kill "$(cat "$place/$name.pid")" 2>/dev/null || true
    done
    rm -f "$conf" /etc/slurm/slurmdbd.conf
}

case "${1:-}" in
start | stop) "$1" ;;
*) echo "usage: $0 start|stop" >&2 && exit 2 ;;
esac
