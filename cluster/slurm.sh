#!/bin/bash
# Train on the machines of a Slurm job, with one worker for each task:
#
#   sbatch --nodes 2 --ntasks-per-node 4 --gpus-per-node 4 cluster/slurm.sh house-50 --data house.png --out runs/house
#
# Every machine must see the folder of --out and have distvae on its PATH. Two minutes before the time limit
# training saves its state and the job is queued again, as Slurm does with jobs that it preempts or that lose a
# machine. Training then continues from its saved state. A job that is cancelled saves its state too.
#SBATCH --job-name=distvae
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

if [ -z "$SLURM_JOB_ID" ]; then
	sed -n '2,8s/^# \{0,1\}//p' "$0"
	exit 2
fi

# Before the time limit, tell the workers to save and stop. A job that is cancelled or preempted has told them already.
trap 'times_out=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
trap : TERM

# What torch.distributed reads; the port is another for each job, since jobs may share a machine.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT
srun --kill-on-bad-exit=1 bash -c \
	'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec distvae train "$@" --resume' train "$@" &
training=$!
while
	wait "$training"
	code=$?
	kill -0 "$training" 2>/dev/null # a signal has ended the waiting, not the training
do :; done
if [ -n "$times_out" ] && [ "$code" -ne 0 ]; then
	scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
