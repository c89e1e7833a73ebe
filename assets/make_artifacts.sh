#!/bin/sh
# Makes every run and evaluation under assets/ on one GPU. Called by `make artifacts`; repeating the call
# continues an interrupted one and keeps what is finished; evaluations of other settings are to be removed first.
#   DATASET         IMDB: a Hub id (default: stanfordnlp/imdb) or a folder with train, test and unsupervised
#   COUNTERFACTUAL  the 488 reviews with their minimal edits (default: fetched once), or a copy as one file
#   COUNTERFACTUAL_TRAIN  1,707 others to train on (default: fetched once), or a copy with its ?columns
#   MPNET MINILM GEMMA  the encoders: Hub ids, at revisions if given so, or folders with their safetensors
set -eu
DATASET=${DATASET:-stanfordnlp/imdb}
COUNTERFACTUAL=${COUNTERFACTUAL:-counterfactual}
COUNTERFACTUAL_TRAIN=${COUNTERFACTUAL_TRAIN:-counterfactual-train}
python=${BIN:+$BIN/}${PYTHON:-python}
assets=${SENTIMENT_ASSETS:-assets}
small=smollm2-135m large=qwen2.5-coder-1.5b
mpnet=${MPNET:-sentence-transformers/all-mpnet-base-v2} minilm=${MINILM:-sentence-transformers/all-MiniLM-L6-v2}
gemma=${GEMMA:-google/embeddinggemma-300m}

train() {
    name=$1
    shift
    if [ -f "$assets/runs/$name/run.json" ]; then
        echo "run $name is finished"
        return
    fi
    resume=
    if ls outputs/"$name"/checkpoints/checkpoint-* >/dev/null 2>&1; then resume=--resume; fi
    "$python" train.py --run-id "$name" --dataset "$DATASET" --exclude "$COUNTERFACTUAL" $resume "$@"
}

evaluate() { # run or encoder, system, base model of a baseline: on all three data sets, but what is finished
    for dataset in "$DATASET" "$COUNTERFACTUAL" challenge; do
        name=$(basename "$dataset" .parquet | sed 's/^counterfactual$/counterfactual_imdb_test/')
        from="--run $1"
        case $2 in
        fine-tuned) origin=$1 ;;
        encoder-*) from="--base-model $1" origin=$(basename "${1%@*}") ;; # the first call trains it, the cache keeps it
        *) origin=${3:-} ;;
        esac
        if [ "$2" != all ] && [ -f "$assets/evals/$name--$2--$origin/eval.json" ]; then continue; fi
        "$python" eval.py $from --system "$2" --dataset "$dataset" \
            --train-dataset "$DATASET" --exclude "$COUNTERFACTUAL"
    done
}

train $small
train $small-study --preset study
train gemma-3-270m --base-model gemma-3-270m # transformers 5.23 or newer reads its tokenizer
train qwen2.5-coder-0.5b --base-model qwen2.5-coder-0.5b --learning-rate 2e-4
train $large --base-model $large --learning-rate 2e-4 --epochs 1
train qwen2.5-coder-0.5b-taught --base-model qwen2.5-coder-0.5b --teacher $large --learning-rate 2e-4 --epochs 1
train gemma-3-270m-taught --base-model gemma-3-270m --teacher $large --epochs 1
train $large-self-taught --base-model $large --teacher $large --learning-rate 1.5e-4 --epochs 1
train $large-self-taught-b --base-model $large --teacher $large --learning-rate 1e-4 --epochs 1
train $large-soup --soup $large-self-taught --soup $large-self-taught-b
train $small-taught --teacher $large --lora-rank 64 --lora-alpha 128 --learning-rate 5e-4
train $small-robust --also "$COUNTERFACTUAL_TRAIN"
train $large-robust --base-model $large --learning-rate 2e-4 --epochs 1 --also "$COUNTERFACTUAL_TRAIN" --also-weight 4
train $small-taught-robust-b --also "$COUNTERFACTUAL_TRAIN" --also-weight 4 \
    --teacher $large-robust --lora-rank 64 --lora-alpha 128 --learning-rate 5e-4

evaluate $small all
evaluate $small-study all # keeps what the first one made of the base
for run in gemma-3-270m gemma-3-270m-taught qwen2.5-coder-0.5b qwen2.5-coder-0.5b-taught \
    $large $large-self-taught $large-self-taught-b $large-soup $large-robust \
    $small-taught $small-robust $small-taught-robust-b; do
    evaluate $run fine-tuned
done
for base in gemma-3-270m qwen2.5-coder-0.5b $large; do
    for system in scored recalibrated few-shot generated; do evaluate $base baseline-$system $base; done
done
for method in full lora setfit-8 setfit-64; do evaluate "$mpnet" encoder-$method; done
for method in full lora; do evaluate "$minilm" encoder-$method; done
for method in lora linear; do evaluate "$gemma" encoder-$method; done
"$python" -m sentiment_core.artifacts.report --write
"$python" eval.py --report
