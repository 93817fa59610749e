#!/bin/bash
# Trains a recipe on several nodes, and goes on by itself when the cluster takes them away or the time is over.
#
#   sbatch --nodes 4 recipes/slurm.sh recipes/mdeq-imagenet-small.yaml --data.init_args.root /data/imagenet
#
# When it is preempted (SIGTERM), it saves too, and SLURM queues it again where PreemptMode=REQUEUE.
#
# The same command line starts a run and resumes it: `--ckpt_path last` takes the newest checkpoint that is whole, if
# there is one. Recipes with deqzoo.tasks.GlobalBatch keep their batch, or scale the learning rate, on any number of
# devices. Without SLURM, one node with torchrun:
#
#   torchrun --nproc_per_node 8 -m deqzoo fit -c recipes/mdeq-imagenet-small.yaml --trainer.devices 8 --ckpt_path last

#SBATCH --job-name=deqzoo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Five minutes before the end, to every process. After its batch, or the validation that it is in, the run then saves
# last.ckpt and has the job queued again; these have to fit into that time.
#SBATCH --signal=SIGUSR1@300

set -euo pipefail
recipe=$1
shift

export OMP_NUM_THREADS=1
# Since SLURM 22.05, srun does not take it over from sbatch: all workers of a process would share one core.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# A process that waits for a dead one is ended, and with it the job step, instead of waiting for ever.
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1

srun --kill-on-bad-exit=1 python -m deqzoo fit -c "$recipe" \
    --trainer.num_nodes "$SLURM_NNODES" \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" \
    --trainer.strategy ddp \
    --ckpt_path last \
    "$@"
