#!/bin/sh
# Makes every run and evaluation under assets/ on one GPU. Called by `make artifacts`; repeating the call
# continues an interrupted one and keeps what is finished; evaluations of other settings are to be removed first.
#   DATASET         IMDB: a Hub id (default: stanfordnlp/imdb) or a folder with train and test
#   COUNTERFACTUAL  the 488 reviews with their minimal edits (default: fetched once), or a copy as one file
set -eu
DATASET=${DATASET:-stanfordnlp/imdb}
COUNTERFACTUAL=${COUNTERFACTUAL:-counterfactual}
python=${BIN:+$BIN/}${PYTHON:-python}
assets=${SENTIMENT_ASSETS:-assets}

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

train smollm2-135m
train smollm2-135m-study --preset study
for dataset in "$DATASET" "$COUNTERFACTUAL" challenge; do
    for run in smollm2-135m smollm2-135m-study; do # the second one keeps what the first one made of the base
        "$python" eval.py --run "$run" --system all --dataset "$dataset" \
            --train-dataset "$DATASET" --exclude "$COUNTERFACTUAL"
    done
done
"$python" -m sentiment_core.artifacts.report --write
"$python" eval.py --report
